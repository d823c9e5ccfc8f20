"""Quantized models: pack a checkpoint while it is read, write the packed one, map it."""

import contextlib
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.kernels.packed import available
from shoestring.model.config import ModelConfig
from shoestring.model.hf.config import CONFIG_NAME, load_config, to_hf
from shoestring.model.hf.folder import copy_tokenizer, load_model, without_missing_mtp
from shoestring.model.hf.names import sinks
from shoestring.model.hf.safetensors_file import TensorInfo
from shoestring.model.hf.shards import find_tensors, read_json
from shoestring.model.hf.weights import DTYPES, load_weights, save_weights
from shoestring.model.memory import BITS, Quantization
from shoestring.model.packed.block import pack_structure
from shoestring.model.packed.layers import PackedLinear
from shoestring.model.transformer import Transformer

Progress = Callable[[int, int], None]

METHOD = "shoestring"
"""`quant_method` in config.json of a packed checkpoint; no other program reads its blocks."""
ROWS_AT_ONCE = 4096
MADV_POPULATE_READ = 22
"""Map all pages of a file now; Python's mmap has no name for it yet."""


def load_for_inference(
    folder: Path,
    quantization: Quantization | None = None,
    *,
    compute_dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Transformer:
    """A model to serve: packed while it is read, or as it is stored (16-bit weights stay 16 bits wide).

    A checkpoint that `quantize_folder` wrote is mapped, ready at once, and takes no other quantization.
    Raises ConfigError, CheckpointError, UnsafeFileError.
    """
    folder = Path(folder)
    available()  # compiles the kernels if they are new, so that the first token does not wait for it
    if quantization is not None and quantization not in BITS:
        raise ConfigError(f"quantization {quantization!r} is not one of {', '.join(BITS)}")
    stored = stored_quantization(folder)
    if stored is not None:
        if quantization not in (None, stored):
            raise ConfigError(f"{folder} is {stored} already; load the checkpoint it was made from")
        return _map(folder, stored, compute_dtype)
    if quantization is None:
        return load_model(folder, dtype=_stored_dtype(folder), compute_dtype=compute_dtype)
    model = packed_model(without_missing_mtp(load_config(folder), folder), quantization, compute_dtype)
    load_weights(model, folder, progress=progress)
    _pack_tied_head(model)
    return model.eval()


def quantize_folder(
    source: Path, target: Path, quantization: Quantization, *, progress: Progress | None = None
) -> None:
    """Write the packed form of the checkpoint in `source` to `target`, tokenizer and settings included.

    Raises StorageError for a full disk or a folder that holds weights, CheckpointError, ConfigError.
    """
    source, target = Path(source), Path(target)
    if stored_quantization(source) is not None:
        raise ConfigError(f"{source} is quantized already; give the checkpoint it was made from")
    model = load_for_inference(source, quantization, progress=progress)
    save_weights(model, target)
    if (source / "tokenizer.json").is_file():
        copy_tokenizer(source, target)
    for name in ("generation_config.json", "LICENSE"):
        if (source / name).is_file():
            write_atomic(target / name, (source / name).read_text(encoding="utf-8"))
    settings = {"quant_method": METHOD, "bits": BITS[quantization], "group_size": 32}
    data = to_hf(model.config, dtype="float32") | {"quantization_config": settings}
    write_atomic(
        target / CONFIG_NAME, json.dumps(data, indent=2, sort_keys=True) + "\n"
    )  # last: now it is whole


def stored_quantization(folder: Path) -> Quantization | None:
    """What a packed checkpoint is packed as; None for any other. Raises CheckpointError for a damaged one."""
    path = Path(folder) / CONFIG_NAME
    settings: Any = read_json(path).get("quantization_config") if path.is_file() else None
    if not isinstance(settings, dict) or settings.get("quant_method") != METHOD:
        return None
    for name, bits in BITS.items():
        if settings.get("bits") == bits and settings.get("group_size") == 32:
            return name
    raise CheckpointError(f"{path} has a quantization_config that this version cannot read: {settings}")


def packed_model(
    config: ModelConfig, quantization: Quantization, compute_dtype: torch.dtype = torch.float32
) -> Transformer:
    """The empty model, on the meta device. Its embedding is in bfloat16: looked up, not multiplied."""
    with torch.device("meta"):
        model = pack_structure(Transformer(config, compute_dtype), BITS[quantization])
    embedding = model.model.embed_tokens
    embedding.weight = nn.Parameter(embedding.weight.bfloat16(), requires_grad=False)
    return model


def _pack_tied_head(model: Transformer) -> None:
    if not (model.config.tie_word_embeddings and isinstance(getattr(model, "lm_head", None), PackedLinear)):
        return
    sink, weight_WD = sinks(model)["lm_head.weight"], model.model.embed_tokens.weight
    for first in range(0, len(weight_WD), ROWS_AT_ONCE):
        sink.write(first, weight_WD[first : first + ROWS_AT_ONCE].detach().float())


def _stored_dtype(folder: Path) -> torch.dtype | None:
    """16-bit weights stay as they are; anything else becomes float32."""
    widths = {info.dtype for info in find_tensors(folder).values() if len(info.shape) == 2}
    return torch.bfloat16 if widths == {"BF16"} else None


def _map(folder: Path, quantization: Quantization, compute_dtype: torch.dtype) -> Transformer:
    """Open a packed checkpoint without reading it: its tensors are pages of its files."""
    config = load_config(folder)
    model = packed_model(config, quantization, compute_dtype)
    found, maps = find_tensors(folder), {}
    wanted = model.state_dict()
    if wanted.keys() != found.keys():
        name = min(wanted.keys() ^ found.keys())
        raise CheckpointError(
            f"{folder} and its config.json disagree about the tensor {name}; quantize again"
        )
    for name, tensor in wanted.items():
        info = found[name]
        if info.shape != tuple(tensor.shape) or DTYPES.get(info.dtype) != tensor.dtype:
            raise CheckpointError(
                f"{info} is {info.dtype} {list(info.shape)}, not {list(tensor.shape)}; quantize again"
            )
        if info.path not in maps:
            with info.path.open("rb") as file:
                maps[info.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            with contextlib.suppress(OSError):  # Linux before 5.14 maps each page when it is first read
                maps[info.path].madvise(MADV_POPULATE_READ)
        _place(model, name, _view(maps[info.path], info))
    return model.eval()


def _view(mapped: mmap.mmap, info: TensorInfo) -> torch.Tensor:
    count = (info.end - info.start) // DTYPES[info.dtype].itemsize
    return torch.frombuffer(mapped, dtype=DTYPES[info.dtype], count=count, offset=info.start).view(info.shape)


def _place(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    prefix, _, leaf = name.rpartition(".")
    module = model.get_submodule(prefix)
    if leaf in module._parameters:
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(leaf, tensor)
