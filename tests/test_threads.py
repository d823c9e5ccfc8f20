import json
import time

import pytest
import torch

from shoestring import threads
from shoestring.threads import Reading, Threads, machine_reading


@pytest.fixture(autouse=True)
def threads_of_before(monkeypatch):
    """A machine on which nobody fixed the threads; other tests get theirs back."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "WINDOW_S", 0.0)
    yield
    torch.set_num_threads(before)


class Machine:
    """Cores, of which others use some for a second between two looks."""

    def __init__(self, monkeypatch, cores: int) -> None:
        self.cores, self.now = cores, Reading(-1e6, 0.0, 0.0, cores)
        monkeypatch.setattr(threads, "most_threads", lambda: cores)
        torch.set_num_threads(cores)

    def read(self) -> Reading:
        return self.now

    def second(self, followed: Threads, others: float) -> int:
        """The threads after a second in which others had so many cores."""
        own = min(torch.get_num_threads(), self.cores - others)
        clock_s, own_s, idle_s, cores = self.now
        self.now = Reading(clock_s + 1, own_s + own, idle_s + cores - others - own, cores)
        followed.follow()
        return torch.get_num_threads()


def test_threads_leave_cores_to_others_and_come_back_when_they_are_idle(monkeypatch):
    machine = Machine(monkeypatch, 2)
    followed = Threads(machine.read)
    assert machine.second(followed, 0.0) == 2
    assert machine.second(followed, 0.67) == 1  # the fair share of one program beside two threads
    assert [machine.second(followed, 1.0) for _ in range(4)] == [1, 1, 1, 1]
    assert [machine.second(followed, 0.0) for _ in range(3)] == [1, 2, 2]


def test_a_pause_of_others_is_no_room_yet(monkeypatch):
    machine = Machine(monkeypatch, 2)
    followed = Threads(machine.read)
    seconds = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert [machine.second(followed, others) for others in seconds] == [1] * 6


def test_small_programs_take_no_thread(monkeypatch):
    machine = Machine(monkeypatch, 2)
    followed = Threads(machine.read)
    assert [machine.second(followed, others) for others in (0.1, 0.3, 0.45, 0.2)] == [2] * 4
    machine.second(followed, 2.0)
    assert [machine.second(followed, 0.2) for _ in range(2)] == [1, 2]


def test_one_thread_is_the_fewest_and_many_cores_lose_only_some(monkeypatch):
    machine = Machine(monkeypatch, 16)
    followed = Threads(machine.read)
    assert machine.second(followed, 3.0) == 13
    assert machine.second(followed, 3.0) == 13
    assert machine.second(followed, 16.0) == 1


def test_the_step_is_recorded_and_shown_while_threads_are_lowered(monkeypatch):
    machine = Machine(monkeypatch, 2)
    with Threads(machine.read) as followed:
        assert followed.figures() == ({"threads": 2}, {"sharing": ""})
        machine.second(followed, 1.0)
        assert followed.figures() == ({"threads": 1}, {"sharing": "1 of 2 threads"})
        json.dumps(followed.figures().row)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("others", [1.0, 0.0])
def test_threads_that_the_user_fixed_stay(monkeypatch, others):
    machine = Machine(monkeypatch, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    followed = Threads(machine.read)
    assert [machine.second(followed, others) for _ in range(4)] == [2] * 4
    assert followed.count is None
    assert followed.figures() == ({}, {})


def test_a_system_that_does_not_tell_keeps_its_threads(monkeypatch):
    Machine(monkeypatch, 2)
    followed = Threads(lambda: None)
    followed.follow()
    assert torch.get_num_threads() == 2


def test_a_reading_of_this_machine_grows_with_what_this_process_does():
    first = machine_reading()
    if first is None:
        pytest.skip("no /proc/stat")
    while time.process_time() < first.own_s + 0.02:
        pass
    second = machine_reading()
    assert second.own_s > first.own_s
    assert second.clock_s > first.clock_s
    assert second.idle_s >= first.idle_s
    assert second.cores == first.cores >= 1
