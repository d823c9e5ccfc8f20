import os
import signal
import time

import pytest

from shoestring.engine.constrain.compile_child import CompileChild
from shoestring.errors import ConfigError, MissingDependencyError

SPECIALS = {"<eos>": 0, "<think>": 1}
LEAST_COMMON = " & ".join(f"/(a|b)*a(a|b){{{i}}}/" for i in range(1, 30))


def check(child, grammar):
    child.check(grammar, row_items=500)


@pytest.fixture
def child():
    child = CompileChild(SPECIALS, (0,), 300, time_limit_s=0.3)
    yield child
    child.close()


def test_what_compiles_passes_and_what_does_not_says_why(child):
    check(child, 'start: "a" <think> /[0-9]+/')
    with pytest.raises(ConfigError, match="unknown name"):
        check(child, "start: missing")
    with pytest.raises(ConfigError, match="look-around"):
        check(child, "start: /a(?=b)/")
    with pytest.raises(ConfigError, match="nothing can match it"):
        check(child, "start: start")
    with pytest.raises(ConfigError, match="incompatible types"):
        check(child, 'start: %json {"allOf": [{"type": "string"}, {"type": "null"}]}')


def test_a_grammar_that_takes_for_ever_is_stopped_and_the_next_is_served(child):
    check(child, 'start: "a"')
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(ConfigError, match=r"more than 0\.3 s or too much memory"):
            check(child, f"start: A\nA: {LEAST_COMMON}")
        assert time.monotonic() - start < 30  # 0.3 s on an idle machine
        check(child, 'start: "a"')


def test_a_child_that_was_killed_is_replaced(child):
    check(child, 'start: "a"')
    os.kill(child._child.pid, signal.SIGKILL)
    child._child.wait()
    check(child, 'start: "b"')


def test_memory_is_bounded(child):
    """Far beyond what the engine hands over, so that only the child's own limits hold."""
    with pytest.raises(ConfigError):
        check(child, "start: /" + "\\p{L}" * 200_000 + "/")
    check(child, 'start: "a"')


def test_a_child_that_does_not_start_is_reported(child, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(MissingDependencyError, match="llguidance"):
        check(child, 'start: "a"')


def test_no_child_outlives_its_owner():
    child = CompileChild(SPECIALS, (0,), 300, time_limit_s=5.0)
    check(child, 'start: "a"')
    process = child._child
    del child
    assert process.wait(10) is not None
