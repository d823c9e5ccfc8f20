"""Files below a folder or of a pattern, in order, without hidden ones; links cannot make a loop."""

import os
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from shoestring.errors import DataError

NOT_DATA_FOLDERS = frozenset({"__pycache__", "node_modules"})
MARKS = "*?["
"""Characters of a pattern."""


def files_below(
    folder: Path,
    matches: Callable[[str], bool],
    *,
    skip: Collection[str] = NOT_DATA_FOLDERS,
    depth: int | None = None,
) -> list[Path]:
    """Regular files below `folder` whose name `matches`, sorted; at most `depth` folders deep.

    Raises DataError for a folder that cannot be listed.
    """
    return sorted(_walk(folder, matches, skip, depth), key=lambda path: path.relative_to(folder).as_posix())


def is_pattern(source: str) -> bool:
    """Return whether a source is a pattern such as `talks/*.jsonl`."""
    return any(mark in source for mark in MARKS)


def files_of_pattern(pattern: Path, matches: Callable[[str], bool]) -> tuple[Path, list[Path]]:
    """The folder in which a pattern begins, and the files that match it; `**` is any number of folders.

    Raises DataError where that folder does not exist.
    """
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if is_pattern(part))
    root, rest = Path(*parts[:first]), parts[first:]
    if not root.is_dir():
        raise DataError(f"{pattern}: there is no folder {root}")
    depth = None if "**" in rest else len(rest)
    files = files_below(root, matches, depth=depth)
    return root, [file for file in files if _fits(file.relative_to(root).parts, rest)]


def _walk(
    folder: Path, matches: Callable[[str], bool], skip: Collection[str], depth: int | None
) -> Iterator[Path]:
    folder_ids: set[tuple[int, int]] = set()
    queue = [(folder, 1)]
    while queue:
        here, level = queue.pop()
        try:
            status = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot list the folder {here}: {error.strerror}") from None
        if (status.st_dev, status.st_ino) in folder_ids:
            continue
        folder_ids.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name not in skip and (depth is None or level < depth):
                    queue.append((Path(entry.path), level + 1))
            elif entry.is_file() and matches(entry.name):  # not a pipe, not a device
                yield Path(entry.path)


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
