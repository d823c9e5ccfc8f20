"""Files of a source with their licenses: a folder, a file, a glob, a hub dataset or `stdlib`."""

import os
import re
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shoestring.errors import DataError
from shoestring.rows.files import NOT_DATA_FOLDERS, files_below, files_of_pattern, is_pattern
from shoestring.rows.hub import HubName, fetch, hub_name
from shoestring.rows.streams import COMPRESSIONS, file_type

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")
"""File types that can be read, each also with `.gz` or `.zst`."""

HUB_SUFFIXES = (".txt", ".jsonl", ".parquet")
# Without tests, which would triple the text (19.4 of 31.5 MB in CPython 3.11), have wrong encodings on
# purpose, and are missing in some distributions. The rest of 3.11 is about 12 MB in 730 files.
NOT_STDLIB_FOLDERS = NOT_DATA_FOLDERS | {"site-packages", "dist-packages", "test", "tests", "idle_test"}
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
    path, name = Path(source).expanduser(), hub_name(source)
    if path.is_dir():
        return _licensed(path, files_below(path, _is_text), path.resolve().name)
    if path.is_file():
        if not _is_text(path.name):
            ends = " or ".join(COMPRESSIONS)
            raise DataError(f"{source}: only {', '.join(SUFFIXES)} files can be read, each also as {ends}")
        return [SourceFile(path=path, name=path.name, source=path.name, license=_license_in(path.parent))]
    if name is not None:
        return _hub(name)
    if is_pattern(source):
        root, files = files_of_pattern(path, _is_text)
        return _licensed(root, files, root.resolve().name)
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


def _is_text(name: str) -> bool:
    return file_type(name) in SUFFIXES and not LICENSE_FILE.fullmatch(name)


def _licensed(
    root: Path, files: Iterable[Path], label: str, *, source: str = "", license: str | None = None
) -> list[SourceFile]:
    """Files below `root`, each with the license of the nearest license file above it, else `license`."""
    licenses: dict[Path, str | None] = {root.parent: license}

    def license_of(folder: Path) -> str | None:
        if folder not in licenses:
            licenses[folder] = _license_in(folder) or (
                license if folder == root else license_of(folder.parent)
            )
        return licenses[folder]

    return [
        SourceFile(
            path=file,
            name=f"{label}/{file.relative_to(root).as_posix()}",
            source=source or label,
            license=license_of(file.parent),
        )
        for file in files
    ]


def _stdlib() -> list[SourceFile]:
    """Library of the running Python, without its build record, which contains paths of this machine."""
    folder = Path(sysconfig.get_path("stdlib"))

    def is_source(name: str) -> bool:
        return name.endswith(".py") and not name.startswith("_sysconfigdata")

    files = files_below(folder, is_source, skip=NOT_STDLIB_FOLDERS)
    if not files:
        raise DataError(
            f"the library of this Python has no source files in {folder}; name a folder of text instead"
        )
    # Python's license file also quotes other licenses, so guessing from it would go wrong.
    return [
        SourceFile(
            path=file,
            name=f"stdlib/{file.relative_to(folder).as_posix()}",
            source="stdlib",
            license="PSF-2.0",
        )
        for file in files
    ]


def _hub(name: HubName) -> list[SourceFile]:
    """Data files of a Hugging Face dataset, downloaded as files: no code of the repository ever runs."""
    patterns = [f"*{suffix}{end}" for suffix in HUB_SUFFIXES for end in ("", *COMPRESSIONS)]
    folder = fetch(name, [*patterns, "README.md"])

    def is_data(file: str) -> bool:
        return _is_text(file) and file_type(file) in HUB_SUFFIXES

    source = f"hf://datasets/{name.repository}@{folder.name}"  # the name of a snapshot's folder is its commit
    license = _card_license(folder / "README.md")
    return _licensed(folder, files_below(folder, is_data), name.repository, source=source, license=license)


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
