"""The start, and what an installation takes: seconds and megabytes that a person waits for.

    python bench/start.py [time] [size] [--rounds 5] [--beside FOLDER] [--extras serve,plots] [--json FILE]

time: from the shell to the first character of `shoestring run mini hello` (aim 1.5 s), of `--help`, and the
end of `import shoestring` (aim 0.05 s): wall time, and processor time of the whole command, which other
programs change less. With another checkout beside it, both are run alternately.
size: bytes on disk of each package that an installation with these extras brings, in this environment.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parents[1]
CLI = ("-m", "shoestring.cli.main")
COMMANDS = {
    "run mini hello": (*CLI, "run", "mini", "hello"),
    "--help": (*CLI, "--help"),
    "import shoestring": ("-c", "import shoestring; print(1)"),
}
AIMS_S = {"run mini hello": 1.5, "import shoestring": 0.05}


# --- time ---------------------------------------------------------------------------------------------------


def start(folder: Path, arguments: Iterable[str]) -> tuple[float, float]:
    """Seconds until a command's first character, and seconds of processor time until its end."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1), arguments
        first_s = time.perf_counter() - begin
        process.stdout.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return first_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_time(folders: list[Path], rounds: int) -> list[dict]:
    """A row for each command and checkout."""
    rows = []
    for name, arguments in COMMANDS.items():
        samples = [[start(folder, arguments) for folder in folders] for _ in range(rounds + 1)][1:]
        for i, folder in enumerate(folders):
            first_s, processor_s = zip(*(sample[i] for sample in samples), strict=True)
            row = {"command": name, "folder": str(folder), "first_s": round(statistics.median(first_s), 3)}
            row["least_s"] = round(min(first_s), 3)
            row["processor_s"] = round(statistics.median(processor_s), 3)
            rows.append(row)
            aim = f" (aim {AIMS_S[name]} s)" if name in AIMS_S else ""
            print(
                f"{name:18} {row['first_s']:6.2f} s to the first character{aim}, least {row['least_s']:.2f}; "
                f"{row['processor_s']:.2f} s of processor time  {folder}"
            )
    return rows


# --- size ---------------------------------------------------------------------------------------------------


def needed(name: str, extras: Iterable[str], found: dict[str, Distribution]) -> None:
    """Add a package and all that it needs here to `found`."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return
    found[canonicalize_name(name)] = package
    for requirement in map(Requirement, package.requires or ()):
        marker = requirement.marker
        is_wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if is_wanted and canonicalize_name(requirement.name) not in found:
            needed(requirement.name, requirement.extras, found)


def size(package: Distribution) -> int:
    """Bytes of a package's files on disk."""
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def measure_size(extras: list[str]) -> list[dict]:
    """A row for each package, the largest first."""
    found: dict[str, Distribution] = {}
    needed("shoestring-llm", extras, found)
    rows = [{"package": name, "mb": round(size(package) / 1e6, 1)} for name, package in found.items()]
    files = (path for path in (HERE / "shoestring").rglob("*") if path.is_file() and path.suffix != ".pyc")
    own = sum(path.stat().st_size for path in files)  # its installation may be a link to a checkout
    rows = [row | {"mb": round(own / 1e6, 1)} if row["package"] == "shoestring-llm" else row for row in rows]
    rows.sort(key=lambda row: -row["mb"])
    print("\n".join(f"| {row['package']} | {row['mb']:.1f} |" for row in rows))
    print(f"| all {len(rows)} | {sum(row['mb'] for row in rows):.1f} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="time, size; both if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="another checkout, run alternately")
    parser.add_argument("--extras", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts = options.parts or ["time", "size"]
    result: dict[str, list[dict]] = {}
    if "time" in parts:
        folders = [HERE, *([options.beside.resolve()] if options.beside else [])]
        result["time"] = measure_time(folders, options.rounds)
    if "size" in parts:
        result["size"] = measure_size([name for name in options.extras.split(",") if name])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
