"""DrQ-v2 and TD3 in eager PyTorch, as one would write them there: what a user would run in place of ours.

The same networks, losses and optimisers as `agents/drq.py` and `agents/td3.py` with no plasticity method; a test holds
the updates equal. It needs the extra `bench`, and imports nothing of ours, so that a process of it is PyTorch alone.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

BOUND = 1 - 1e-6
"""Of noisy actions, as in DrQ-v2's published code."""


@dataclass(frozen=True)
class Form:
    """Sizes and settings of an agent; they are called as in `config.agent`."""

    obs: tuple[int, ...]
    """(channels, height, width) of the stacked frames, or (features,) of a state."""
    actions: int
    hidden: tuple[int, ...]
    learning_rate: float
    tau: float
    preactivation_penalty: float = 0.0
    # From pixels, by DrQ-v2
    channels: int = 32
    strides: tuple[int, ...] = (2, 1, 1, 1)
    projection: int = 50
    shift_pad: int = 4
    std_clip: float = 0.3
    # From states, by TD3
    policy_delay: int = 2
    smoothing_std: float = 0.2
    smoothing_clip: float = 0.5


def form_of(settings: dict, **others: object) -> Form:
    """The form with these settings of `config.agent`; what it has no use for is left out."""
    known = {each.name for each in dataclasses.fields(Form)}
    given = {key: value for key, value in {**settings, **others}.items() if key in known}
    made: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in given.items()}
    return Form(**made)


class Batch(NamedTuple):
    """Transitions, [batch, ...] each; pixels are uint8 with channels first."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Tensor


class Draws(NamedTuple):
    """What an update draws at random: shifts in pixels, int64 [batch, 2] as (y, x), and standard normal noise."""

    noise: Tensor
    next_noise: Tensor
    shift: Tensor | None = None
    next_shift: Tensor | None = None


class Encoder(nn.Module):
    """Pixels uint8 [batch, channels, height, width], or floats of that range, to features [batch, features]."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        sizes = [form.obs[0]] + [form.channels] * len(form.strides)
        layers = [
            part
            for into, out, stride in zip(sizes, sizes[1:], form.strides)
            for part in (nn.Conv2d(into, out, 3, stride), nn.ReLU())
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs / 255 - 0.5).flatten(1)


def perceptron(into: int, hidden: tuple[int, ...], out: int) -> nn.Sequential:
    """ReLU layers and a linear head."""
    sizes = [into, *hidden]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], out))


def projection(features: int, form: Form) -> nn.Module:
    """What actor and critic each make of an encoder's features; states stay as they are."""
    if len(form.obs) == 1:
        return nn.Identity()
    return nn.Sequential(nn.Linear(features, form.projection), nn.LayerNorm(form.projection), nn.Tanh())


class Actor(nn.Module):
    """Features to what the policy's tanh takes."""

    def __init__(self, features: int, form: Form) -> None:
        super().__init__()
        self.projection = projection(features, form)
        seen = features if len(form.obs) == 1 else form.projection
        self.policy = perceptron(seen, form.hidden, form.actions)

    def forward(self, features: Tensor) -> Tensor:
        return self.policy(self.projection(features))


class Critic(nn.Module):
    """Features and action to two values, [batch, 1] each."""

    def __init__(self, features: int, form: Form) -> None:
        super().__init__()
        self.projection = projection(features, form)
        seen = (features if len(form.obs) == 1 else form.projection) + form.actions
        self.q1, self.q2 = (perceptron(seen, form.hidden, 1) for _ in range(2))

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.projection(features), action], dim=1)
        return self.q1(x), self.q2(x)


def random_shift(images: Tensor, shift: Tensor, pad: int) -> Tensor:
    """Floats of the images, each moved by its `shift` in -pad ... pad as DrQ does it: padded by the border, and read
    at the places of a grid."""
    count, _, height, width = images.shape
    padded = F.pad(images.float(), (pad,) * 4, mode="replicate")
    full_height, full_width = height + 2 * pad, width + 2 * pad
    rows = (2 * torch.arange(height) + 1) / full_height - 1  # of pixel centres, from -1 to 1 over the padded image
    columns = (2 * torch.arange(width) + 1) / full_width - 1
    offset = 2 * (shift + pad) / torch.tensor([full_height, full_width])
    y = (rows + offset[:, :1])[:, :, None].expand(count, height, width)
    x = (columns + offset[:, 1:])[:, None, :].expand(count, height, width)
    return F.grid_sample(padded, torch.stack([x, y], dim=3), padding_mode="zeros", align_corners=False)


def noisy(mean: Tensor, noise: Tensor, clip: float) -> Tensor:
    """The action with noise that is cut at `clip`; the gradient passes straight through the bound of the sum."""
    action = mean + noise.clamp(-clip, clip)
    return action + (action.clamp(-BOUND, BOUND) - action).detach()


