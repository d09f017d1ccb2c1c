"""Any command line trains fifty steps, or is refused in a sentence that names a setting: no traceback, and no hang."""

import re
import signal
from contextlib import contextmanager

import pytest
from fuzz import command_lines, comparisons, repeatable
from hypothesis import given, settings
from programs import forget_programs

from experiments.build.checks import flatten, validate
from experiments.build.command_line import config_of
from experiments.plasticity import make_plan
from experiments.run import run

# ml_collections 1.1 reads a config file in a way that Python will give up.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
LIMIT = 600
"""Seconds after which a run hangs, on two slow cores with much else to do."""


@contextmanager
def time_limit(seconds):
    def on_alarm(*_):
        pytest.fail(f"hangs: not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def refusal(arguments, results, capsys):
    """The sentence with which a run refuses; empty if it trains to its end."""
    try:
        config = config_of([*arguments, f"--config.results_dir={results}", "--config.exp_id=fuzz"])
    except ValueError as error:
        return str(error)
    capsys.readouterr()
    with time_limit(LIMIT):
        status = run(config, quiet=True)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == (2 if said else 0)
    return said[0].removeprefix("error: ") if said else ""


def names_a_setting(sentence, arguments):
    """Whether the key of a setting is in it, or that of a group of them within another."""
    keys = flatten(config_of(arguments[:1]).to_dict()).keys()
    keys |= {group for key in keys if "." in (group := key.rpartition(".")[0])}
    return any(word.strip(".").removeprefix("config.") in keys for word in re.findall(r"[\w.]+", sentence))


@pytest.fixture
def results(tmp_path_factory):
    count = iter(range(10**6))
    return lambda: tmp_path_factory.mktemp(f"run{next(count)}")


@pytest.mark.slow
@settings(repeatable, max_examples=300)
@given(arguments=command_lines())
def test_any_config_trains_or_is_refused_in_a_sentence(arguments, results, capsys):
    said = refusal(arguments, results(), capsys)
    assert not said or names_a_setting(said, arguments), said
    forget_programs()


@settings(repeatable, max_examples=30)
@given(arguments=command_lines(wrong=True))
def test_what_looks_wrong_is_refused_in_a_sentence_before_anything_is_built(arguments):
    """Only as far as the checks that need no environment; what passes them is for the slow test."""
    try:
        validate(config_of(arguments))
    except ValueError as error:
        assert names_a_setting(str(error), arguments), error


@settings(repeatable, max_examples=10)
@given(asked=comparisons())
def test_any_comparison_on_a_stream_is_planned_or_refused_in_a_sentence(asked, tmp_path):
    stream, arm = asked
    try:
        plan = make_plan([stream], [arm], seeds=2, first_seed=0, out=tmp_path, jobs=1)
    except ValueError as error:
        assert f"--method={arm}" in str(error) or f"unknown stream {stream!r}" in str(error), error
    else:
        assert plan.arms[stream][-1].name == arm
