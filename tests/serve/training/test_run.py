"""A run as it is watched."""

import json

from shoestring.serve.training.run import WatchedRun


def test_the_place_and_the_rest_of_reinforcement(run):
    watched = WatchedRun(run)
    zero = watched.stages()[2]
    log = watched.log(zero)
    progress = log.progress(zero)
    assert (progress.step, progress.steps, progress.share) == (4, 10, 0.4)
    assert progress.eta_s == 18.0
    assert progress.figures == {"accuracy": 0.4}
    assert sorted(log.samples.by_step) == [1, 2, 3, 4]
    assert watched.title == "R1 in miniature"
    with (run / "zero" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "accuracy": 0.5}) + "\n")
    assert watched.log(zero).progress(zero).step == 5
    assert len(log.curves.points["accuracy"]) == 5


def test_the_rest_of_a_training_on_tokens(run):
    watched = WatchedRun(run)
    base = watched.stages()[1]
    metrics = run / "base" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:4]))
    progress = watched.log(base).progress(base)
    assert (progress.step, progress.share) == (4, 0.4)
    assert progress.eta_s == 12.0


def test_a_resumed_log_begins_anew(run):
    watched = WatchedRun(run)
    zero = watched.stages()[2]
    watched.log(zero)
    new = run / "zero" / "new"
    new.write_text('{"step": 1, "accuracy": 0.9}\n')
    new.rename(run / "zero" / "metrics.jsonl")
    assert watched.log(zero).curves.points == {"accuracy": [(1, 0.9)]}


def test_figures_of_every_kind_are_survived(run):
    rows = [
        {"step": 1},
        {"step": 2, "sample_s": "x", "update_s": None, "tokens": [], "tokens_per_s": 10**400},
    ]
    for stage in ("base", "zero"):
        (run / stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    watched = WatchedRun(run)
    for stage in watched.stages():
        watched.log(stage).progress(stage)