def follow(target: nn.Module, network: nn.Module, tau: float) -> None:
    """Move a target network by `tau` towards the one that learns."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), network.parameters()):
            slow.copy_(tau * fast + (1 - tau) * slow)


def step(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    """One step of these optimisers along the gradient of `loss`."""
    for each in optimisers:
        each.zero_grad(set_to_none=True)
    loss.backward()
    for each in optimisers:
        each.step()


class DrQ:
    """DrQ-v2: encoder, actor, critic and its target, each that learns with an Adam of its own."""

    def __init__(self, form: Form) -> None:
        self.form, self.encoder = form, Encoder(form)
        features = self.encoder(torch.zeros(1, *form.obs)).shape[1]
        self.actor, self.critic = Actor(features, form), Critic(features, form)
        self.target_critic = copy.deepcopy(self.critic)
        networks = (self.encoder, self.critic, self.actor)
        self.of_encoder, self.of_critic, self.of_actor = (
            torch.optim.Adam(each.parameters(), form.learning_rate) for each in networks
        )

    def draw(self, count: int) -> Draws:
        """Fresh random numbers for a batch."""
        noise, next_noise = torch.randn(2, count, self.form.actions)
        shift, next_shift = torch.randint(-self.form.shift_pad, self.form.shift_pad + 1, (2, count, 2))
        return Draws(noise, next_noise, shift, next_shift)

    def act(self, obs: Tensor) -> Tensor:
        """The mean actions for observations [batch, channels, height, width]."""
        with torch.no_grad():
            return torch.tanh(self.actor(self.encoder(obs)))

    def update(self, batch: Batch, std: float, draws: Draws | None = None) -> dict[str, Tensor]:
        """One update of critic and encoder, of the actor, and of the target; `std` is the noise's deviation."""
        form, draws = self.form, draws or self.draw(len(batch.action))
        assert draws.shift is not None and draws.next_shift is not None  # of pixels
        features = self.encoder(random_shift(batch.obs, draws.shift, form.shift_pad))
        with torch.no_grad():
            later = self.encoder(random_shift(batch.next_obs, draws.next_shift, form.shift_pad))
            action = noisy(torch.tanh(self.actor(later)), std * draws.next_noise, form.std_clip)
            target = batch.reward + batch.discount * torch.min(*self.target_critic(later, action))
        q1, q2 = self.critic(features, batch.action)
        critic_loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        step(critic_loss, self.of_encoder, self.of_critic)
        features = features.detach()
        before = self.actor(features)
        action = noisy(torch.tanh(before), std * draws.noise, form.std_clip)
        actor_loss = -torch.min(*self.critic(features, action)).mean()
        if form.preactivation_penalty:
            actor_loss = actor_loss + form.preactivation_penalty * before.square().mean()
        step(actor_loss, self.of_actor)
        follow(self.target_critic, self.critic, form.tau)
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach()}


class TD3:
    """TD3 from states: actor, critic, and a target of each."""

    def __init__(self, form: Form) -> None:
        self.form, self.updates = form, 0
        self.actor, self.critic = Actor(form.obs[0], form), Critic(form.obs[0], form)
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.of_critic, self.of_actor = (
            torch.optim.Adam(each.parameters(), form.learning_rate) for each in (self.critic, self.actor)
        )
        self.actor_loss = torch.zeros(())

    def draw(self, count: int) -> Draws:
        """Fresh random numbers for a batch."""
        return Draws(*torch.randn(2, count, self.form.actions))

    def update(self, batch: Batch, std: float = 0.0, draws: Draws | None = None) -> dict[str, Tensor]:
        """One update of the critic, and every `policy_delay`-th time of the actor and the targets."""
        form, draws = self.form, draws or self.draw(len(batch.action))
        self.updates += 1
        with torch.no_grad():
            noise = (form.smoothing_std * draws.next_noise).clamp(-form.smoothing_clip, form.smoothing_clip)
            action = (torch.tanh(self.target_actor(batch.next_obs)) + noise).clamp(-1, 1)
            target = batch.reward + batch.discount * torch.min(*self.target_critic(batch.next_obs, action))
        q1, q2 = self.critic(batch.obs, batch.action)
        critic_loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        step(critic_loss, self.of_critic)
        if self.updates % form.policy_delay == 0:
            before = self.actor(batch.obs)
            loss = -self.critic(batch.obs, torch.tanh(before))[0].mean()
            if form.preactivation_penalty:
                loss = loss + form.preactivation_penalty * before.square().mean()
            step(loss, self.of_actor)
            follow(self.target_actor, self.actor, form.tau)
            follow(self.target_critic, self.critic, form.tau)
            self.actor_loss = loss.detach()
        return {"critic_loss": critic_loss.detach(), "actor_loss": self.actor_loss}
