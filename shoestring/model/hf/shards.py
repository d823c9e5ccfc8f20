"""Weight files of a checkpoint folder: the place of every tensor in them, and writing of shards."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, UnsafeFileError
from shoestring.model.hf.safetensors_file import MAX_HEADER_BYTES, Entry, TensorInfo, read_header, write_file

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def find_tensors(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint in `folder` by its Hugging Face name, from the files' headers.

    Raises CheckpointError for missing or damaged files and an index that disagrees with them, UnsafeFileError
    when the only weights are a pickle.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a checkpoint folder; give one that holds config.json and weights"
        )
    index = folder / INDEX_NAME
    if not index.exists():
        return read_header(_inside(folder, _only_file(folder)))
    weight_map = _read_weight_map(index)
    tensors: dict[str, TensorInfo] = {}
    for shard in sorted(set(weight_map.values())):
        for name, info in read_header(_inside(folder, shard)).items():
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{info} is not what {INDEX_NAME} says; one of the two is from another checkpoint"
                )
            tensors[name] = info
    for name, shard in weight_map.items():
        if name not in tensors:
            raise CheckpointError(
                f"{shard} lacks {name[:200]!r}, which {INDEX_NAME} promises; download the file again"
            )
    return tensors


def read_json(path: Path, *, max_bytes: int = MAX_HEADER_BYTES) -> dict[str, Any]:
    """The JSON object in an untrusted file. Raises CheckpointError for any other content."""
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no {path.name} in {path.parent}")
        if path.stat().st_size > max_bytes:
            raise CheckpointError(
                f"{path} has more than {max_bytes:,} bytes; it is not a checkpoint's {path.name}"
            )
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return data


def write_shards(
    folder: Path, entries: list[Entry], chunks: Callable[[Entry], Iterable[memoryview]], max_shard_bytes: int
) -> None:
    """Write tensors as one file, or as shards of at most `max_shard_bytes` with an index; all or nothing.

    `chunks` gives the bytes of an entry, in pieces of any size. Each file appears only when it is complete.
    Raises StorageError.
    """
    shards = _split(entries, max_shard_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    names = [SINGLE_NAME] if len(shards) == 1 else names
    try:
        for name, shard in zip(names, shards, strict=True):
            write_file(folder / name, shard, (chunk for entry in shard for chunk in chunks(entry)))
        if len(shards) > 1:
            index = {
                "metadata": {"total_size": sum(entry.num_bytes for entry in entries)},
                "weight_map": {
                    e.name: name for name, shard in zip(names, shards, strict=True) for e in shard
                },
            }
            write_atomic(folder / INDEX_NAME, json.dumps(index, indent=2) + "\n")
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise


def _split(entries: list[Entry], max_shard_bytes: int) -> list[list[Entry]]:
    """Shards of at most `max_shard_bytes`; wide dtypes first in each, so that every tensor is aligned."""
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.num_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.num_bytes
    return [sorted(shard, key=lambda entry: -entry.item_bytes) for shard in shards]


def refuse_pickle(path: Path) -> None:
    """Raise UnsafeFileError for a file that could run code when it is opened; it is not opened here."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UnsafeFileError(
            f"{path} is a pickle, which can run any code when opened, so it is never read; look for a copy "
            "in safetensors, or convert it with transformers' save_pretrained on a machine you can lose"
        )


def _only_file(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    weights = [name for name in names if name.endswith(".safetensors")]
    if SINGLE_NAME in weights:
        return SINGLE_NAME
    if len(weights) == 1:
        return weights[0]
    if weights:
        raise CheckpointError(
            f"{folder} holds {len(weights)} weight files and no {INDEX_NAME}; download the index too"
        )
    for name in names:
        refuse_pickle(folder / name)
    raise CheckpointError(f"{folder} holds no weights: neither {SINGLE_NAME} nor {INDEX_NAME}")


def _read_weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download it again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not _is_plain(shard):
            raise CheckpointError(
                f"{index} stores {name[:200]!r} in {str(shard)[:200]!r}, which is not the name of a "
                ".safetensors file in its folder; do not trust this checkpoint"
            )
    return weight_map


def _is_plain(name: str) -> bool:
    """Return whether `name` is the name of a file in the folder: no path, no drive, not too long."""
    return not any(c in name for c in "/\\:\0") and name == os.path.basename(name) and len(name) < 250


def _inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; a link may lead out of it only within the hub's cache."""
    path = folder / name
    if not path.exists():
        raise CheckpointError(f"{folder} lacks the weight file {name}; download it again")
    real, root = path.resolve(), folder.resolve()
    roots = [root]
    if root.parent.name == "snapshots":  # <cache>/models--org--name/snapshots/<commit>/, linked to blobs/
        roots += [root.parents[1] / "blobs", root.parents[2] / "blobs"]
    if not any(real.is_relative_to(place) for place in roots):
        raise CheckpointError(
            f"{path} is a link that leaves its folder; copy the file there or load {real.parent}"
        )
    return path
