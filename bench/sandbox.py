"""Attack the sandbox: escapes, exhaustion and unearned rewards, round after round; time an ordinary program.

    python bench/sandbox.py [--rounds 20] [--only WORDS] [--json FILE]

Counts escapes (what was reached or left outside), processes that outlive their program, rewards of programs
that do not solve their problem, rewards for impossible problems, and right programs that were refused. All
must be 0, and an ordinary program must take at most 100 ms (median); exit code 3 says that something was not.
As a control the harmless escapes run without the sandbox and a careless grader judges the same programs: both
must be beaten, or the suite would prove nothing.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from sandbox_attacks import Attack, attacks

from shoestring.sandbox.process import Limits, Sandbox
from shoestring.tasks.code import Code
from shoestring.tasks.task import Example

LIMIT_MS = 100.0
WALL_S = {"escape": 10.0, "resource": 0.6}
SLACK_S = 5.0
"""How much later than its deadline a program may be gone, on a machine that does other things too."""
NUMBERS = ([1, 2, 3], [4, 5], [6, 7, 8, 9], [100, -1], [12], [3, 3, 3])
ORDINARY = (
    "import sys\nfrom collections import Counter\nprint(sum(Counter(sys.stdin.read().split()).values()))"
)
SOLUTION = "print(sum(map(int, input().split())))"
HONEYPOTS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="attacks whose name has these words in it")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chosen = [attack for attack in attacks() if arguments.only in attack.name]
    result = measure(chosen, arguments.rounds)
    for name, value in result.items():
        print(f"{name:<32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


def measure(chosen: list[Attack], rounds: int) -> dict:
    """Every figure, and whether all are what they must be."""
    start = time.monotonic()
    code = Code(limit_s=1.5)
    beaten: dict[str, list[str]] = {"escapes": [], "left_over": [], "false_rewards": []}
    median_ms, p95_ms = ordinary(code.sandbox, max(rounds * 5, 20))
    with outside() as decoys:
        for number in range(rounds):
            for attack in chosen:
                try_once(attack, code, decoys, beaten)
            print(f"round {number + 1} of {rounds}: {sum(map(len, beaten.values()))}", file=sys.stderr)
        control = [attack.name for attack in chosen if attack.harmless and runs_free(attack, decoys)]
    counts = {name: len(found) for name, found in beaten.items()}
    paid = honeypots(code.sandbox)
    careless = [a.name for a in chosen if a.kind == "reward" and not a.function and careless_reward(a, code)]
    refused = int(code.reward(problem(None), block(SOLUTION)) != 1.0)
    refused += int(code.reward(problem("add"), block("def add(a, b):\n    return a + b")) != 1.0)
    is_control_good = len(control) == sum(attack.harmless for attack in chosen) and bool(
        careless or not rounds
    )
    is_good = not any(counts.values()) and not paid and not refused and median_ms <= LIMIT_MS
    code.sandbox.close()
    return {
        "attacks": {kind: sum(a.kind == kind for a in chosen) for kind in ("escape", "resource", "reward")},
        "rounds": rounds,
        **counts,
        "beaten_by": {name: sorted(set(found)) for name, found in beaten.items() if found},
        "honeypots_paid": paid,
        "right_programs_refused": refused,
        "control_without_sandbox": f"{len(control)} of {sum(a.harmless for a in chosen)} escape",
        "control_careless_grader": f"{len(careless)} programs paid",
        "ordinary_median_ms": round(median_ms, 1),
        "ordinary_p95_ms": round(p95_ms, 1),
        "layers": ", ".join(code.sandbox.layers),
        "kernel": f"{platform.release()}, user {os.getuid()}, {os.cpu_count()} cores",
        "seconds": round(time.monotonic() - start, 1),
        "verdict": "PASS" if is_good and is_control_good else "FAIL",
    }


def try_once(attack: Attack, code: Code, decoys: dict, beaten: dict[str, list[str]]) -> None:
    """Run one attack and note what it achieved."""
    if attack.kind == "reward":
        if code.reward(problem(attack.function), block(attack.program)) != 0.0:
            beaten["false_rewards"].append(attack.name)
    else:
        begin = time.monotonic()
        limits = Limits(wall_s=WALL_S[attack.kind])
        outcome = code.sandbox.run(attack.program, json.dumps(decoys), limits=limits)
        is_late = time.monotonic() - begin > limits.wall_s + SLACK_S
        if "ESCAPED" in outcome.stdout or outcome.status == "fault" or is_late or was_touched(decoys):
            beaten["escapes"].append(attack.name)
    if not is_empty(code.sandbox.pid):
        beaten["left_over"].append(attack.name)


def problem(function: str | None) -> Example:
    """Add numbers: what every attack on the reward is judged by."""
    if function:
        cases = [
            {"arguments": [a, b], "result": a + b} for a, b in ((1, 5), (2, 2), (7, -7), (1, 0), (50, 51))
        ]
    else:
        cases = [{"stdin": " ".join(map(str, n)) + "\n", "stdout": f"{sum(n)}\n"} for n in NUMBERS]
    answer = {"cases": cases, "visible": 2, "function": function}
    return Example(key="sum", question="Print the sum of the integers read.", answer=answer)


def block(program: str) -> str:
    return f"<think>hm</think>\n```python\n{program}\n```\n"


def ordinary(sandbox: Sandbox, count: int) -> tuple[float, float]:
    """Median and 95th percentile of milliseconds from the call to the outcome."""
    times = []
    for number in range(count):
        begin = time.perf_counter()
        outcome = sandbox.run(ORDINARY, "a b c\n" * number)
        times.append((time.perf_counter() - begin) * 1000)
        assert outcome.stdout == f"{3 * number}\n", outcome
    return statistics.median(times), sorted(times)[int(len(times) * 0.95)]


def honeypots(sandbox: Sandbox) -> int:
    """Impossible problems that were rewarded, for answers that are right where that is possible."""
    task = Code(honeypots=True)
    paid = 0
    for example in islice(task.examples("test", 0), HONEYPOTS):
        cases = {case["stdin"]: case["stdout"] for case in reversed(example.answer["cases"])}
        by_heart = f"import sys\nsys.stdout.write({cases!r}[sys.stdin.read()])"
        for program in (by_heart, "import sys; sys.exit(0)", "pass"):
            paid += task.reward(example, block(program)) != 0.0
    task.sandbox.close()
    return paid


def careless_reward(attack: Attack, code: Code) -> bool:
    """What a grader pays that compares the lines there are and ignores how the program ended."""
    for case in problem(None).answer["cases"]:
        outcome = code.sandbox.run(attack.program, case["stdin"], limits=Limits(wall_s=1.0))
        lines = zip(outcome.stdout.splitlines(), case["stdout"].splitlines(), strict=False)
        if not all(ours == theirs for ours, theirs in lines):
            return False
    return True


def runs_free(attack: Attack, decoys: dict) -> bool:
    """Whether a harmless attack succeeds as an ordinary process."""
    environment = {**os.environ, "SHOESTRING_SECRET": "decoy"}
    command = [sys.executable, "-I", "-c", attack.program]
    done = subprocess.run(
        command, input=json.dumps(decoys), capture_output=True, text=True, timeout=20, env=environment
    )
    return "ESCAPED" in done.stdout or was_touched(decoys)


def was_touched(decoys: dict) -> bool:
    """Whether something was written outside; it is put back."""
    written = Path(decoys["folder"], "written")
    is_touched = written.exists()
    written.unlink(missing_ok=True)
    return is_touched


def is_empty(pid: int) -> bool:
    """Whether the sandbox has no process but its own, now or within a second."""
    for _ in range(200):
        if not Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return True
        time.sleep(0.005)
    return False


@contextmanager
def outside() -> Iterator[dict]:
    """Decoys: a file, folders, two listening sockets and this process."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        (folder / "secret").write_text("decoy")
        (folder / "home").mkdir()
        network = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        service = stack.enter_context(socket.socket(socket.AF_UNIX))
        service.bind(f"\0shoestring-bench-{os.getpid()}")
        service.listen(100)
        yield {
            "secret": str(folder / "secret"),
            "folder": str(folder),
            "home": str(folder / "home"),
            "port": network.getsockname()[1],
            "service": service.getsockname().decode(),
            "pid": os.getpid(),
        }


if __name__ == "__main__":
    sys.exit(main())
