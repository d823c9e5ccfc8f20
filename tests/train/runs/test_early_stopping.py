"""Early stopping: the best score, the model kept for it, and a state that resumes."""

import json

import pytest

from shoestring.errors import CheckpointError
from shoestring.train.runs.early_stopping import EarlyStopping


def judge_all(stopping, scores, first=1):
    for step, score in enumerate(scores, start=first):
        stopping.judge(score, step, lambda folder, step=step: (folder / "weights").write_text(str(step)))


def test_the_best_is_kept_and_patience_ends_the_run(tmp_path):
    stopping = EarlyStopping(2, tmp_path)
    judge_all(stopping, [3.0, 2.0, 2.5])
    assert (stopping.best_step, stopping.is_due) == (2, False)
    judge_all(stopping, [2.0], first=4)  # not better
    assert stopping.is_due
    assert (stopping.best_folder() / "weights").read_text() == "2"


def test_a_better_score_begins_the_count_again(tmp_path):
    stopping = EarlyStopping(2, tmp_path)
    judge_all(stopping, [3.0, 3.5, 2.0, 2.5])
    assert (stopping.best_step, stopping.num_worse, stopping.is_due) == (3, 1, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_without_patience_nothing_is_kept(tmp_path):
    stopping = EarlyStopping(0, tmp_path / "best")
    judge_all(stopping, [1.0, 2.0, 3.0])
    assert not stopping.is_due
    assert not (tmp_path / "best").exists()


def test_the_state_goes_through_json_and_an_old_one_is_a_beginning(tmp_path):
    stopping, again, old = (EarlyStopping(2, tmp_path) for _ in range(3))
    judge_all(stopping, [0.1 + 0.2, 1.0])
    again.load_state(json.loads(json.dumps(stopping.state(), allow_nan=False)))
    assert again == stopping
    old.load_state({})
    assert old == EarlyStopping(2, tmp_path)
    old.load_state(json.loads(json.dumps(old.state(), allow_nan=False)))
    assert old.best_score == float("inf")


def test_a_damaged_best_model_is_refused(tmp_path):
    stopping = EarlyStopping(1, tmp_path)
    judge_all(stopping, [1.0])
    (stopping.best_folder() / "weights").write_text("9")
    with pytest.raises(CheckpointError, match="is damaged"):
        stopping.best_folder()
