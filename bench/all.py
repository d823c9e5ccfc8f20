"""The speed table of this machine: every row beside its competitor in the same run, with median and spread.

    python bench/all.py [--minutes 20] [--rounds 3] [--only engine,training] [--json FILE] [--write]
                        [--folder DIR] [--llama-python PATH] [--trl-python PATH]

Runs the other benches one after another, `rounds` times, as long as the time lasts: a bench is not started
again when its last round was longer than what is left. The engine's bench needs llama-cpp-python, that of
reinforcement TRL; their interpreters are given, and a bench without one is left out and named. A figure is
the median of the rounds, with the least and the largest. What is slower than bench/record.json has for this
kind of machine, by more than both spreads, is named. --write puts the figures into that file and the table
of docs/results.md. Exit code 3 when a goal is missed or something got slower.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent
RECORD = BENCH / "record.json"
RESULTS = BENCH.parent / "docs" / "results.md"
BEGIN, END = "<!-- speed by machine -->\n", "<!-- end of speed by machine -->\n"


@dataclass(frozen=True)
class Figure:
    """One round of one row: our rate and the competitor's, in the same unit."""

    name: str
    rival: str
    ours: float
    theirs: float
    goal: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True)
class Bench:
    """A script with its options; `read` makes figures of the JSON that it writes."""

    script: str
    options: tuple[str, ...]
    read: Callable[[list[dict]], list[Figure]]
    needs: str | None = None
    """The option of this script that names an interpreter with the competitor."""


def read_engine(rows):
    table = {(row["engine"], row["weights"]): row for row in rows}
    pairs = {"4 bits": ("int4", "q4_0"), "int8": ("int8", "q8_0")}
    best = max(table["llama.cpp", kind]["prompt_tokens_per_s"] for kind in ("q4_0", "q8_0"))
    ours = table["ours", "int4"]["prompt_tokens_per_s"]
    figures = [Figure("prompt of 512, 4 bits", "llama.cpp's better", ours, best, goal=prompt_goal())]
    for key, label, goal in (
        ("stream1_tokens_per_s", "one stream", 1.5),
        ("stream16_tokens_per_s", "16 streams", 2.5),
    ):
        for bits, (mine, other) in pairs.items():
            rates = table["ours", mine][key], table["llama.cpp", other][key]
            figures.append(Figure(f"{label}, {bits}", f"llama.cpp {other.upper()}", *rates, goal))
    return figures


def read_training(rows):
    figures = []
    for shape, name, goal in (("v3", "V3 shape", 2.2), ("dense", "dense", 1.5)):
        rates = {row["engine"]: row["tokens_per_s"] for row in rows if row["shape"] == shape}
        theirs = max(rate for engine, rate in rates.items() if "transformers" in engine)
        figures.append(Figure(f"training, {name}", "transformers", rates["shoestring"], theirs, goal))
    return figures


def read_reinforcement(rows):
    ours, *theirs = (row["samples_per_s"] for row in rows)
    return [Figure("a reinforcement step", "TRL's best way", ours, max(theirs), goal=6.0)]


BENCHES = {
    "engine": Bench(
        "engine.py", ("--rounds", "1", "--only", "llama.cpp,ours"), read_engine, needs="llama_python"
    ),
    "training": Bench("train_speed.py", ("--rounds", "1", "--steps", "3"), read_training),
    "reinforcement": Bench("rl_speed.py", ("--steps", "1"), read_reinforcement, needs="trl_python"),
}


def cpu_flags():
    """Names of this CPU's instruction sets."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


def prompt_goal():
    return 4.0 if "avx512_vnni" in cpu_flags() else 3.0


def machine():
    """The kind of this machine: cores, maker, and what decides the speed of products."""
    text, flags = Path("/proc/cpuinfo").read_text(), cpu_flags()
    maker = "Intel" if "GenuineIntel" in text else "AMD" if "AuthenticAMD" in text else "ARM"
    vectors = [
        name
        for flag, name in (("avx2", "AVX2"), ("avx512_vnni", "AVX-512 VNNI"), ("amx_int8", "AMX"))
        if flag in flags
    ]
    return f"{os.cpu_count()} cores of {maker}, {' and '.join(vectors[-2:]) or 'no AVX2'}"


def command_of(name, bench, arguments):
    """The bench's command, without --json; None when its competitor is not there."""
    python = sys.executable
    options = list(bench.options)
    if bench.needs:
        given = getattr(arguments, bench.needs)
        if given is None:
            return None
        if name == "engine":
            python, options = given, [*options, "--folder", str(arguments.folder)]
        else:
            options += ["--trl-python", given]
    return [python, str(BENCH / bench.script), *options]


