"""Trainer state as one safetensors and one JSON file, bit for bit: optimizer and counters.

Any tree of dicts, lists, tuples, tensors, numbers, strings and None is restored exactly, keys and tuples
included. Nothing is pickled, so these files cannot run code.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from shoestring.errors import CheckpointError
from shoestring.train.optim import Optimizers

_DEPTH_LIMIT = 100


def flatten(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a tree, such as an optimizer's `state_dict()`, into named tensors and plain JSON values."""
    tensors: dict[str, Tensor] = {}
    return tensors, _encode(tree, "", tensors)


def unflatten(tensors: Mapping[str, Tensor], values: Any) -> Any:
    """The tree that `flatten` split; raises CheckpointError if the two do not fit together."""
    return _decode(values, tensors, depth=0)


def save_state(prefix: Path, tensors: Mapping[str, Tensor], values: Any) -> None:
    """Write `<prefix>.safetensors` and `<prefix>.json`; `values` is JSON, as `flatten` makes it.

    For the `write` of `checkpoint.save`, which makes the pair durable.
    """
    from safetensors.torch import save_file

    save_file(_separate(tensors), prefix.with_name(prefix.name + ".safetensors"))
    text = json.dumps(values, allow_nan=False)
    prefix.with_name(prefix.name + ".json").write_text(text, encoding="utf-8")


def load_state(prefix: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors (on the CPU) and values of `save_state`; raises CheckpointError naming an unreadable file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = prefix.with_name(prefix.name + ".safetensors")
    try:
        # A copy each: tensors still mapped to the file would die with it when the checkpoint is pruned.
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        file = prefix.with_name(prefix.name + ".json")
        return tensors, json.loads(file.read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read trainer state {file}: {error}; use an earlier checkpoint"
        ) from None


def save_trainer(folder: Path, optimizers: Optimizers, values: Mapping[str, Any]) -> None:
    """Write the optimizer's state and `values`, such as counters, beside the model of a checkpoint."""
    tensors, optimizer = flatten(optimizers.state_dict())
    save_state(folder / "trainer", tensors, {**values, "optimizer": optimizer})


def load_trainer(folder: Path, optimizers: Optimizers) -> dict[str, Any]:
    """Restore the optimizer's state; returns the values that were saved with it. Raises CheckpointError."""
    tensors, values = load_state(folder / "trainer")
    optimizers.load_state_dict(unflatten(tensors, values["optimizer"]))
    return values


def _encode(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `node`: scalars as they are, everything else an object whose one key says what it is."""
    if node is None or isinstance(node, bool | int | str):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {"float": str(node)}
    if isinstance(node, Tensor):
        tensors[name] = node.detach()
        return {"tensor": name}
    if isinstance(node, list | tuple):
        items = [_encode(item, f"{name}/{index}", tensors) for index, item in enumerate(node)]
        return {"tuple" if isinstance(node, tuple) else "list": items}
    if isinstance(node, Mapping) and all(isinstance(key, int | str) for key in node):
        # Keys as pairs keep integers apart from strings; the type in the name keeps 1 and "1" apart.
        pairs = [[key, _encode(node[key], f"{name}/{_key_name(key)}", tensors)] for key in node]
        return {"dict": pairs}
    raise TypeError(f"trainer state {name!r} is a {type(node).__name__}, which cannot be saved exactly")


def _key_name(key: int | str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if isinstance(key, str) else f"~i{key}"


def _decode(node: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if node is None or isinstance(node, bool | int | str | float):
        return node
    if depth > _DEPTH_LIMIT or not isinstance(node, dict) or len(node) != 1:
        raise CheckpointError("the trainer state is malformed; use an earlier checkpoint")
    [(kind, content)] = node.items()
    try:
        if kind == "float":
            return float(content)
        if kind == "tensor":
            return tensors[content]
        if kind in ("list", "tuple"):
            items = [_decode(item, tensors, depth + 1) for item in content]
            return tuple(items) if kind == "tuple" else items
        if kind == "dict":
            return {key: _decode(value, tensors, depth + 1) for key, value in content}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"the trainer state is malformed ({error!r})") from None
    raise CheckpointError(f"the trainer state holds an unknown kind, {kind!r}; use an earlier checkpoint")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPU tensors that are contiguous and share no memory, as safetensors requires."""
    result: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        storage = here.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != here.nbytes:
            here = here.clone()
        storages.add(here.untyped_storage().data_ptr())
        result[name] = here
    return result
