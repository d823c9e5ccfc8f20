"""A fake teacher and a fake verifier."""

from dataclasses import replace

import pytest

from shoestring.remote.collector import ChatReply
from shoestring.tasks.task import Example, Task
from shoestring.tasks.verify import Verdict


class Numbers(Task):
    """Problem i asks for i; an answer that ends in it is right."""

    is_pure = True
    name = "numbers"

    def __init__(self, count=5):
        self.count = count

    def examples(self, split, seed):
        while True:
            yield from (Example(key=str(i), question=f"number {i}?", answer=i) for i in range(self.count))

    def reward(self, example, text):
        return float(text.endswith(str(example.answer)))


class FakeTeacher:
    """Says what `say(ask, k)` returns for answer k of an ask; stops the whole thing after `stop_after`."""

    def __init__(self, say, *, stop_after=None, error=None, price=0.0):
        self.name, self.total_cost, self.asked = "fake", 0.0, []
        self._say, self._left, self._error, self._price = say, stop_after, error, price

    def replies(self, asks):
        for ask in asks:
            for k in range(ask.start, ask.start + ask.n):
                if self._left == 0:
                    raise self._error or KeyboardInterrupt
                self._left = self._left and self._left - 1
                self.asked.append((ask.id, k))
                self.total_cost += self._price
                said = self._say(ask, k)
                answer = (
                    said
                    if isinstance(said, ChatReply)
                    else ChatReply(id=ask.id, text=said, finish_reason="stop")
                )
                yield replace(answer, cost=self._price)
            yield None


class FakeVerifier:
    """Judges at once by `task.reward`, or says the fault that `faulty(text)` names."""

    def __init__(self, task, faulty=lambda text: None):
        self.task, self.faulty, self.faults, self.judged, self._ready = task, faulty, {}, [], []
        self.share = 0.0

    def submit(self, ticket, task_name, example, text):
        fault = self.faulty(text)
        self.judged.append(text)
        reward = None if fault else self.task.reward(example, text)
        self._ready.append(Verdict(ticket=ticket, reward=reward, fault=fault))

    def results(self, wait):
        ready, self._ready = self._ready, []
        return ready

    def fault_share(self):
        return self.share

    def fault_counts(self):
        return ", ".join(f"{task}: {n} x {fault}" for (task, fault), n in self.faults.items())


@pytest.fixture
def numbers():
    return Numbers


@pytest.fixture
def fake_teacher():
    return FakeTeacher


@pytest.fixture
def fake_verifier():
    return FakeVerifier
