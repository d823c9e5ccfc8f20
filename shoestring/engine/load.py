"""A checkpoint folder as a running engine, refused before it is read when memory is too small for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from shoestring.device import Runtime
from shoestring.engine.engine import Engine
from shoestring.engine.paged_cache import available_bytes
from shoestring.engine.request import SamplingParams
from shoestring.engine.settings import DEFAULT_TOKENS, EngineSettings, check_settings
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model import memory as model_memory
from shoestring.model.config import ModelConfig
from shoestring.model.hf.config import load_config
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.shards import find_tensors, read_json
from shoestring.model.memory import Memory, Quantization, choose_quantization
from shoestring.model.packed.quantize import Progress, load_for_inference, stored_quantization
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import TOKENIZER_FILE, Tokenizer

GENERATION_FILE = "generation_config.json"
TAKEN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What a checkpoint's generation_config.json may say about sampling; the rest is transformers' own."""


def load_engine(
    folder: Path,
    runtime: Runtime,
    *,
    tokenizer: Tokenizer | None = None,
    quantization: Quantization | None = None,
    settings: EngineSettings | None = None,
    progress: Progress | None = None,
) -> Engine:
    """The engine for a checkpoint folder; without a tokenizer of its own or a given one it takes ids only.

    Raises ConfigError when weights and cache do not fit in the memory that is free, CheckpointError,
    TokenizerError, UnsafeFileError.
    """
    settings = settings or EngineSettings()
    config = load_config(folder)
    check_settings(settings, config)
    if tokenizer is None and (folder / TOKENIZER_FILE).is_file():
        tokenizer = Tokenizer.load(folder)
    if tokenizer is not None:
        tokenizer.check_fits(config.vocab_size)
    fitted = fit(folder, quantization, settings, runtime)
    model = load_transformer(folder, runtime, quantization, progress)
    return Engine(model, tokenizer, fitted)


def load_transformer(
    folder: Path,
    runtime: Runtime,
    quantization: Quantization | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """The model alone, as its weights are stored or quantized, where the runtime computes."""
    dtype, device = runtime.compute_dtype, runtime.device
    if device.type == "cuda" and quantization is None and stored_quantization(folder) is None:
        return load_model(folder, dtype=dtype, compute_dtype=dtype, device=device)
    model = load_for_inference(folder, quantization, compute_dtype=dtype, progress=progress)
    return model.to(device)


def fit(
    folder: Path, quantization: Quantization | None, settings: EngineSettings, runtime: Runtime
) -> EngineSettings:
    """The settings, with a cache that fits beside the weights; ConfigError says what would if none does."""
    config = load_config(folder)
    free = available_bytes(runtime.device)
    need = memory(folder, quantization, settings, runtime.compute_dtype)
    if free is None or need.total <= free:
        return replace(settings, kv_cache_memory_bytes=need.cache)
    least = _least_cache(config, settings, runtime.compute_dtype)
    if settings.kv_cache_memory_bytes is None and need.total - need.cache + least <= free:
        return replace(settings, kv_cache_memory_bytes=free - need.weights - need.programs)
    smallest = replace(need, cache=settings.kv_cache_memory_bytes or least)
    raise ConfigError(
        f"{folder} needs {smallest} and {free / 1e9:.1f} GB are free; "
        f"{_what_fits(config, quantization or stored_quantization(folder), smallest, free)}"
    )


def memory(
    folder: Path, quantization: Quantization | None, settings: EngineSettings, dtype: torch.dtype
) -> Memory:
    """What serving takes, counted from config.json and the weight files' headers."""
    config = load_config(folder)
    return Memory(
        weights=weight_bytes(folder, quantization),
        cache=settings.kv_cache_memory_bytes or _wanted_cache(config, settings, dtype),
    )


def weight_bytes(folder: Path, quantization: Quantization | None) -> int:
    """Bytes of the weights in memory; None is as they are stored."""
    config = load_config(folder)
    form = quantization or stored_quantization(folder)
    if form is not None:
        return model_memory.weight_bytes(config, form)
    matrices = {info.dtype for info in find_tensors(folder).values() if len(info.shape) == 2}
    width = 2 if matrices == {"BF16"} else 4  # others become float32
    return model_memory.weight_bytes(config, bytes_per_weight=width)


def cache_bytes(config: ModelConfig, settings: EngineSettings, dtype: torch.dtype, tokens: int) -> int:
    """Bytes of a paged cache for so many tokens; an MTP module that drafts has entries too."""
    drafts = config.num_nextn_predict_layers > 0 and settings.speculation in ("auto", "mtp")
    return model_memory.cache_bytes(config, tokens, config.num_hidden_layers + drafts, dtype.itemsize)


def default_sampling(folder: Path) -> dict[str, Any]:
    """What generation_config.json asks for, by SamplingParams' names; raises CheckpointError for nonsense."""
    path = folder / GENERATION_FILE
    if not path.is_file():
        return {}
    data = read_json(path)
    found = {name: data[name] for name in TAKEN if data.get(name) is not None}
    try:
        SamplingParams(**found)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; repair or remove that file") from None
    return found


def choose(
    folder: Path, target_bytes: int, settings: EngineSettings, runtime: Runtime
) -> Quantization | None:
    """The most exact form of the weights with which serving takes at most `target_bytes`.

    Raises ConfigError when none does, or when a checkpoint that is packed already is too large.
    """
    as_it_is = memory(folder, None, settings, runtime.compute_dtype)
    if as_it_is.total <= target_bytes:
        return None
    if stored_quantization(folder) is not None:
        raise ConfigError(
            f"{folder} is packed already and needs {as_it_is}, not {target_bytes / 1e9:.1f} GB; "
            "take a smaller model or a shorter context, or quantize the checkpoint it was made from"
        )
    chosen = choose_quantization(load_config(folder), target_bytes, as_it_is.cache)
    return chosen or "int8"  # 16 bits would fit, but the checkpoint holds 32


def read_bytes_per_token(folder: Path, quantization: Quantization | None) -> float:
    """Bytes of weights that one stream's next token needs: those of the parameters that are active for it."""
    return model_memory.read_bytes_per_token(load_config(folder), weight_bytes(folder, quantization))


def _wanted_cache(config: ModelConfig, settings: EngineSettings, dtype: torch.dtype) -> int:
    """A thousand tokens for every sequence, or one whole context if that is more."""
    longest = settings.max_model_len or config.max_position_embeddings
    tokens = max(settings.max_num_seqs * DEFAULT_TOKENS, settings.max_model_len or 0)
    return cache_bytes(config, settings, dtype, min(tokens, settings.max_num_seqs * longest))


def _least_cache(config: ModelConfig, settings: EngineSettings, dtype: torch.dtype) -> int:
    return cache_bytes(config, settings, dtype, settings.max_model_len or DEFAULT_TOKENS)


def _what_fits(config: ModelConfig, kept: Quantization | None, need: Memory, free: int) -> str:
    """The way out: the smaller forms of the weights, and whether one fits."""
    if kept == "int4":
        return "take a smaller model or a shorter context, or free some memory"
    smaller = [name for name in get_args(Quantization) if kept is None or name == "int4"]
    totals = {name: replace(need, weights=model_memory.weight_bytes(config, name)).total for name in smaller}
    said = ", ".join(f"{name} {total / 1e9:.1f} GB" for name, total in totals.items())
    fitting = [name for name, total in totals.items() if total <= free]
    if fitting:
        return f"quantized it would fit: {said}"
    return f"even quantized it would not fit ({said}): take a smaller model, or free some memory"
