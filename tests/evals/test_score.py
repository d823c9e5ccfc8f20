"""A score from scored answers, by hand."""

import json

import pytest

from shoestring.errors import DataError
from shoestring.evals.score import ScoredAnswer, summarize


def answer(reward: float | None, vote: str | None = None, **changes) -> ScoredAnswer:
    given = {"text": "<think>so</think>4", "tokens": 6, "thinking_tokens": 2, "finish_reason": "stop"}
    return ScoredAnswer(**{**given, "vote": vote, "reward": reward, **changes})


def test_figures_of_a_task_are_means_over_all_their_numbers():
    rows = [
        [answer(0.5, figures={"prompt": [0.0], "instruction": [1.0, 0.0, 1.0]})],
        [answer(1.0, figures={"prompt": [1.0], "instruction": [1.0]})],
    ]
    score = summarize("ifeval", rows)
    assert score.figures == {"prompt": 1 / 2, "instruction": pytest.approx(3 / 4)}
    low, high = score.intervals["instruction"]
    assert low <= 3 / 4 <= high
    assert score.to_json()["figures"] == score.figures
    assert "figures" not in summarize("sums", [[answer(1.0)]]).to_json()


def test_a_score_is_the_mean_over_problems():
    capped = answer(0.0, None, text="<think>so", tokens=10, thinking_tokens=10, finish_reason="length")
    rows = [
        [answer(1.0, "4"), answer(1.0, "4"), answer(0.0, "5"), answer(0.0, "6")],
        [answer(0.5, "7"), answer(0.5, "7"), answer(1.0, "8"), capped],
    ]
    score = summarize("sums", rows, [answer(1.0), capped], k=(1, 2, 4))
    assert score.pass_at_1 == score.pass_at_k[1] == (1 / 2 + 1 / 4) / 2
    assert score.pass_at_k[2] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert score.pass_at_k[4] == 1
    assert score.maj_at_k == {2: ((1 + 0) / 2 + (0 + 1) / 2) / 2, 4: (1 + 0) / 2}
    assert score.mean_reward == (2 / 4 + 2 / 4) / 2
    assert score.mean_tokens == (6 + 7) / 2
    assert score.mean_thinking_tokens == (2 + 4) / 2
    assert score.capped_share == (0 + 1 / 4) / 2
    assert score.format_share == (1 + 3 / 4) / 2
    assert (score.greedy, score.greedy_capped_share) == (0.5, 0.5)
    assert (score.problems, score.samples, score.faults) == (2, 4, 0)
    for name, (low, high) in score.intervals.items():
        assert low <= high, name
    assert {"pass_at_1", "maj_at_4", "greedy", "capped_share"} < score.intervals.keys()


def test_a_fault_is_left_out_and_counted():
    rows = [[answer(None, "9"), answer(1.0, "4"), answer(0.0, "5")], [answer(0.0, "1")] * 3]
    score = summarize("sums", rows, k=(2, 3))
    assert score.faults == 1
    assert score.pass_at_1 == (1 / 2 + 0) / 2
    assert score.pass_at_k[2] == (1 + 0) / 2
    assert score.pass_at_k[3] == 0  # of the one problem that has three verdicts
    assert score.greedy is None


def test_too_many_faults_are_no_score():
    rows = [[answer(None), answer(1.0), answer(None)]]
    with pytest.raises(DataError, match="2 of 3 answers to sums got no verdict"):
        summarize("sums", rows)
    with pytest.raises(DataError, match="pass_at_3 is undefined"):
        summarize("sums", [[answer(None), answer(1.0), answer(1.0)]], k=(3,))


def test_a_score_is_json():
    data = summarize("sums", [[answer(1.0, "4")] * 2], k=(2,)).to_json()
    assert json.loads(json.dumps(data)) == data
    assert data["maj_at_k"] == {"2": 1.0}
    assert data["intervals"]["pass_at_1"] == [1.0, 1.0]
