"""Samples of the first and last step and some between."""

from itertools import pairwise

from shoestring.serve.training.samples import MAX_SAMPLES, MAX_STEPS, MAX_TEXT, Samples


def row(step, **fields):
    own = {"question": "q", "text": f"t{step}", "parts": {"accuracy": 1.0}, "truncated": False}
    return {"step": step, **own, **fields}


def test_the_first_the_last_and_some_between_stay():
    samples = Samples()
    samples.add([row(step) for step in range(1, 201) for _ in range(8)])
    steps = sorted(samples.by_step)
    assert len(steps) == MAX_STEPS
    assert (steps[0], steps[-1]) == (1, 200)
    assert max(b - a for a, b in pairwise(steps)) < 70
    assert all(len(of_step) == MAX_SAMPLES for of_step in samples.by_step.values())


def test_a_sample_says_whether_it_is_right_and_whole():
    samples = Samples()
    samples.add([row(1, text="x" * 9000, truncated=True, parts={"accuracy": 0.0}), row(1)])
    first, second = samples.by_step[1]
    assert first == {"question": "q", "text": "x" * MAX_TEXT, "is_right": False, "is_cut": True}
    assert second["is_right"]


def test_what_is_no_sample_is_left_out():
    samples = Samples()
    samples.add([{"step": 1}, row(1, text=5), row(1, parts=[]), row(1, question=None)])
    assert samples.by_step == {}
    samples.add([row(1, parts={"accuracy": "much"})])
    assert not samples.by_step[1][0]["is_right"]
