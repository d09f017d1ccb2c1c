"""What varies over a sweep, and the names of its runs."""

import pytest

from experiments.build.run_names import name_runs
from experiments.launch.overrides import make_overrides, settings_given, shared_arguments, split_values, with_own


def test_every_value_goes_with_every_other():
    found = make_overrides(["agent.tau=0.1,0.2", "plasticity.method=none,ne"])
    assert [tuple(each.values()) for each in found] == [
        ("0.1", "none"), ("0.1", "ne"), ("0.2", "none"), ("0.2", "ne")
    ]  # fmt: skip
    assert list(found[0]) == ["agent.tau", "plasticity.method"]


def test_zipped_they_go_side_by_side():
    assert make_overrides(["a=1,2", "b=x,y"], zipped=True) == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def test_a_draw_is_a_part_of_the_product_and_the_same_each_time():
    over = [f"{key}={','.join(map(str, range(5)))}" for key in "ab"]
    drawn = [make_overrides(over, count=7, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(each.values()) for each in drawn[0]}) == 7
    assert all(each in make_overrides(over) for each in drawn[0])


def test_a_table_has_a_run_in_each_line(tmp_path):
    (tmp_path / "runs.csv").write_text('env.name,agent.hidden\nPendulum-v1,"(64, 64)"\n\nReacher-misc,"(32,)"\n')
    assert make_overrides([], table=tmp_path / "runs.csv") == [
        {"env.name": "Pendulum-v1", "agent.hidden": "(64, 64)"},
        {"env.name": "Reacher-misc", "agent.hidden": "(32,)"},
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", ["1", "2"]),
        ("(1,2),(3,)", ["(1,2)", "(3,)"]),
        ("'a,b', c", ["'a,b'", "c"]),
        ("((1,2),3)", ["((1,2),3)"]),
        ("", []),
    ],
)
def test_commas_in_brackets_and_quotes_divide_nothing(text, values):
    assert split_values(text, text) == values


@pytest.mark.parametrize(
    ("over", "more", "sentence"),
    [
        ([], {}, "a sweep needs what varies"),
        (["agent.tau"], {}, "must be KEY=VALUE,VALUE"),
        (["agent.tau="], {}, "has no value, so there would be no run"),
        (["agent.tau=1,,2"], {}, "has an empty value"),
        (["seeds=(0,1"], {}, "has a bracket or a quote that is not closed"),
        (["seeds=0)"], {}, "has a bracket or a quote that is not closed"),
        (["a=1", "a=2"], {}, "--over=a comes twice"),
        (["a=1,2", "b=1"], {"zipped": True}, "--zip needs as many values of each key, got a 2, b 1"),
        (["a=1,2"], {"count": 3}, r"--random=3 must lie in \[1, 2\]"),
        (["a=1,2"], {"count": 0}, r"--random=0 must lie in \[1, 2\]"),
        (["exp_id=a,b"], {}, "exp_id names the folders"),
    ],
)
def test_what_cannot_be_is_a_sentence(over, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_overrides(over, **more)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("agent.tau\n", "holds no run"),
        ("agent.tau,agent.tau\n1,2\n", "must have different keys"),
        ("agent.tau,seeds\n1\n", "line 2 .*must have 2 values"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_wrong_table_is_a_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        make_overrides([], table=tmp_path / "runs.csv")


def test_a_table_comes_in_place_of_lists(tmp_path):
    with pytest.raises(ValueError, match="--file says all that varies"):
        make_overrides(["a=1"], table=tmp_path / "runs.csv")


def test_names_say_what_varies_and_are_short():
    runs = make_overrides(["agent.hidden=(8,8)", "plasticity.actor.method=ne", "plasticity.critic.method=none"])
    assert name_runs(runs, "td3") == ["hidden=8-8,plasticity.actor.method=ne,plasticity.critic.method=none"]
    assert name_runs(make_overrides(["env.name=a,b"]), "td3") == ["td3", "td3"]  # whose folders end in the environment
    assert name_runs(make_overrides(["agent.x=-1,1"]), "td3") == ["x=-1", "x=1"]


@pytest.mark.parametrize("over", ["agent.tau=1,1", "seeds=(0,),[0]"])
def test_two_runs_of_one_name_are_a_sentence(over):
    with pytest.raises(ValueError, match="two runs would have one name"):
        name_runs(make_overrides([over]), "td3")


def test_what_holds_for_all_runs_is_taken_from_the_command_line():
    argv = [
        "--config",
        "f.py",
        "--over=a=1",
        "--config.batch_size=8",
        "--zip",
        "--config.exp_id",
        "x",
        "--noconfig.resume",
    ]
    assert shared_arguments(argv, {"a": "1"}) == ["--config", "f.py", "--config.batch_size=8", "--noconfig.resume"]
    with pytest.raises(ValueError, match=r"a is set for all runs by --config\.a, and varies"):
        shared_arguments(["--config.a=2"], {"a": "1"})


def test_settings_of_a_launcher_are_numbers_and_words():
    argv = ["--slurm.partition=gpu", "--slurm.mem_gb=64", "-slurm.signal_delay_s=30", "--slurm.time=1:00", "--ray.x=1"]
    assert settings_given(argv, "slurm") == {"partition": "gpu", "mem_gb": 64, "signal_delay_s": 30, "time": "1:00"}
    assert settings_given([*argv, "--config.a=1"], "ray") == {"x": 1}
    with pytest.raises(ValueError, match=r"--slurm\.gpus must be --slurm\.KEY=VALUE"):
        settings_given(["--slurm.gpus"], "slurm")


def test_what_is_a_runs_own_takes_the_place_of_what_is_for_all():
    """A key that came twice would add a tuple to the first one."""
    shared = ["--config", "f.py", "--config.seeds=(0,1)", "--config.tau", "5", "--noconfig.resume"]
    assert with_own(shared, {"seeds": "(7,)", "tau": "6"}) == (
        "--config", "f.py", "--noconfig.resume", "--config.seeds=(7,)", "--config.tau=6"
    )  # fmt: skip
