"""Quantized models: a checkpoint packed while it is read, written in packed form, and mapped."""

import contextlib
import json
import mmap
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.kernels.packed import available
from shoestring.model.config import ModelConfig
from shoestring.model.hf.checkpoint import GENERATION_FILE, Checkpoint
from shoestring.model.hf.config import CONFIG_NAME, to_hf
from shoestring.model.hf.folder import copy_tokenizer, load_model
from shoestring.model.hf.names import sinks
from shoestring.model.hf.peft import load_adapter
from shoestring.model.hf.quantization import write_quantization
from shoestring.model.hf.safetensors_file import TensorInfo
from shoestring.model.hf.weights import DTYPES, load_weights, save_weights
from shoestring.model.memory import Quantization, bits_of
from shoestring.model.packed.block import pack_structure
from shoestring.model.packed.frozen import freeze
from shoestring.model.packed.layers import PackedLinear
from shoestring.model.transformer import Transformer

Progress = Callable[[int, int], None]

ROWS_AT_ONCE = 4096
MADV_POPULATE_READ = 22
"""Linux's madvise value that maps all pages of a file at once; Python's mmap has no name for it yet."""


def load_for_inference(
    checkpoint: Checkpoint,
    quantization: Quantization | None = None,
    *,
    compute_dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Transformer:
    """A model to serve: quantized while it is read, or as it is stored (16-bit weights stay 16 bits wide).

    A packed checkpoint is mapped, which takes no time, and cannot be quantized otherwise; an adapter stays
    beside its weights.
    Float32 weights are put in the order of the CPU kernels, in the same memory: a whole layer is one call.
    Raises ConfigError, CheckpointError, UnsafeFileError.
    """
    available()  # compiles the kernels if they are new, so that the first token does not wait for it
    packed_as = checkpoint.quantization
    if packed_as is not None:
        if quantization not in (None, packed_as):
            raise ConfigError(
                f"{checkpoint.folder} is {packed_as} already; load the checkpoint it was made from"
            )
        model = _map(checkpoint, packed_as, compute_dtype)
        return with_adapter(freeze(model), checkpoint).eval() if checkpoint.adapters else model
    if quantization is not None:
        model = packed_model(checkpoint.model_config, quantization, compute_dtype)
    elif checkpoint.is_bfloat16 or compute_dtype != torch.float32 or not available():
        dtype = torch.bfloat16 if checkpoint.is_bfloat16 else None
        return load_model(checkpoint, dtype=dtype, compute_dtype=compute_dtype)
    else:
        with torch.device("meta"):
            model = pack_structure(Transformer(checkpoint.model_config), 32, pack_head=False)
    load_weights(model, checkpoint, progress=progress)
    _pack_tied_head(model)
    return model.eval()


def load_frozen(checkpoint: Checkpoint, compute_dtype: torch.dtype = torch.float32) -> Transformer:
    """The model of a packed checkpoint that adapters are trained on, with those that its name has."""
    assert checkpoint.quantization is not None
    return with_adapter(freeze(_map(checkpoint, checkpoint.quantization, compute_dtype)), checkpoint)


def with_adapter(model: Transformer, checkpoint: Checkpoint) -> Transformer:
    """The frozen model with the checkpoint's adapter beside its weights, which stay packed."""
    if len(checkpoint.adapters) > 1:
        raise ConfigError(
            f"{checkpoint.folder} is packed and takes one adapter; merge several into the checkpoint that it "
            "was made from"
        )
    for folder in checkpoint.adapters:
        load_adapter(model, folder)
    return model.requires_grad_(False)


def quantize_checkpoint(
    source: Checkpoint, target: Path, quantization: Quantization, *, progress: Progress | None = None
) -> None:
    """Write a checkpoint in packed form to the folder `target`, with its tokenizer and settings.

    Raises StorageError for a full disk or a folder that contains weights, CheckpointError, ConfigError, and
    TokenizerError for a tokenizer that is larger than the embedding.
    """
    source.check_vocabulary()
    if source.quantization is not None:
        raise ConfigError(f"{source.folder} is quantized already; give the checkpoint it was made from")
    model = load_for_inference(source, quantization, progress=progress)
    save_weights(model, target)
    if source.has_tokenizer:
        copy_tokenizer(source.tokenizer_folder, target)
    for folder, name in ((source.generation_folder, GENERATION_FILE), (source.folder, "LICENSE")):
        if (folder / name).is_file():
            write_atomic(target / name, (folder / name).read_text(encoding="utf-8"))
    data = to_hf(model.config, dtype="float32") | {"quantization_config": write_quantization(quantization)}
    write_atomic(
        target / CONFIG_NAME, json.dumps(data, indent=2, sort_keys=True) + "\n"
    )  # last: only a complete folder has a config.json


def packed_model(
    config: ModelConfig, quantization: Quantization, compute_dtype: torch.dtype = torch.float32
) -> Transformer:
    """The empty model, on the meta device. Its embedding is in bfloat16: looked up, not multiplied."""
    with torch.device("meta"):
        model = pack_structure(Transformer(config, compute_dtype), bits_of(quantization))
    embedding = model.model.embed_tokens
    embedding.weight = nn.Parameter(embedding.weight.bfloat16(), requires_grad=False)
    return model


def _pack_tied_head(model: Transformer) -> None:
    if not (model.config.tie_word_embeddings and isinstance(getattr(model, "lm_head", None), PackedLinear)):
        return
    sink, weight_WD = sinks(model)["lm_head.weight"], model.model.embed_tokens.weight
    for first in range(0, len(weight_WD), ROWS_AT_ONCE):
        sink.write(first, weight_WD[first : first + ROWS_AT_ONCE].detach().float())


def _map(checkpoint: Checkpoint, quantization: Quantization, compute_dtype: torch.dtype) -> Transformer:
    """A packed checkpoint whose tensors are mapped pages of its files, which are not read."""
    model, tensors = packed_model(checkpoint.config, quantization, compute_dtype), checkpoint.tensors
    targets, maps = model.state_dict(), dict[Path, mmap.mmap]()
    if targets.keys() != tensors.keys():
        name = min(targets.keys() ^ tensors.keys())
        raise CheckpointError(
            f"{checkpoint.folder} and its config.json disagree about the tensor {name}; quantize again"
        )
    for name, target in targets.items():
        info = tensors[name]
        if info.shape != tuple(target.shape) or DTYPES.get(info.dtype) != target.dtype:
            raise CheckpointError(
                f"{info} is {info.dtype} {list(info.shape)}, not {list(target.shape)}; quantize again"
            )
        if info.path not in maps:
            with info.path.open("rb") as file:
                maps[info.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            with contextlib.suppress(OSError):  # Linux before 5.14 maps each page when it is first read
                maps[info.path].madvise(MADV_POPULATE_READ)
        _place(model, name, _view(maps[info.path], info))
    return model.eval()


def _view(pages: mmap.mmap, info: TensorInfo) -> torch.Tensor:
    count = (info.end - info.start) // DTYPES[info.dtype].itemsize
    return torch.frombuffer(pages, dtype=DTYPES[info.dtype], count=count, offset=info.start).view(info.shape)


def _place(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    prefix, _, leaf = name.rpartition(".")
    module = model.get_submodule(prefix)
    if leaf in module._parameters:
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(leaf, tensor)
