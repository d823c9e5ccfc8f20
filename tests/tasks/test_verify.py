"""A verifier may hang, raise, lie or die: it costs its own verdict, a bounded time, and nothing else."""

import os
import time

import pytest

from shoestring import child
from shoestring.errors import ConfigError
from shoestring.tasks import verify, verify_worker
from shoestring.tasks.load import load_task
from shoestring.tasks.task import Example
from shoestring.tasks.verify import Verdict, Verifier

EXAMPLE = Example(key="k", question="1+1=?", answer=2)
FAULTS = {
    "raise": "exception",
    "recurse": "exception",
    "nan": "invalid",
    "inf": "invalid",
    "true": "invalid",
    "text": "invalid",
    "huge": "invalid",
    "list": "invalid",
    "object": "invalid",
    "big": "exception",
    "none": "undecided",
    "die": "died",
    "leave": "died",
}


def open_verifier(name, timeout_s=5.0, workers=1, **options):
    return Verifier({name: load_task(name, options)}, workers=workers, timeout_s=timeout_s)


def ask(verifier, name, texts):
    for ticket, text in enumerate(texts):
        verifier.submit(ticket, name, EXAMPLE, text)
    return {verdict.ticket: verdict for verdict in verifier.results(wait=True)}


def is_gone(group):
    """Whether a process group ends soon: collecting an orphan is init's business."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_pure_tasks_answer_at_once():
    with open_verifier("arithmetic") as verifier:
        verifier.submit(7, "arithmetic", EXAMPLE, "2")
        verifier.submit(8, "arithmetic", EXAMPLE, "3")
        assert verifier.results(wait=False) == [
            Verdict(ticket=7, reward=1.0), Verdict(ticket=8, reward=0.0)
        ]  # fmt: skip
        assert verifier.results(wait=True) == []
        assert not verifier.faults


def test_every_misbehavior_costs_its_own_verdict_alone(misbehaving):
    texts = [word for fault in FAULTS for word in (fault, "right", "print")]
    with open_verifier(misbehaving, workers=2) as verifier:
        verdicts = ask(verifier, misbehaving, texts)
        assert len(verdicts) == len(texts)
        for ticket, text in enumerate(texts):
            expected = {"right": (1.0, None), "print": (5e-7, None)}.get(text, (None, FAULTS.get(text)))
            assert (verdicts[ticket].reward, verdicts[ticket].fault) == expected, text
        assert verifier.faults.total() == len(FAULTS)
        assert verifier.verdicts == len(texts)


def test_the_pure_ones_are_held_to_the_same_rules(misbehaving):
    texts = ["right", *(text for text in FAULTS if FAULTS[text] != "died")]
    with open_verifier(misbehaving, is_pure=True) as verifier:
        faults = [verdict.fault for verdict in ask(verifier, misbehaving, texts).values()]
    assert faults == [None, *(FAULTS[text] for text in texts[1:])]


def test_hanging_is_ended_by_the_clock_and_others_go_on(misbehaving):
    texts = ["right", "hang", "right", "spin", "right"]
    with open_verifier(misbehaving, timeout_s=0.5) as verifier:
        start = time.monotonic()
        verdicts = ask(verifier, misbehaving, texts)
        assert time.monotonic() - start < 15
    assert [verdicts[i].fault for i in range(5)] == [None, "timeout", None, "timeout", None]
    assert [verdicts[i].reward for i in (0, 2, 4)] == [1.0, 1.0, 1.0]


def test_a_hanging_one_does_not_hold_up_another_worker(misbehaving):
    with open_verifier(misbehaving, timeout_s=30, workers=2) as verifier:
        verifier.submit(0, misbehaving, EXAMPLE, "hang")
        for ticket in range(1, 4):
            verifier.submit(ticket, misbehaving, EXAMPLE, "right")
        found, deadline = [], time.monotonic() + 20
        while len(found) < 3 and time.monotonic() < deadline:
            found += verifier.results(wait=False)
            time.sleep(0.02)
        assert {verdict.ticket for verdict in found} == {1, 2, 3}
        start = time.monotonic()
    assert time.monotonic() - start < 5  # closing does not wait for the hanging one either
    assert verifier.results(wait=True) == []


def test_nothing_is_left_behind(misbehaving, monkeypatch):
    started = []
    start = child.start
    monkeypatch.setattr(child, "start", lambda script: started.append(start(script)) or started[-1])
    with open_verifier(misbehaving, timeout_s=0.7) as verifier:
        ask(verifier, misbehaving, ["hang with a process", "right", "die"])
        verifier.submit(9, misbehaving, EXAMPLE, "hang")
        time.sleep(0.1)
    assert len(started) >= 2
    for process in started:
        assert is_gone(process.pid)  # the child, and what it started


def test_loading_is_not_on_the_clock_of_the_first_reply(misbehaving):
    with open_verifier(misbehaving, timeout_s=1.0, broken="slow") as verifier:
        assert ask(verifier, misbehaving, ["right"])[0].reward == 1.0


def test_a_task_that_does_not_load_in_the_child_is_a_fault(misbehaving, caplog):
    with open_verifier(misbehaving, broken="no such library") as verifier:
        verdicts = ask(verifier, misbehaving, ["right", "right"])
    assert [verdict.fault for verdict in verdicts.values()] == ["exception"] * 2
    assert caplog.text.count("no such library") == 1


def test_a_verifier_that_only_hangs_is_given_up_until_the_next_batch(misbehaving, monkeypatch):
    monkeypatch.setattr(verify_worker, "GIVE_UP_AFTER", 2)
    with open_verifier(misbehaving, timeout_s=0.2) as verifier:
        faults = [v.fault for v in ask(verifier, misbehaving, ["hang"] * 50).values()]
        assert faults == ["timeout"] * 2 + ["skipped"] * 48
        assert ask(verifier, misbehaving, ["right"])[0].reward == 1.0


def test_a_share_of_faults_needs_a_hundred_verdicts(misbehaving):
    with open_verifier(misbehaving, is_pure=True) as verifier:
        ask(verifier, misbehaving, ["nan"] * 3 + ["right"] * 96)
        assert verifier.fault_share() == 0.0
        ask(verifier, misbehaving, ["right"])
        assert verifier.fault_share() == pytest.approx(0.03)


@pytest.mark.parametrize("is_pure", [True, False])
def test_a_reply_without_end_is_no_answer_and_no_fault(misbehaving, is_pure):
    with open_verifier(misbehaving, is_pure=is_pure) as verifier:
        verdicts = ask(verifier, misbehaving, ["2" * (verify.MAX_CHARS + 1), "2" * verify.MAX_CHARS])
        assert (verdicts[0].reward, verdicts[0].fault) == (0.0, None)
        assert verdicts[1].reward == pytest.approx(verify.MAX_CHARS / 10**7)


def test_any_text_reaches_the_child_whole(misbehaving):
    texts = ["", "\0", "\ud800", "\n" * 70_000, "思" * 100_000]
    with open_verifier(misbehaving) as verifier:
        verdicts = ask(verifier, misbehaving, texts)
    assert [verdicts[i].reward for i in range(5)] == [len(text) / 10**7 for text in texts]


def test_hostile_error_text_does_not_reach_the_terminal(misbehaving, caplog):
    with open_verifier(misbehaving, is_pure=True) as verifier:
        ask(verifier, misbehaving, ["raise", "raise"])
    assert "\x1b" not in caplog.text
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


def test_wrong_tasks_are_refused_at_once():
    with pytest.raises(ConfigError, match="no task"):
        open_verifier("nothing")
    with pytest.raises(ConfigError, match="stepz"):
        open_verifier("arithmetic", stepz=3)


def test_what_a_reward_prints_is_shown_only_where_that_is_wanted(misbehaving, capfd):
    for shows_prints in (False, True):
        tasks = {misbehaving: load_task(misbehaving)}
        with Verifier(tasks, timeout_s=5.0, shows_prints=shows_prints) as verifier:
            assert ask(verifier, misbehaving, ["print"])[0].reward == 5e-7
        assert ("yyy" in capfd.readouterr().err) == shows_prints
