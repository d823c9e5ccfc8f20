"""The folder of training runs: names and files in it, and nothing outside, whatever a run's folder holds."""

import json
import math
import os
import stat
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from shoestring.serve.backends.errors import RequestError

MAX_RUNS = 500
MAX_FILE_BYTES = 4 << 20
"""Of a file that is read as a whole."""
SIGNS = ("config.toml", "metrics.jsonl")
"""Files by which a folder is a run."""


class RunsFolder:
    """A folder whose folders are runs. Symbolic links in it are not followed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The names of the runs, the one that changed last first."""
        runs = []
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                    if is_folder and (time_ns := last_change_ns(Path(entry.path))):
                        runs.append((time_ns, entry.name))
        except OSError:
            return []
        return [name for _, name in sorted(runs, reverse=True)[:MAX_RUNS]]

    def run(self, name: str) -> Path:
        """The folder of a run. Raises RequestError when there is none."""
        if name not in self.names():
            raise RequestError("not_found", f"there is no run {name[:100]!r} here")
        return self.root / name


def last_change_ns(folder: Path) -> int:
    """The time of a run's last change, in nanoseconds; 0 where there is no run."""
    return max(_change_ns(folder / sign) for sign in SIGNS)


def _change_ns(path: Path) -> int:
    """The time of a file's last change; 0 without one."""
    try:
        state = path.lstat()
    except OSError:
        return 0
    return state.st_mtime_ns if stat.S_ISREG(state.st_mode) else 0


def open_inside(folder: Path, *parts: str) -> BinaryIO | None:
    """Open a plain file below a folder, for reading; None when there is none without a symbolic link."""
    place = folder
    for part in parts[:-1]:
        place = place / part
        if part in ("", ".", "..") or "/" in part or place.is_symlink() or not place.is_dir():
            return None
    try:
        handle = os.open(place / parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return open(handle, "rb")


def has_file(folder: Path, *parts: str) -> bool:
    """Return whether there is such a plain file below a folder."""
    file = open_inside(folder, *parts)
    if file is None:
        return False
    file.close()
    return True


def read_json(folder: Path, *parts: str) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file, or it holds something else."""
    return _object(_content(folder, *parts), json.loads)


def read_toml(folder: Path, *parts: str) -> Mapping[str, Any]:
    """The table in a TOML file; empty when there is no such file, or it holds something else."""
    return _table(_content(folder, *parts))


@lru_cache(maxsize=128)
def _table(text: str) -> Mapping[str, Any]:
    """The table of a text: a recipe is looked at each second and changes never."""
    return _object(text, tomllib.loads)


def last_line(folder: Path, *parts: str) -> str:
    """The last line of a text file that is not empty; empty without one."""
    file = open_inside(folder, *parts)
    if file is None:
        return ""
    with file:
        file.seek(max(os.fstat(file.fileno()).st_size - 4000, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _content(folder: Path, *parts: str) -> str:
    file = open_inside(folder, *parts)
    if file is None:
        return ""
    with file:
        content = file.read(MAX_FILE_BYTES + 1)
    return "" if len(content) > MAX_FILE_BYTES else content.decode(errors="replace")


def _object(text: str, parse: Any) -> dict[str, Any]:
    try:
        value = parse(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None
