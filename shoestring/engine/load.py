"""A checkpoint as a running engine, refused before its weights are read when memory is too small for it."""

from dataclasses import replace
from typing import Any, get_args

import torch

from shoestring.device import Runtime
from shoestring.engine.engine import Engine
from shoestring.engine.paged_cache import available_bytes
from shoestring.engine.request import SamplingParams
from shoestring.engine.settings import DEFAULT_TOKENS, EngineSettings, check_settings
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model import memory
from shoestring.model.config import ModelConfig
from shoestring.model.hf.checkpoint import GENERATION_FILE, Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.memory import Memory, Quantization, choose_quantization
from shoestring.model.packed.quantize import Progress, load_for_inference
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import Tokenizer

SAMPLING_FIELDS = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")},
    "max_new_tokens": "max_tokens",
}
"""Fields of generation_config.json that set sampling, with the names of SamplingParams."""


def load_engine(
    checkpoint: Checkpoint,
    runtime: Runtime,
    *,
    tokenizer: Tokenizer | None = None,
    quantization: Quantization | None = None,
    settings: EngineSettings | None = None,
    progress: Progress | None = None,
) -> Engine:
    """The engine for a checkpoint; without `tokenizer` and a tokenizer of its own it takes ids only.

    Raises ConfigError when weights and cache do not fit in the memory that is free, CheckpointError,
    TokenizerError, UnsafeFileError.
    """
    settings = settings or EngineSettings()
    config = checkpoint.model_config
    check_settings(settings, config)
    if tokenizer is None and checkpoint.has_tokenizer:
        tokenizer = checkpoint.tokenizer
    if tokenizer is not None:
        tokenizer.check_fits(config.vocab_size)
    settings = fit(checkpoint, quantization, settings, runtime)
    return Engine(load_transformer(checkpoint, runtime, quantization, progress), tokenizer, settings)


def load_transformer(
    checkpoint: Checkpoint,
    runtime: Runtime,
    quantization: Quantization | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """The model alone on the runtime's device, its weights as they are stored or quantized."""
    dtype, device = runtime.compute_dtype, runtime.device
    if device.type == "cuda" and quantization is None and checkpoint.quantization is None:
        return load_model(checkpoint, dtype=dtype, compute_dtype=dtype, device=device)
    model = load_for_inference(checkpoint, quantization, compute_dtype=dtype, progress=progress)
    return model.to(device)


def fit(
    checkpoint: Checkpoint, quantization: Quantization | None, settings: EngineSettings, runtime: Runtime
) -> EngineSettings:
    """The settings, with a cache that fits beside the weights.

    Raises ConfigError if none does, with the memory that smaller forms of the weights would need.
    """
    free = available_bytes(runtime.device)
    need = required_memory(checkpoint, quantization, settings, runtime.compute_dtype)
    if free is None or need.total <= free:
        return replace(settings, kv_cache_memory_bytes=need.cache)
    least = _least_cache(checkpoint.model_config, settings, runtime.compute_dtype)
    if settings.kv_cache_memory_bytes is None and need.total - need.cache + least <= free:
        return replace(settings, kv_cache_memory_bytes=free - need.weights - need.programs)
    smallest = replace(need, cache=settings.kv_cache_memory_bytes or least)
    form = quantization or checkpoint.quantization
    raise ConfigError(
        f"{checkpoint.folder} needs {smallest} and {free / 1e9:.1f} GB are free; "
        f"{_way_out(checkpoint.model_config, form, smallest, free)}"
    )


def required_memory(
    checkpoint: Checkpoint, quantization: Quantization | None, settings: EngineSettings, dtype: torch.dtype
) -> Memory:
    """The memory of serving, counted from config.json and the weight files' headers."""
    cache = settings.kv_cache_memory_bytes or _default_cache(checkpoint.model_config, settings, dtype)
    return Memory(weights=checkpoint.weight_bytes(quantization), cache=cache)


def cache_bytes(config: ModelConfig, settings: EngineSettings, dtype: torch.dtype, tokens: int) -> int:
    """Bytes of a paged cache for so many tokens; an MTP module that drafts has entries too."""
    drafts = config.num_nextn_predict_layers > 0 and settings.speculation in ("auto", "mtp")
    return memory.cache_bytes(config, tokens, config.num_hidden_layers + drafts, dtype.itemsize)


def default_sampling(checkpoint: Checkpoint) -> dict[str, Any]:
    """The defaults in generation_config.json by SamplingParams' names; CheckpointError for wrong values."""
    fields = checkpoint.generation
    sampling = {ours: fields[name] for name, ours in SAMPLING_FIELDS.items() if fields.get(name) is not None}
    try:
        SamplingParams(**sampling)
    except ConfigError as error:
        path = checkpoint.generation_folder / GENERATION_FILE
        raise CheckpointError(f"{path}: {error}; repair or remove that file") from None
    return sampling


def choose(
    checkpoint: Checkpoint, target_bytes: int, settings: EngineSettings, runtime: Runtime
) -> Quantization | None:
    """The most exact form of the weights with which serving takes at most `target_bytes`.

    Raises ConfigError when none does, or when a checkpoint that is packed already is too large.
    """
    as_stored = required_memory(checkpoint, None, settings, runtime.compute_dtype)
    if as_stored.total <= target_bytes:
        return None
    if checkpoint.quantization is not None:
        raise ConfigError(
            f"{checkpoint.folder} is packed already and needs {as_stored}, not {target_bytes / 1e9:.1f} GB; "
            "take a smaller model or a shorter context, or quantize the checkpoint it was made from"
        )
    quantization = choose_quantization(checkpoint.model_config, target_bytes, as_stored.cache)
    return quantization or "int8"  # 16 bits would fit, but the checkpoint holds 32


def _default_cache(config: ModelConfig, settings: EngineSettings, dtype: torch.dtype) -> int:
    """A thousand tokens for every sequence, or one whole context if that is more."""
    longest = settings.max_model_len or config.max_position_embeddings
    tokens = max(settings.max_num_seqs * DEFAULT_TOKENS, settings.max_model_len or 0)
    return cache_bytes(config, settings, dtype, min(tokens, settings.max_num_seqs * longest))


def _least_cache(config: ModelConfig, settings: EngineSettings, dtype: torch.dtype) -> int:
    """One sequence."""
    return cache_bytes(config, settings, dtype, settings.max_model_len or DEFAULT_TOKENS)


def _way_out(config: ModelConfig, form: Quantization | None, need: Memory, free: int) -> str:
    """The smaller forms of the weights, and whether one fits."""
    if form == "int4":
        return "take a smaller model or a shorter context, or free some memory"
    smaller = [name for name in get_args(Quantization) if form is None or name == "int4"]
    totals = {name: replace(need, weights=memory.weight_bytes(config, name)).total for name in smaller}
    sizes = ", ".join(f"{name} {total / 1e9:.1f} GB" for name, total in totals.items())
    if any(total <= free for total in totals.values()):
        return f"quantized it would fit: {sizes}"
    return f"even quantized it would not fit ({sizes}): take a smaller model, or free some memory"
