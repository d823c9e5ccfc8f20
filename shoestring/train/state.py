"""Trainer state as one safetensors and one JSON file, bit for bit: optimizer, random generators, counters.

Any tree of dicts, lists, tuples, tensors, numbers, strings and None comes back exactly, keys and tuples
included. Nothing is pickled, so nothing in these files can run.
"""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoestring.errors import CheckpointError

Generator = torch.Generator | np.random.Generator | random.Random
_ARRAYS = ("uint32", "uint64", "int64")  # what numpy's bit generators keep their state in
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

    Meant to be called by the `write` of `checkpoint.save`, which makes the pair durable.
    """
    from safetensors.torch import save_file

    save_file(_separate(tensors), prefix.with_name(prefix.name + ".safetensors"))
    text = json.dumps(values, allow_nan=False)
    prefix.with_name(prefix.name + ".json").write_text(text, encoding="utf-8")


def load_state(prefix: Path) -> tuple[dict[str, Tensor], Any]:
    """What `save_state` wrote, on the CPU; raises CheckpointError naming the file that cannot be read."""
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


def rng_state(generators: Mapping[str, Generator] | None = None) -> dict[str, Any]:
    """The state of the generators of torch, CUDA and Python, and of the named ones: a tree for `flatten`."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    named = {name: _generator_state(generator) for name, generator in (generators or {}).items()}
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "named": named}


def set_rng_state(state: Mapping[str, Any], generators: Mapping[str, Generator] | None = None) -> None:
    """Continue every generator where `rng_state` saw it.

    CUDA states are set for the devices that are here. Raises CheckpointError for a malformed state or for a
    named generator that was not saved.
    """
    try:
        torch.set_rng_state(state["torch"])
        random.setstate(state["python"])
        for index, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(saved, index)
        for name, generator in (generators or {}).items():
            _set_generator(generator, state["named"][name])
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"the saved state of the random generators does not fit: {error!r}") from None


def _generator_state(generator: Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.bit_generator.state


def _set_generator(generator: Generator, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


def _encode(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `node`: scalars as they are, everything else an object whose one key says what it is."""
    if node is None or isinstance(node, bool | int | str):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {"float": str(node)}
    if isinstance(node, Tensor):
        tensors[name] = node.detach()
        return {"tensor": name}
    if isinstance(node, np.ndarray) and str(node.dtype) in _ARRAYS:
        return {"array": {"dtype": str(node.dtype), "values": node.tolist()}}
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
        if kind == "array" and content["dtype"] in _ARRAYS:
            return np.array(content["values"], dtype=content["dtype"])
        if kind in ("list", "tuple"):
            items = [_decode(item, tensors, depth + 1) for item in content]
            return tuple(items) if kind == "tuple" else items
        if kind == "dict":
            return {key: _decode(value, tensors, depth + 1) for key, value in content}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"the trainer state is malformed ({error!r})") from None
    raise CheckpointError(f"the trainer state holds an unknown kind, {kind!r}; use an earlier checkpoint")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPU tensors that are contiguous and share no memory, as safetensors wants them."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        storage = here.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != here.nbytes:
            here = here.clone()
        seen.add(here.untyped_storage().data_ptr())
        result[name] = here
    return result
