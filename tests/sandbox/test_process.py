"""The sandbox: what programs get and give, every limit, a taste of the attacks, and life after faults."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from shoestring.errors import MissingDependencyError
from shoestring.sandbox import process
from shoestring.sandbox.open import open_sandbox
from shoestring.sandbox.process import Limits, Sandbox

ROOT = Path(__file__).resolve().parents[2]
CHEAP = """read a file; see a file's metadata; write a file; inherited descriptors; start a program; trace
init; new user namespace; connect by TCP; connect to a local socket; signal init; fork bomb;
thread bomb; inodes; daemon; memory in twelve processes; disk in many files; flood from many;
crash in C""".replace("\n", " ").split("; ")


@pytest.fixture(scope="module")
def sandbox():
    try:
        opened = open_sandbox()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with opened:
        yield opened


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def settle(pid: int) -> list[str]:
    """The children that a process still has after a second."""
    for _ in range(100):
        if not children(pid):
            break
        time.sleep(0.01)
    return children(pid)


def test_input_becomes_output(sandbox):
    outcome = sandbox.run("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "añ\n日本\n")
    assert (outcome.status, outcome.code, outcome.stdout) == ("ok", 0, "ña\n本日\n")
    assert outcome.seconds > 0


def test_the_usual_modules_classes_threads_and_own_files_work(sandbox):
    program = """
import collections, dataclasses, hashlib, heapq, math, re, threading
@dataclasses.dataclass
class P:
    x: int
if __name__ == "__main__":
    threads = [threading.Thread(target=lambda: open("own", "a").write("x")) for _ in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    print(P(3), math.comb(5, 2), open("/tmp/own").read(), hashlib.sha256(b"").hexdigest()[:4], input())
"""
    assert sandbox.run(program, "in").stdout == "P(x=3) 10 xxxxxxxx e3b0 in\n"


@pytest.mark.parametrize(
    ("program", "status", "code"),
    [
        ("raise SystemExit", "ok", 0),
        ("raise SystemExit(3)", "exit", 3),
        ("raise SystemExit('text')", "exit", 1),
        ("exit()", "ok", 0),
        ("quit(4)", "exit", 4),
        ("exit('text')", "exit", 1),
        ("1 / 0", "exit", 1),
        ("def f(:", "exit", 1),
        ("\ud800", "exit", 1),
        ("\0", "exit", 1),
        ("import atexit, os; atexit.register(os._exit, 7)", "exit", 7),
        ("import sys; sys.stdout = None", "exit", 120),
        ("import os; os.kill(os.getpid(), 15)", "signal", -signal.SIGTERM),
        ("import os; os.abort()", "signal", -signal.SIGABRT),
        ("while True: pass", "timeout", 0),
        ("import os; os.close(1)\nwhile True: pass", "timeout", 0),
        ("while True: print('x' * 1000)", "output", 0),
        ("x = b'x' * (1 << 30)", "exit", 1),
    ],
)
def test_how_a_program_ends(sandbox, program, status, code):
    outcome = sandbox.run(program, limits=Limits(wall_s=0.3 if status == "timeout" else 20.0))
    assert (outcome.status, outcome.code) == (status, code)
    assert settle(sandbox.pid) == []


def test_output_ends_at_the_limit_and_not_before(sandbox):
    limits = Limits(output_bytes=1000)
    assert sandbox.run("print('x' * 999)", limits=limits).stdout == "x" * 999 + "\n"
    outcome = sandbox.run("print('x' * 1000)", limits=limits)
    assert (outcome.status, len(outcome.stdout)) == ("output", 1000)


def test_output_that_is_no_text_equals_no_text(sandbox):
    assert sandbox.run("import os; os.write(1, b'\\xff')").stdout == "\udcff"


def test_a_function_gets_and_gives_json(sandbox):
    program = "def f(a, *, b=1):\n    print('noise')\n    return {'a': a, 'b': (b, None)}"
    assert sandbox.call(program, "f", [["é", 1.5]]).stdout == '{"a": ["\\u00e9", 1.5], "b": [1, null]}'
    for wrong in ("f = 3", "def g(): pass", "def f(a): return object()", "def f(a): return float('nan')"):
        assert sandbox.call(wrong, "f", [1]).status == "exit"


def test_every_program_starts_afresh(sandbox):
    assert (
        sandbox.run("import builtins, os\nbuiltins.len = 3\nopen('/tmp/left', 'w').write('x')").status == "ok"
    )
    assert sandbox.run("import os\nprint(os.listdir('/tmp'), len('ab'))").stdout == "['main.py'] 2\n"


def test_a_program_finds_no_trace_of_the_one_before(sandbox):
    sandbox.run("print(input())", "a needle of an input")
    search = """
import gc
backwards = "na fo eldeen"  # this program must not find itself
print(sum(backwards in repr(o)[:10000][::-1] for o in gc.get_objects() if isinstance(o, (dict, list))))
"""
    assert sandbox.run(search).stdout == "0\n"


def test_attacks_reach_nothing(sandbox, monkeypatch):
    """One round of a few of bench/sandbox.py's attacks, judged as it judges them."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    import sandbox as bench

    programs = [attack for attack in bench.attacks() if attack.name in CHEAP]
    assert len(programs) == len(CHEAP)
    successes = {"escapes": [], "left_over": [], "false_rewards": []}

    class Judge:
        def __init__(self):
            self.sandbox = sandbox

    with bench.outside() as decoys:
        for attack in programs:
            bench.try_once(attack, Judge(), decoys, successes)
        control = next(attack for attack in programs if attack.name == "read a file")
        assert bench.runs_free(control, decoys), "the attack does not work where nothing stops it"
    assert successes == {"escapes": [], "left_over": [], "false_rewards": []}


def test_threads_take_turns(sandbox):
    outcomes = {}

    def ask(number):
        outcomes[number] = sandbox.run("print(int(input()) ** 2)", str(number)).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {number: f"{number**2}\n" for number in range(6)}


def test_a_sandbox_that_was_killed_is_a_fault_and_then_replaced(sandbox):
    os.kill(sandbox.pid, signal.SIGKILL)
    while sandbox.run("print(1)").status == "fault":
        continue
    threading.Timer(0.2, os.kill, (sandbox.pid, signal.SIGKILL)).start()
    assert sandbox.run("import time; time.sleep(3)").status == "fault"
    assert sandbox.run("print(1)").stdout == "1\n"


def test_too_much_input_is_the_programs_failure(sandbox):
    assert sandbox.run("print(1)", "x" * (process.MAX_INPUT_CHARS + 1)).status == "exit"


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(process.sys, "platform", "darwin")
    with pytest.raises(MissingDependencyError, match="needs Linux, and this is darwin"):
        Sandbox()


def test_a_kernel_that_refuses_is_named(monkeypatch):
    code = "import os; os.write(1, b'\\0\\0\\0\\x1e' + b'{\"refused\": \"unshare: denied\"}')"
    monkeypatch.setattr(process, "CODE", code)
    with pytest.raises(MissingDependencyError, match=r"unshare: denied.*allow them") as caught:
        Sandbox()
    assert caught.value.exit_code == 4
