"""Print the figures of the code: sizes, import loops, training loops, English, reads of config.json.

    python tools/house.py [CHECKOUT ...] [--json]

One column for each checkout, this one unless others are named: an older commit beside the present one.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import english
import imports
import walks

ROOT = Path(__file__).resolve().parent.parent
Figure = int | float | str
COUNT_READS = """
import os, sys, torch
from pathlib import Path
from shoestring.device import Runtime
from shoestring.engine.load import load_engine
try:
    from shoestring.model.hf.checkpoint import Checkpoint
    opened = Checkpoint.open
except ImportError:  # an older checkout: load_engine takes the folder
    opened = Path

reads = []
is_read = lambda event, path, *_: event == "open" and str(path).endswith(os.sep + "config.json")
sys.addaudithook(lambda event, arguments: arguments and is_read(event, *arguments) and reads.append(1))
load_engine(opened(sys.argv[1]), Runtime(device=torch.device("cpu"), compute_dtype=torch.float32))
print(len(reads))
"""
"""Run in a process of its own, with the package of any checkout since load_engine exists."""


def source_figures(root: Path) -> dict[str, Figure]:
    """The figures that reading the source of a checkout's package gives."""
    texts = {path: path.read_text(encoding="utf-8") for path in (root / "shoestring").rglob("*.py")}
    trees = {path.relative_to(root): ast.parse(text) for path, text in texts.items()}
    files = sorted(len(text.splitlines()) for text in texts.values())
    functions = sorted(lines for tree in trees.values() for lines in function_lines(tree))
    folder, most_files = Counter(path.parent for path in trees).most_common(1)[0]
    names = [name for tree in trees.values() for name in english.bindings(tree)]
    openings = [english.first_word(text) for tree in trees.values() for _, text in english.docstrings(tree)]
    return {
        "files": len(files),
        "lines": sum(files),
        "lines of a file: median, p90, longest": spread(files),
        "lines of a function: median, p90, longest": spread(functions),
        "files in the largest folder": f"{most_files} ({folder})",
        "loops of imports": len(imports.import_loops(imports.import_graph(trees))),
        "training loops": sum(training_loops(tree) for tree in trees.values()),
        'docstrings that begin with "What"': openings.count("What"),
        "docstrings that begin with a question word": sum(w in english.QUESTION_WORDS for w in openings),
        "participles per 1,000 names": round(1000 * sum(map(english.is_participle, names)) / len(names), 1),
    }


def function_lines(tree: ast.Module) -> list[int]:
    """Lines of every function and method."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]


def training_loops(tree: ast.Module) -> int:
    """Functions that write a run's metrics and watch for Ctrl-C themselves."""
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            calls = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
            count += {"MetricsLog", "StopRequest"} <= calls
    return count


def spread(values: list[int]) -> str:
    """Median, 90th percentile and largest of sorted values."""
    return f"{values[len(values) // 2]}, {values[len(values) * 9 // 10]}, {values[-1]}"


def config_reads(root: Path) -> int:
    """Times config.json is read when a checkout's engine opens a plain checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        model = walks.make_model(Path(name))
        command = [sys.executable, "-c", COUNT_READS, str(model)]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        process = subprocess.run(command, cwd=name, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{root} does not load a checkpoint:\n{process.stderr}")
    return int(process.stdout.split()[-1])


def main(arguments: list[str]) -> int:
    """Print the figures of each checkout; returns the exit status."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args(arguments)
    columns = {
        str(root): source_figures(root) | {"reads of config.json for a checkpoint": config_reads(root)}
        for root in (path.resolve() for path in options.checkouts)
    }
    if options.json:
        print(json.dumps(columns, indent=1))
        return 0
    for name in next(iter(columns.values())):
        print("|", " | ".join([name, *(str(column[name]) for column in columns.values())]), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
