"""Settings dataclasses: what is read off them, and the sentences of their checks."""

from dataclasses import dataclass
from typing import Literal

import pytest

from settings import check, group, setting, settings_of


@dataclass(frozen=True)
class Inner:
    share: float = setting(0.5, "of it", above=0, most=1)


@dataclass(frozen=True)
class Outer:
    mode: Literal["a", "b"] = setting("a", "which")
    widths: tuple[int, ...] = setting((2, 3), "of layers", least=1)
    camera: int | None = setting(None, "of the model", least=-1)
    rate: float = setting(1.0, "how fast", unit="per step", above=0)
    count: int = setting(0, "how many", least=0)
    on: bool = setting(False, "whether")
    inner: Inner = group(Inner)


def test_what_is_read_off_a_dataclass():
    found = {each.key: each for each in settings_of(Outer)}
    assert list(found) == ["mode", "widths", "camera", "rate", "count", "on", "inner.share"]
    assert found["mode"].choices == ("a", "b") and found["mode"].type is str
    assert found["camera"].optional and found["camera"].type is int and found["camera"].default is None
    assert found["rate"].about.unit == "per step" and found["inner.share"].default == 0.5
    assert [each.key for each in settings_of(Inner, "replay.")] == ["replay.share"]


def test_defaults_pass():
    check(Outer, Outer())
    check(Outer, {"mode": "b", "widths": [1], "camera": -1, "rate": 0.1, "count": 0, "on": True, "inner": {"share": 1}})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mode": "c"}, "part.mode must be one of a, b, got 'c'"),
        ({"widths": (4, 0)}, r"part.widths must be at least 1, got \(4, 0\)"),
        ({"camera": -2}, "part.camera must be at least -1, got -2"),
        ({"rate": 0}, "part.rate must be positive, got 0"),
        ({"rate": float("nan")}, "part.rate must be a finite number, got nan"),
        ({"count": -1}, "part.count must not be negative, got -1"),
        ({"inner": Inner(share=0.0)}, r"part.inner.share must lie in \(0, 1\], got 0"),
        ({"rate": None}, "part.rate must be a number, got None"),
        ({"widths": (4, 0.5)}, r"part.widths must hold whole numbers only, got \(4, 0.5\)"),
        ({"widths": (True,)}, r"part.widths must hold whole numbers only, got \(True,\)"),
        ({"widths": None}, "part.widths must be a tuple, got None"),
        ({"count": "many"}, "part.count must be a whole number, got 'many'"),
        ({"count": 2.0}, "part.count must be a whole number, got 2.0"),
        ({"count": True}, "part.count must be a whole number, got True"),
        ({"on": 1}, "part.on must be True or False, got 1"),
    ],
)
def test_sentences(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(Outer, Outer(**changed), "part.")


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match=r"there is no part.rate in the config, which needs it"):
        check(Outer, {"mode": "a", "widths": (1,), "camera": None}, "part.")
