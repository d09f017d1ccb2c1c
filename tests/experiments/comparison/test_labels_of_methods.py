"""What `--method` may say, and the config that each run then has."""

import pytest

from configs import gymnax_states
from experiments.build.command_line import config_of
from experiments.comparison.methods import overrides_of
from experiments.launch.overrides import with_own

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def config_of_label(label, *given):
    (overrides,) = overrides_of(gymnax_states.get_config(), [label]).values()
    return config_of(with_own(["--config=configs/gymnax_states.py", *given], overrides))


def test_each_method_has_its_config():
    plain = config_of_label("none", "--config.plasticity.omega=0.7").plasticity
    ours = config_of_label("ne,revive=bias,omega=0.3,every=50", "--config.plasticity.omega=0.7").plasticity
    released = config_of_label("ne,preset=released,tau=0.5").plasticity
    redo = config_of_label("redo,redo.tau=0.2").plasticity
    assert (ours.method, ours.revive, ours.omega, ours.every) == ("ne", "bias", 0.3, 50)
    assert (released.prune, released.every, released.tau) == ("magnitude", 100, 0.5)
    assert (plain.method, plain.every, plain.omega) == ("none", 200, 0.7)
    assert (redo.method, redo.redo.tau) == ("redo", 0.2)


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (["ne", "ne"], "--method=ne comes twice"),
        (["ne,omega"], "--method=ne,omega: omega= must be KEY=VALUE"),
        (["ne,omegas=1"], "omegas=1 must be KEY=VALUE, with a key of config.plasticity"),
        (["ne,redo=1"], "redo=1 must be KEY=VALUE, with a key of config.plasticity"),
        (["ne,method=redo"], "method=redo must be KEY=VALUE"),
        (["ne,actor=static"], "actor=static must be KEY=VALUE"),
        (["ne,every=1e3"], "every must be a number like 20, not '1e3'"),
        (["ne,omega=x"], "omega must be a number like 0.4, not 'x'"),
    ],
)
def test_a_bad_label_is_a_sentence(methods, sentence):
    with pytest.raises(ValueError) as error:
        overrides_of(gymnax_states.get_config("smoke"), ["none", *methods])
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("label", "given", "sentence"),
    [
        ("redo,preset=released", [], "preset=released stands for plasticity.method=ne"),
        ("ne,omega=0.2,preset=released", [], "stands for plasticity.omega=0.4, and the command line says 0.2"),
        ("ne,preset=released,omega=0.2", [], "stands for plasticity.omega=0.4, and the command line says 0.2"),
        (
            "ne,preset=paper",
            ["--config.review.mode=gate"],
            "stands for review.mode=slope, and the command line says gate",
        ),
    ],
)
def test_a_preset_does_not_win_over_what_was_said(label, given, sentence):
    with pytest.raises(ValueError) as error:
        config_of_label(label, *given)
    assert sentence in str(error.value)


def test_a_method_of_one_network_would_hold_for_all():
    config = gymnax_states.get_config("smoke")
    config.plasticity.actor.method = "static"
    with pytest.raises(ValueError, match=r"plasticity\.actor\.method holds for every line"):
        overrides_of(config, ["none"])
