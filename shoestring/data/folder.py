"""Sealed folders: a manifest holds the size and SHA-256 of every file, and they are checked on opening."""

import hashlib
import json
from pathlib import Path
from typing import Any

from shoestring.errors import DataError

MANIFEST = "manifest.json"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the size and SHA-256 of every other file in the folder."""
    file_records = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    text = json.dumps({**manifest, "stored": file_records}, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_sealed(folder: Path, *, kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Manifest of a sealed folder, after a check of its kind and of size and SHA-256 of the files `names`.

    Raises DataError naming the first file that is missing, damaged or of another kind.
    """
    remedy = f"delete {folder} and it is made again"
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        file_records = dict(manifest["stored"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is missing or damaged; {remedy}") from None
    if manifest.get("kind") != kind:
        raise DataError(f"{path} does not describe {kind}; {remedy}")
    for name in names:
        record = file_records.get(name)
        try:
            size = (folder / name).stat().st_size
            if (
                not isinstance(record, dict)
                or size != record.get("bytes")
                or sha256_of(folder / name) != record.get("sha256")
            ):
                raise DataError(f"{folder / name} is not the file its manifest describes; {remedy}")
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror}); {remedy}") from None
    return dict(manifest)
