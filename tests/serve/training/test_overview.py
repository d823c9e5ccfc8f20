"""Runs at a glance and side by side, as their folders show them."""

import json

import pytest

from shoestring.errors import ConfigError
from shoestring.serve.training.overview import compare, find, overview, overviews
from shoestring.train.runs.lock import run_lock

SFT = """model = "org/small"
data = ["talks.jsonl"]
total_tokens = 1000
tags = ["short"]
[optim]
lr = 1e-4
"""


def log(rows: int, start: float = 3.0) -> str:
    lines = [
        {"step": step, "tokens": 100 * step, "progress": step / 10, "loss": start / step, "violations": [1]}
        for step in range(1, rows + 1)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def root(tmp_path):
    """Two runs of one training each, the second finished."""
    for name, rows in (("one", 4), ("two", 10)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.toml").write_text(SFT if name == "one" else SFT.replace("1e-4", "2e-4"))
        (folder / "metrics.jsonl").write_text(log(rows))
    (tmp_path / "two" / "report.json").write_text('{"train_loss": 0.5, "steps": 10, "energy": {"joules": 1}}')
    return tmp_path


def test_a_run_says_what_it_is_and_how_far(root):
    one = overview(root / "one")
    assert (one.name, one.verb, one.model, one.state, one.pid) == ("one", "sft", "org/small", "stopped", None)
    assert (one.step, one.share, one.stage, one.tags) == (4, 0.4, "", ["short"])
    assert one.main_figure == ("loss", 0.75)
    assert one.bytes == sum(path.stat().st_size for path in (root / "one").iterdir())
    two = overview(root / "two")
    assert (two.state, two.share, two.step) == ("finished", 1.0, 10)


def test_a_run_that_goes_on_has_its_process(root):
    import os

    with run_lock(root / "one"):
        assert (overview(root / "one").state, overview(root / "one").pid) == ("running", os.getpid())


@pytest.mark.parametrize(("step", "state"), [(5, "failed"), (4, "stopped"), ("x", "stopped")])
def test_a_run_failed_if_the_step_that_crashed_was_not_taken_since(root, step, state):
    (root / "one" / "crash").mkdir()
    (root / "one" / "crash" / "batch.json").write_text(json.dumps({"step": step}))
    assert overview(root / "one").state == state


def test_a_recipe_of_stages_counts_them(run):
    whole = overview(run)
    assert (whole.verb, whole.model, whole.state, whole.stage) == ("rl", "R1 in miniature", "stopped", "zero")
    assert (whole.step, whole.share) == (4, (2 + 0.4) / 4)
    assert (whole.note, whole.tags) == ("a first try", ["mini"])
    assert whole.main_figure == ("accuracy", 0.4)


@pytest.mark.parametrize(
    ("config", "verb", "place"),
    [
        ('data = ["x"]\n[loss]\nloss_type = "dpo"', "prefer", "."),
        ('data = ["x"]\ncenter_rewards_coefficient = 0.01', "reward-model", "."),
        ('teacher = "t"\nstudent = "s"', "distill", "student"),
        ('[data]\nsources = ["x"]', "pretrain", "."),
        ("steps = 3\nnum_generations = 2", "rl", "."),
    ],
)
def test_every_verb_is_known_by_its_recipe(tmp_path, config, verb, place):
    folder = tmp_path / "run"
    (folder / place).mkdir(parents=True)
    (folder / "config.toml").write_text(config)
    (folder / place / "metrics.jsonl").write_text('{"step": 2, "rewards/accuracies": 0.75, "loss": 1.5}\n')
    found = overview(folder)
    assert (found.verb, found.step, found.main_figure) == (verb, 2, ("rewards/accuracies", 0.75))


@pytest.mark.parametrize("config", ["", "x", "tags = 3\nnote = 4\nmodel = 5", "stages = 1"])
def test_what_is_no_recipe_is_a_run_of_nothing_known(tmp_path, config):
    (tmp_path / "config.toml").write_text(config)
    (tmp_path / "metrics.jsonl").write_text("not json\n")
    found = overview(tmp_path)
    assert (found.verb, found.model, found.note, found.tags, found.figures) == ("", "", "", [], {})


def test_runs_are_listed_the_last_changed_first(root):
    import os

    os.utime(root / "one" / "metrics.jsonl", (4e9, 4e9))
    (root / "no-run").mkdir()
    assert [run.name for run in overviews(root)] == ["one", "two"]
    assert overviews(root / "nowhere") == []


def test_two_runs_side_by_side(root):
    comparison = compare(root / "one", root / "two")
    assert comparison.settings == {"optim.lr": (1e-4, 2e-4)}
    assert comparison.figures == {"loss": (0.75, None), "train_loss": (None, 0.5), "steps": (None, 10.0)}
    assert {name: (len(a), len(b)) for name, (a, b) in comparison.curves.items()} == {"loss": (4, 10)}


def test_a_run_is_found_by_its_folder_or_its_name(root):
    assert find(root, "one") == root / "one"
    assert find(root / "elsewhere", str(root / "two")) == root / "two"
    with pytest.raises(ConfigError, match=r"three is no run's folder, nor a run in .*two, one|one, two"):
        find(root, "three")
