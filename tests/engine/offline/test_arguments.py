"""vLLM's arguments of LLM: translated, accepted with one notice, or refused in a sentence."""

from pathlib import Path

import pytest

from shoestring.engine.offline.arguments import at_revision, engine_settings
from shoestring.errors import ConfigError


def test_arguments_without_effect_are_accepted_with_one_notice(caplog):
    settings = engine_settings(
        {
            "tensor_parallel_size": 1, "gpu_memory_utilization": 0.9, "dtype": "bfloat16", "swap_space": 4,
            "trust_remote_code": False, "enforce_eager": True, "max_num_seqs": 7, "enable_lora": False,
            "max_model_len": -1,
            "max_num_batched_tokens": None, "load_format": "auto", "disable_log_stats": False,
            "use_v2_block_manager": True,
        }
    )  # fmt: skip
    assert settings == {"max_num_seqs": 7}
    (record,) = caplog.records
    names = "gpu_memory_utilization, dtype, swap_space, enforce_eager, use_v2_block_manager"
    assert record.getMessage() == f"LLM: accepted, without effect here: {names}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensor_parallel_size", 2),
        ("tensor_parallel_size", True),
        ("pipeline_parallel_size", 4),
        ("load_format", "gguf"),
        ("runner", "pooling"),
        ("task", "embed"),
        ("kv_cache_dtype", "fp8"),
        ("hf_overrides", {"rope_theta": 1}),
        ("speculative_config", {"method": "eagle"}),
        ("speculative_config", "ngram"),
    ],
)
def test_what_would_change_results_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        engine_settings({name: value})


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"method": "ngram", "prompt_lookup_max": 4}, {"speculation": "prompt_lookup"}),
        (
            {"method": "deepseek_mtp", "num_speculative_tokens": 2},
            {"speculation": "mtp", "num_speculative_tokens": 2},
        ),
        (None, {}),
    ],
)
def test_speculation_is_translated(config, settings):
    assert engine_settings({"speculative_config": config}) == settings


def test_a_revision_belongs_to_a_repository(tmp_path, caplog):
    assert at_revision("org/name", "abc") == "org/name@abc"
    assert at_revision("org/name@old", "new") == "org/name@new"
    assert at_revision("org/name", None) == "org/name"
    assert not caplog.records
    for name in (tmp_path, str(tmp_path), "mini"):
        assert at_revision(name, "main") == str(name)
    assert len(caplog.records) == 3
    with pytest.raises(ConfigError, match="revision = 5"):
        at_revision(Path("x"), 5)
