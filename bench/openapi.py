"""Schemathesis against `shoestring serve`: is the OpenAPI document true, and does no request make a 500?

    python bench/openapi.py --schemathesis .../bin/schemathesis [--cases 20000] [--seed 1] [--json FILE]

Schemathesis has an environment of its own (pip install schemathesis==4.32.5). It runs with all checks and
rising seeds, which are printed, until as many cases were sent as asked for. The exit code is 3 when a reply
was a 500, or undeclared in its status, type or schema, or when a check failed that is not in EXPECTED.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
MAX_EXAMPLES = 40
"""Random requests of a seed for each operation, beside the systematic ones of the coverage phase."""
EXPECTED = ("RejectedPositiveData", "AcceptedNegativeData")
"""Requests that the schemas allow and the service refuses, and the reverse: rules that no schema can say."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemathesis", required=True)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "shoestring.cli.main", "serve", "mini", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        root = server.stdout.readline().split()[-1]
        result = measure(arguments.schemathesis, root, arguments.cases, arguments.seed)
        result["server lives"] = server.poll() is None
        server.terminate()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    unexpected = [name for name in result["failures"] if name not in EXPECTED]
    return 3 if unexpected or not result["server lives"] else 0


def measure(schemathesis: str, root: str, cases: int, seed: int) -> dict:
    """Run until there were as many cases; their number and the failures by kind, with an operation each."""
    total, failures, operations = 0, Counter(), {}
    first = seed
    while total < cases:
        report = run(schemathesis, root, seed)
        total += report["test_cases"]["generated"]
        for failure in report["failures"]:
            failures[failure["type"]] += failure["count"]
            operations.setdefault(failure["type"], set()).update(failure["operations"])
        print(f"seed {seed}: {total} cases, {dict(failures)}", flush=True)
        seed += 1
    places = {name: sorted(places) for name, places in operations.items()}
    return {"cases": total, "seeds": [first, seed - 1], "failures": dict(failures), "operations": places}


def run(schemathesis: str, root: str, seed: int) -> dict:
    """The report of one run; its text goes to standard error when a check failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [schemathesis, "run", f"{root}/openapi.json", "--checks", "all", "--no-color"]
        command += [
            "--max-examples",
            str(MAX_EXAMPLES),
            "--seed",
            str(seed),
            "--report-json-path",
            str(report),
        ]
        command += ["--request-timeout", "120", "--continue-on-failure"]
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
        return json.loads(report.read_text())


if __name__ == "__main__":
    sys.exit(main())
