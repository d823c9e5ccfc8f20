"""Arguments of vLLM's LLM: translated, accepted where they change nothing, or refused in one sentence."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring.errors import ConfigError

log = logging.getLogger(__name__)

WITHOUT_EFFECT = frozenset(
    [
        "gpu_memory_utilization",
        "dtype",
        "enforce_eager",
        "swap_space",
        "disable_log_stats",
        "disable_log_requests",
        "block_size",
        "enable_chunked_prefill",
        "disable_custom_all_reduce",
        "max_seq_len_to_capture",
        "compilation_config",
        "download_dir",
        "disable_cascade_attn",
        "async_scheduling",
        "max_logprobs",
        "trust_remote_code",
        "attention_backend",
        "attention_config",
        "max_num_partial_prefills",
        "disable_sliding_window",
        "limit_mm_per_prompt",
        "cpu_offload_gb",
        "num_scheduler_steps",
        "distributed_executor_backend",
        "use_v2_block_manager",
        "disable_async_output_proc",
        "max_context_len_to_capture",
        "enable_sleep_mode",
        "served_model_name",
        "hf_token",
        "cudagraph_capture_sizes",
        "max_cudagraph_capture_size",
        "mm_processor_kwargs",
        "disable_mm_preprocessor_cache",
        "mm_processor_cache_gb",
        "enable_lora",
        "max_loras",
        "max_cpu_loras",
        "max_lora_rank",
        "lora_dtype",
        "fully_sharded_loras",
    ]
)
"""They set memory, speed or logs of vLLM, and never a token."""
ONLY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tensor_parallel_size": ((1,), "the engine runs on one device"),
    "pipeline_parallel_size": ((1,), "the engine runs on one device"),
    "data_parallel_size": ((1,), "start one process for each device"),
    "enable_expert_parallel": ((False,), "the engine runs on one device"),
    "skip_tokenizer_init": ((False,), "a model without tokenizer files takes ids only"),
    "tokenizer_mode": (("auto", "hf"), "tokenizer.json is read"),
    "load_format": (("auto", "safetensors"), "weights are read from safetensors files"),
    "config_format": (("auto", "hf"), "config.json is read"),
    "model_impl": (("auto", "vllm"), "the model is this package's"),
    "runner": (("auto", "generate"), "only text generation is served"),
    "task": (("auto", "generate"), "only text generation is served"),
    "convert": (("auto", "none"), "only text generation is served"),
    "kv_cache_dtype": (("auto",), "the cache has the precision of the computation"),
    "calculate_kv_scales": ((False,), "the cache has the precision of the computation"),
    "generation_config": (("auto",), "to ignore its sampling, pass sampling_params"),
    "override_generation_config": (({},), "pass sampling_params"),
    "hf_overrides": (({},), "change config.json in the model's folder"),
    "rope_scaling": (({},), "change config.json in the model's folder"),
    "logits_processors": (((), []), "take logit_bias, allowed_token_ids or bad_words"),
    "allowed_local_media_path": (("",), "only text is served"),
    "scheduling_policy": (("fcfs",), "requests are served in their order"),
}  # fmt: skip
"""Values that an argument may have, and the reason, with the way out, against all others."""
METHODS = {
    "ngram": "prompt_lookup", "prompt_lookup": "prompt_lookup", "mtp": "mtp", "deepseek_mtp": "mtp",
}  # fmt: skip
"""Methods of vLLM's speculative_config by the name of the same method here."""


def engine_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments that are settings of this engine.

    One warning names the arguments that have no effect. Raises ConfigError for a value that cannot be served.
    """
    settings: dict[str, Any] = {}
    without_effect: list[str] = []
    for name, value in arguments.items():
        if value is None or (name == "max_model_len" and value in (-1, "auto")):
            continue  # a default, as in vLLM
        if name == "speculative_config":
            settings |= _speculation(value)
        elif name in ONLY:
            values, reason = ONLY[name]
            if isinstance(value, bool) != isinstance(values[0], bool) or value not in values:
                raise ConfigError(f"LLM: {name} = {value!r} is not possible: {reason}")
        elif name in WITHOUT_EFFECT:
            if value is not False:
                without_effect.append(name)
        else:
            settings[name] = value
    if without_effect:
        log.warning("LLM: accepted, without effect here: %s", ", ".join(without_effect))
    return settings


def at_revision(name: object, revision: object, argument: str = "revision") -> str:
    """A model's name with the revision of its repository; a folder has none, and a warning says so."""
    if not isinstance(name, (str, Path)):
        raise ConfigError(f"LLM: {name!r} is neither a model's name nor a folder")
    if revision is None:
        return str(name)
    if not isinstance(revision, str) or not revision:
        raise ConfigError(f"LLM: {argument} = {revision!r} is not the name of a branch, tag or commit")
    if isinstance(name, Path) or Path(name).exists() or "/" not in name:
        log.warning(
            "LLM: %s is a folder of this machine or in this package; %s has no effect", name, argument
        )
        return str(name)
    return f"{name.partition('@')[0]}@{revision}"


def check_seed(seed: object) -> int | None:
    """The seed, a whole number or None; ConfigError for anything else."""
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool)):
        return seed
    raise ConfigError(f"LLM: seed = {seed!r} is not a whole number")


def _speculation(config: Any) -> dict[str, Any]:
    """Settings for vLLM's speculative_config."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"LLM: speculative_config = {config!r} is not a dictionary")
    method = config.get("method")
    if method not in METHODS:
        raise ConfigError(
            f"LLM: speculative_config has method {method!r}; this engine drafts with {', '.join(METHODS)}"
        )
    settings = {"speculation": METHODS[method]}
    count = config.get("num_speculative_tokens")
    return settings if count is None else settings | {"num_speculative_tokens": count}
