"""Rows of a source: a file, a folder, a pattern, or a data set of the hub, and of one split of it.

`talks.jsonl`, `folder`, `folder/*.parquet`, `org/name`, `org/name@revision`. A part after a colon chooses
among the files of a folder or data set: a split (`org/name:test`), a folder or file without its suffix
(`org/name:main/train`), or a pattern (`org/name:*`). As on the hub, the name of a file tells its split.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from shoestring.errors import DataError
from shoestring.rows.files import files_below, files_of_pattern, is_pattern
from shoestring.rows.hub import HubName, fetch, hub_name
from shoestring.rows.read import ROW_TYPES, Row, require_rows
from shoestring.rows.streams import COMPRESSIONS, file_type

log = logging.getLogger(__name__)

NOT_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
"""Files about a data set, which are not part of it."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SHARD = re.compile(r"-\d{5,}-of-\d{5,}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of a source; `name` is for manifests and never an absolute path."""

    path: Path
    name: str
    stem: str
    """Its path within the source, without suffixes, number of the shard and the folder `data`."""
    split: str
    """train, validation or test, if its name says so; else empty."""
    is_shard: bool
    label: str
    """Its name in sentences: its path, or for a file of the hub its `name`."""


def source_rows(source: str, *, split: str = "train") -> Iterator[Row]:
    """All rows of a source in the order of its files; DataError naming file and line for a bad one."""
    for file in data_files(source, split=split):
        yield from require_rows(file.path, name=file.label)


def data_files(source: str, *, split: str = "train") -> list[DataFile]:
    """The files of a source that belong to a split, unless the source names another part itself.

    Files whose names say nothing of a split belong to `train`. Raises DataError when there is no such source
    or part, and when a data set of the hub has several parts for the split.
    """
    files, part = find(source)
    selection = [file for file in files if _is_of(file, part)] if part else files
    if not selection:
        raise DataError(f"{source}: there is no {part!r}; it has {_stems(files)}")
    splits = {file.split or "train" for file in selection}
    if (len(files) == 1 and not part) or is_pattern(part):
        return selection
    if not part or len(splits) > 1:
        if split not in splits:
            raise DataError(f"{source} has no files of the split {split}; it has {_stems(selection)}")
        if others := sorted(splits - {split}):
            log.warning(
                "%s: only its files of the split %s are read, not %s", source, split, ", ".join(others)
            )
        selection = [file for file in selection if (file.split or "train") == split]
    _require_one_part(source, source.removesuffix(f":{part}"), selection)
    return selection


def find(source: str) -> tuple[list[DataFile], str]:
    """All files with rows of a source, and the part that it names after a colon; DataError if none.

    The part of a pattern is `*`: it names its files itself, whatever their splits.
    """
    path, part = Path(source).expanduser(), ""
    if not path.exists() and ":" in source:
        head, _, tail = source.rpartition(":")
        if Path(head).expanduser().is_dir():
            path, part = Path(head).expanduser(), tail
    if path.is_dir():
        return _some(source, _files(path, files_below(path, is_rows), path.resolve().name)), part
    if path.exists():
        return _files(path.parent, [path], ""), ""
    if is_pattern(source) and hub_name(source) is None:
        root, paths = files_of_pattern(path, is_rows)
        return _some(source, _files(root, paths, root.resolve().name)), "*"
    name = hub_name(source)
    if name is None or Path(source).suffix in (*ROW_TYPES, *COMPRESSIONS):
        raise DataError(
            f"there is no file, folder or pattern {source}; data may also be a data set of the hub, org/name"
        )
    return _hub_files(name), name.part


def is_rows(name: str) -> bool:
    """Return whether a file of this name holds rows."""
    return file_type(name) in ROW_TYPES and name not in NOT_ROWS


def _hub_files(name: HubName) -> list[DataFile]:
    folder = fetch(name, [f"*{kind}{end}" for kind in ROW_TYPES for end in ("", *COMPRESSIONS)])
    files = _files(folder, files_below(folder, is_rows), str(name))
    return _some(str(name), [replace(file, label=file.name) for file in files])


def _some(source: str, files: list[DataFile]) -> list[DataFile]:
    if not files:
        raise DataError(f"{source} has no {', '.join(ROW_TYPES)} file")
    return files


def _files(root: Path, paths: Sequence[Path], label: str) -> list[DataFile]:
    return [_file(path, path.relative_to(root).as_posix(), label) for path in paths]


def _file(path: Path, name: str, label: str) -> DataFile:
    stem = name
    while Path(stem).suffix.lower() in (*COMPRESSIONS, *ROW_TYPES):
        stem = stem.removesuffix(Path(stem).suffix)
    without_shard = _SHARD.sub("", stem)
    words = re.split(r"[^a-z]+", stem.lower())
    return DataFile(
        path=path,
        name=f"{label}/{name}" if label else name,
        stem=without_shard.removeprefix("data/"),
        split=next((SPLIT_WORDS[word] for word in reversed(words) if word in SPLIT_WORDS), ""),
        is_shard=without_shard != stem,
        label=str(path),
    )


def _is_of(file: DataFile, part: str) -> bool:
    return (
        file.stem == part
        or file.stem.startswith(f"{part}/")
        or (file.split != "" and file.split == SPLIT_WORDS.get(part))
        or fnmatchcase(file.stem, part)
    )


def _stems(files: Sequence[DataFile]) -> str:
    stems = list(dict.fromkeys(file.stem for file in files))
    return ", ".join(stems[:12]) + (", ..." if len(stems) > 12 else "")


def _require_one_part(source: str, base: str, files: Sequence[DataFile]) -> None:
    """Refuse numbered parts of several data sets, which are not meant to be mixed."""
    stems = list(dict.fromkeys(file.stem for file in files if file.is_shard))
    if len(stems) > 1:
        raise DataError(
            f"{source} has several parts, {', '.join(stems[:12])}; name one, such as {base}:{stems[0]}, "
            f"or all with {base}:*"
        )
