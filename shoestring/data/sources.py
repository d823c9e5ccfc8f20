"""Files of a source with their licenses: a folder, a file, a glob, a hub dataset or `stdlib`."""

import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from shoestring.errors import DataError, MissingDependencyError

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")
"""File types that can be read, each also with `.gz`."""

HUB_SUFFIXES = (".txt", ".jsonl", ".parquet")
NOT_TEXT_FOLDERS = {"__pycache__", "node_modules"}
# Without tests, which would triple the text (19.4 of 31.5 MB in CPython 3.11), have wrong encodings on
# purpose, and are missing in some distributions. The rest of 3.11 is about 12 MB in 730 files.
NOT_STDLIB_FOLDERS = NOT_TEXT_FOLDERS | {"site-packages", "dist-packages", "test", "tests", "idle_test"}
LICENSE_FILE = re.compile(r"(licen[sc]e|copying|unlicense)([-._].*)?", re.IGNORECASE)
LICENSE_PHRASES = (  # a license has the first id of which all phrases occur
    ("Apache-2.0", ("Apache License", "Version 2.0")),
    ("AGPL-3.0", ("GNU AFFERO GENERAL PUBLIC LICENSE",)),
    ("LGPL-3.0", ("GNU LESSER GENERAL PUBLIC LICENSE", "Version 3")),
    ("LGPL-2.1", ("GNU LESSER GENERAL PUBLIC LICENSE",)),
    ("GPL-3.0", ("GNU GENERAL PUBLIC LICENSE", "Version 3")),
    ("GPL-2.0", ("GNU GENERAL PUBLIC LICENSE", "Version 2")),
    ("MPL-2.0", ("Mozilla Public License", "2.0")),
    ("PSF-2.0", ("PYTHON SOFTWARE FOUNDATION LICENSE",)),
    ("CC0-1.0", ("CC0 1.0",)),
    ("CC-BY-SA-4.0", ("Attribution-ShareAlike 4.0",)),
    ("CC-BY-4.0", ("Attribution 4.0 International",)),
    ("Unlicense", ("unencumbered software released into the public domain",)),
    ("MIT", ("Permission is hereby granted, free of charge", "without restriction")),
    ("ISC", ("Permission to use, copy, modify, and/or distribute",)),
    ("BSD-3-Clause", ("Redistribution and use in source and binary forms", "Neither the name")),
    ("BSD-2-Clause", ("Redistribution and use in source and binary forms",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file to read; `name` is its name in the manifest and never an absolute path."""

    path: Path
    name: str
    source: str
    license: str | None


def find_files(source: str) -> list[SourceFile]:
    """Files of one source, sorted by name. Raises DataError when the source does not exist."""
    if source == "stdlib":
        return _stdlib()
    if source.startswith("hf://"):
        return _hub(source.removeprefix("hf://").removeprefix("datasets/").strip("/"))
    path = Path(source).expanduser()
    if path.is_dir():
        label = path.resolve().name
        return _sorted(_walk(path, label=label, matches=_is_text))
    if path.is_file():
        if not _is_text(path.name):
            raise DataError(f"{source}: only {', '.join(SUFFIXES)} files can be read, each also as .gz")
        return [SourceFile(path=path, name=path.name, source=path.name, license=_license_in(path.parent))]
    if any(mark in source for mark in "*?["):
        return _glob(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return _hub(source)
    raise DataError(
        f"there is no file, folder or glob {source!r}; a source may also be 'stdlib' or a hub id org/name"
    )


def guess_license(text: str) -> str | None:
    """SPDX id of a license text, or None when it is none of the common ones."""
    plain = " ".join(text.split()).casefold()
    for spdx, phrases in LICENSE_PHRASES:
        if all(phrase.casefold() in plain for phrase in phrases):
            return spdx
    return None


def file_type(name: str) -> str:
    """Suffix in lower case without `.gz`: `.jsonl` for `a.jsonl` and for `a.jsonl.gz`."""
    return Path(name.lower().removesuffix(".gz")).suffix


def _is_text(name: str) -> bool:
    return file_type(name) in SUFFIXES and not LICENSE_FILE.fullmatch(name)


def _sorted(files: Iterator[SourceFile]) -> list[SourceFile]:
    return sorted(files, key=lambda file: file.name)


def _walk(
    folder: Path,
    *,
    label: str,
    matches: Callable[[str], bool],
    skip: set[str] = NOT_TEXT_FOLDERS,
    depth: int | None = None,
    license: str | None = None,
) -> Iterator[SourceFile]:
    """Regular files below `folder` whose name `matches`, without hidden ones; links cannot make a loop.

    `license` is the license of files that have no license file in any folder above them.
    """
    folder_ids: set[tuple[int, int]] = set()
    queue = [(folder, label, license, 1)]
    while queue:
        here, name, license_above, level = queue.pop()
        try:
            status = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot list the folder {here}: {error.strerror}") from None
        if (status.st_dev, status.st_ino) in folder_ids:
            continue
        folder_ids.add((status.st_dev, status.st_ino))
        license_here = _license_in(here) or license_above
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name not in skip and (depth is None or level < depth):
                    queue.append((Path(entry.path), f"{name}/{entry.name}", license_here, level + 1))
            elif entry.is_file() and matches(entry.name):  # not a pipe, not a device
                yield SourceFile(
                    path=Path(entry.path), name=f"{name}/{entry.name}", source=label, license=license_here
                )


def _stdlib() -> list[SourceFile]:
    """Library of the running Python, without its build record, which contains paths of this machine."""
    folder = Path(sysconfig.get_path("stdlib"))

    def is_source(name: str) -> bool:
        return name.endswith(".py") and not name.startswith("_sysconfigdata")

    files = _sorted(_walk(folder, label="stdlib", matches=is_source, skip=NOT_STDLIB_FOLDERS))
    if not files:
        raise DataError(
            f"the library of this Python has no source files in {folder}; name a folder of text instead"
        )
    # Python's license file also quotes other licenses, so guessing from it would go wrong.
    return [replace(file, license="PSF-2.0") for file in files]


def _glob(pattern: Path) -> list[SourceFile]:
    """Files that match a pattern; `**` stands for any number of folders."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if any(mark in part for mark in "*?["))
    root, rest = Path(*parts[:first]), parts[first:]
    if not root.is_dir():
        raise DataError(f"{pattern}: there is no folder {root}")
    label = root.resolve().name
    depth = None if "**" in rest else len(rest)
    return [
        file
        for file in _sorted(_walk(root, label=label, matches=_is_text, depth=depth))
        if _matches(file.path.relative_to(root).parts, rest)
    ]


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _hub(repo_id: str) -> list[SourceFile]:
    """Data files of a Hugging Face dataset, downloaded as files: no code of the repository ever runs."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError(
            f"the hub dataset {repo_id} needs huggingface_hub: pip install huggingface_hub (extra 'data')"
        ) from None
    patterns = [f"*{suffix}{gz}" for suffix in HUB_SUFFIXES for gz in ("", ".gz")]
    try:
        folder = Path(
            snapshot_download(repo_id, repo_type="dataset", allow_patterns=[*patterns, "README.md"])
        )
    except Exception as error:  # the hub client raises its own, its HTTP client's and the system's errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"{repo_id} is no local file or folder and cannot be downloaded from the hub: {reason}"
        ) from None

    def is_data(name: str) -> bool:
        return _is_text(name) and file_type(name) in HUB_SUFFIXES

    license = _card_license(folder / "README.md")
    source = f"hf://datasets/{repo_id}@{folder.name}"  # the name of a snapshot's folder is its commit
    return [
        SourceFile(path=file.path, name=file.name, source=source, license=file.license)
        for file in _sorted(_walk(folder, label=repo_id, matches=is_data, license=license))
    ]


def _card_license(card: Path) -> str | None:
    """License in the header of a dataset card, if there is one."""
    match = re.search(r"^license:\s*['\"]?([\w.+-]+)", _head(card), re.MULTILINE)
    return match[1] if match else None


def _license_in(folder: Path) -> str | None:
    """License in the license file of this folder, if there is one."""
    try:
        names = sorted(name for name in os.listdir(folder) if LICENSE_FILE.fullmatch(name))
    except OSError:
        return None
    return next((spdx for name in names if (spdx := guess_license(_head(folder / name)))), None)


def _head(path: Path) -> str:
    """First 20,000 bytes of a regular file as text; empty when it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with open(path, "rb") as file:
            return file.read(20_000).decode("utf-8", errors="replace")
    except OSError:
        return ""
