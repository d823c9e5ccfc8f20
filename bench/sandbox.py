"""Attacks on the sandbox: escapes, exhaustion of resources, false rewards; time of an ordinary program.

    python bench/sandbox.py [--rounds 20] [--only WORDS] [--json FILE]

Counts escapes (something outside was reached or changed), processes that outlive their program, rewards for
programs that do not solve their problem, rewards for impossible problems, and right programs without a
reward. All must be 0, and an ordinary program must take at most 100 ms (median); otherwise the exit code is
3. As a control, the harmless escapes run without the sandbox and a careless grader judges the same programs:
there the attacks must succeed, otherwise they would prove nothing.
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
"""Time after its deadline at which a program must have ended, on a machine that does other things too."""
NUMBERS = ([1, 2, 3], [4, 5], [6, 7, 8, 9], [100, -1], [12], [3, 3, 3])
ORDINARY = (
    "import sys\nfrom collections import Counter\nprint(sum(Counter(sys.stdin.read().split()).values()))"
)
SOLUTION = "print(sum(map(int, input().split())))"
HONEYPOTS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="only attacks whose name contains this text")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    programs = [attack for attack in attacks() if arguments.only in attack.name]
    result = measure(programs, arguments.rounds)
    for name, value in result.items():
        print(f"{name:<32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


def measure(programs: list[Attack], rounds: int) -> dict:
    """Run all attacks in rounds: the figures, and the verdict."""
    start = time.monotonic()
    code = Code(limit_s=1.5)
    successes: dict[str, list[str]] = {"escapes": [], "left_over": [], "false_rewards": []}
    median_ms, p95_ms = ordinary(code.sandbox, max(rounds * 5, 20))
    with outside() as decoys:
        for number in range(rounds):
            for attack in programs:
                try_once(attack, code, decoys, successes)
            print(f"round {number + 1} of {rounds}: {sum(map(len, successes.values()))}", file=sys.stderr)
        control = [attack.name for attack in programs if attack.harmless and runs_free(attack, decoys)]
    counts = {name: len(names) for name, names in successes.items()}
    num_rewarded = honeypots(code.sandbox)
    careless = [
        a.name for a in programs if a.kind == "reward" and not a.function and careless_reward(a, code)
    ]
    num_refused = int(code.reward(problem(None), block(SOLUTION)) != 1.0)
    num_refused += int(code.reward(problem("add"), block("def add(a, b):\n    return a + b")) != 1.0)
    is_control_good = len(control) == sum(attack.harmless for attack in programs) and bool(
        careless or not rounds
    )
    is_good = not any(counts.values()) and not num_rewarded and not num_refused and median_ms <= LIMIT_MS
    code.sandbox.close()
    return {
        "attacks": {kind: sum(a.kind == kind for a in programs) for kind in ("escape", "resource", "reward")},
        "rounds": rounds,
        **counts,
        "successful_attacks": {name: sorted(set(names)) for name, names in successes.items() if names},
        "impossible_problems_rewarded": num_rewarded,
        "right_programs_refused": num_refused,
        "control_without_sandbox": f"{len(control)} of {sum(a.harmless for a in programs)} escape",
        "control_careless_grader": f"{len(careless)} programs rewarded",
        "ordinary_median_ms": round(median_ms, 1),
        "ordinary_p95_ms": round(p95_ms, 1),
        "layers": ", ".join(code.sandbox.layers),
        "kernel": f"{platform.release()}, user {os.getuid()}, {os.cpu_count()} cores",
        "seconds": round(time.monotonic() - start, 1),
        "verdict": "PASS" if is_good and is_control_good else "FAIL",
    }


def try_once(attack: Attack, code: Code, decoys: dict, successes: dict[str, list[str]]) -> None:
    """Run one attack and add its name to `successes` if it succeeds."""
    if attack.kind == "reward":
        if code.reward(problem(attack.function), block(attack.program)) != 0.0:
            successes["false_rewards"].append(attack.name)
    else:
        begin = time.monotonic()
        limits = Limits(wall_s=WALL_S[attack.kind])
        outcome = code.sandbox.run(attack.program, json.dumps(decoys), limits=limits)
        is_late = time.monotonic() - begin > limits.wall_s + SLACK_S
        if "ESCAPED" in outcome.stdout or outcome.status == "fault" or is_late or was_touched(decoys):
            successes["escapes"].append(attack.name)
    if not is_empty(code.sandbox.pid):
        successes["left_over"].append(attack.name)


def problem(function: str | None) -> Example:
    """Problem of adding numbers, with which attacks on the reward are judged."""
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
    """Milliseconds from call to outcome of an ordinary program: median and 95th percentile."""
    times = []
    for number in range(count):
        begin = time.perf_counter()
        outcome = sandbox.run(ORDINARY, "a b c\n" * number)
        times.append((time.perf_counter() - begin) * 1000)
        assert outcome.stdout == f"{3 * number}\n", outcome
    return statistics.median(times), sorted(times)[int(len(times) * 0.95)]


def honeypots(sandbox: Sandbox) -> int:
    """Number of rewards for impossible problems, for programs that know the results of all cases."""
    task = Code(honeypots=True)
    num_rewarded = 0
    for example in islice(task.examples("test", 0), HONEYPOTS):
        cases = {case["stdin"]: case["stdout"] for case in reversed(example.answer["cases"])}
        lookup = f"import sys\nsys.stdout.write({cases!r}[sys.stdin.read()])"
        for program in (lookup, "import sys; sys.exit(0)", "pass"):
            num_rewarded += task.reward(example, block(program)) != 0.0
    task.sandbox.close()
    return num_rewarded


def careless_reward(attack: Attack, code: Code) -> bool:
    """Reward of a careless grader, which ignores missing lines and how the program ended."""
    for case in problem(None).answer["cases"]:
        outcome = code.sandbox.run(attack.program, case["stdin"], limits=Limits(wall_s=1.0))
        lines = zip(outcome.stdout.splitlines(), case["stdout"].splitlines(), strict=False)
        if not all(ours == theirs for ours, theirs in lines):
            return False
    return True


def runs_free(attack: Attack, decoys: dict) -> bool:
    """Return whether a harmless attack succeeds in an ordinary process."""
    environment = {**os.environ, "SHOESTRING_SECRET": "decoy"}
    command = [sys.executable, "-I", "-c", attack.program]
    process = subprocess.run(
        command, input=json.dumps(decoys), capture_output=True, text=True, timeout=20, env=environment
    )
    return "ESCAPED" in process.stdout or was_touched(decoys)


def was_touched(decoys: dict) -> bool:
    """Return whether a file was written outside; it is removed."""
    file = Path(decoys["folder"], "written")
    is_touched = file.exists()
    file.unlink(missing_ok=True)
    return is_touched


def is_empty(pid: int) -> bool:
    """Return whether all programs of the sandbox have ended, now or within a second."""
    for _ in range(200):
        if not Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return True
        time.sleep(0.005)
    return False


@contextmanager
def outside() -> Iterator[dict]:
    """Decoys outside the sandbox: a file, folders, two listening sockets and this process."""
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