def run_once(command, read):
    """The figures of one round. Raises SystemExit when the bench failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        process = subprocess.run(
            [*command, "--json", str(path)],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(BENCH.parent)},
            check=False,
        )
        if process.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        return read(json.loads(path.read_text()))


def measure(arguments):
    """Rounds of every bench, as long as the time lasts: figures by name of row."""
    end, rounds, took = time.monotonic() + 60 * arguments.minutes, {}, {}
    for number in range(1, arguments.rounds + 1):
        for name in arguments.only.split(","):
            bench = BENCHES[name]
            command = command_of(name, bench, arguments)
            if command is None:
                if number == 1:
                    print(f"left out: {name}, give --{bench.needs.replace('_', '-')}", flush=True)
                continue
            if time.monotonic() + took.get(name, 0) > end:
                print(f"left out: round {number} of {name}, no time left", flush=True)
                continue
            begin = time.monotonic()
            for figure in run_once(command, bench.read):
                rounds.setdefault(figure.name, []).append(figure)
                print(f"  {figure.name}: {figure.ratio:.2f}x {figure.rival}", flush=True)
            took[name] = time.monotonic() - begin
            print(f"round {number} of {name}: {took[name]:.0f} s", flush=True)
    return rounds


def summary(rounds):
    """One row for each name: medians, and the least and the largest ratio."""
    return [
        {
            "name": name,
            "rival": figures[0].rival,
            "ours": statistics.median(f.ours for f in figures),
            "theirs": statistics.median(f.theirs for f in figures),
            "ratio": statistics.median(f.ratio for f in figures),
            "least": min(f.ratio for f in figures),
            "largest": max(f.ratio for f in figures),
            "rounds": len(figures),
            "goal": figures[0].goal,
        }
        for name, figures in rounds.items()
    ]


def slower(now, before):
    """Rows that lost more than both spreads: their names, with the ratios before and now."""
    old = {row["name"]: row for row in before}
    lost = []
    for row in now:
        last = old.get(row["name"])
        if last is None:
            continue
        noise = (row["largest"] - row["least"] + last["largest"] - last["least"]) / 2
        if row["ratio"] < last["ratio"] - noise:
            lost.append(f"{row['name']}: {last['ratio']:.2f}x before, {row['ratio']:.2f}x now")
    return lost


def line(row):
    spread = f" ({row['least']:.2f} to {row['largest']:.2f})" if row["rounds"] > 1 else ""
    verdict = "met" if row["ratio"] >= row["goal"] else "MISSED"
    rates = f"{row['ours']:,.1f} and {row['theirs']:,.1f} of {row['rival']}"
    return f"{row['name']}: {rates}, {row['ratio']:.2f}x{spread}, goal {row['goal']:g}x: {verdict}"


def table(record):
    """Markdown: a row for each figure, a column for each kind of machine."""
    kinds = list(record)
    names = list(dict.fromkeys(row["name"] for rows in record.values() for row in rows))
    lines = [f"| | {' | '.join(kinds)} |", f"|{' --- |' * (len(kinds) + 1)}"]
    for name in names:
        cells = []
        for kind in kinds:
            row = next((row for row in record[kind] if row["name"] == name), None)
            cells.append("" if row is None else cell(row))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(row):
    spread = f", {row['least']:.2f} to {row['largest']:.2f}" if row["rounds"] > 1 else ""
    rates = f"{row['ours']:,.4g} and {row['theirs']:,.4g} of {row['rival']}"
    return f"{rates}: **{row['ratio']:.2f}x**{spread} (goal {row['goal']:g}x)"


def write(record):
    """Write the record, and its table between the markers of docs/results.md."""
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    text = RESULTS.read_text()
    head, rest = text.split(BEGIN, 1)
    RESULTS.write_text(head + BEGIN + "\n" + table(record) + "\n" + END + rest.split(END, 1)[1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(BENCHES))
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-engine"))
    parser.add_argument("--llama-python", help="Python interpreter that has llama-cpp-python")
    parser.add_argument("--trl-python", help="Python interpreter that has trl")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the figures as this machine's record")
    arguments = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    kind = machine()
    print(kind, flush=True)
    rows = summary(measure(arguments))
    lost = slower(rows, record.get(kind, []))
    for row in rows:
        print(line(row))
    for text in lost:
        print("SLOWER:", text)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"machine": kind, "rows": rows, "slower": lost}, indent=2) + "\n"
        )
    if arguments.write:
        kept = [row for row in record.get(kind, []) if row["name"] not in {r["name"] for r in rows}]
        write(record | {kind: [*kept, *rows]})
    return 3 if lost or any(row["ratio"] < row["goal"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
