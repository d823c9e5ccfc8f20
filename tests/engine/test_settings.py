"""What fits: settings and requests are refused in one sentence before memory is spent."""

from dataclasses import replace

import pytest
import torch

from shoestring.engine import settings as settings_file
from shoestring.engine.paged_cache import page_bytes
from shoestring.engine.pages import PAGE_SIZE
from shoestring.engine.settings import EngineCounters, EngineSettings, check_settings, eos_ids, plan_cache
from shoestring.errors import ConfigError
from shoestring.model.presets import PRESETS

TINY = PRESETS["tiny"]
PAGE = page_bytes(TINY, TINY.num_hidden_layers, torch.float32)


def plan(config=TINY, **settings):
    settings = EngineSettings(**{"speculation": "off", **settings})
    check_settings(settings, config)
    return plan_cache(config, settings, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs = 0 must be at least 1"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "at least max_num_seqs = 9"),
        ({"speculation": "medusa"}, "not one of"),
        ({"max_model_len": 257}, "from 2 to the model's 256"),
        ({"max_model_len": 1}, "from 2"),
        ({"kv_cache_memory_bytes": 2**60}, "bytes of memory that are free; give at most"),
        ({"kv_cache_memory_bytes": PAGE - 1}, "holds 0 tokens"),
        (
            {"kv_cache_memory_bytes": 2 * PAGE, "max_model_len": 65},
            f"needs kv_cache_memory_bytes of {3 * PAGE:,}",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, words):
    with pytest.raises(ConfigError, match=words):
        plan(**settings)


def test_mtp_needs_modules():
    with pytest.raises(ConfigError, match="needs a model with MTP modules"):
        plan(replace(TINY, num_nextn_predict_layers=0), speculation="mtp")


@pytest.mark.parametrize(("modules", "kind"), [(1, "mtp"), (0, "prompt_lookup")])
def test_auto_takes_what_the_model_has(modules, kind):
    made = plan(replace(TINY, num_nextn_predict_layers=modules), speculation="auto")
    assert (made.speculation, made.num_layers) == (kind, TINY.num_hidden_layers + modules)


def test_a_small_cache_shortens_the_context():
    made = plan(kv_cache_memory_bytes=3 * PAGE + 5)
    assert (made.num_pages, made.max_model_len) == (3, 3 * PAGE_SIZE)


def test_by_default_every_sequence_gets_a_thousand_tokens_or_its_context():
    assert plan(max_num_seqs=8).num_pages == 8 * 256 // PAGE_SIZE
    longer = replace(TINY, max_position_embeddings=10_000)
    assert plan(longer, max_num_seqs=8).num_pages == 8 * 1024 // PAGE_SIZE
    assert plan(longer, max_num_seqs=2, max_model_len=9000).max_model_len == 9000


def test_by_default_half_of_what_is_free_is_the_limit(monkeypatch):
    monkeypatch.setattr(settings_file, "available_bytes", lambda device: 10 * PAGE)
    assert plan(max_num_seqs=64).num_pages == 5
    with pytest.raises(ConfigError, match="needs kv_cache_memory_bytes of"):
        plan(max_num_seqs=64, max_model_len=200)


@pytest.mark.parametrize(("of_config", "ids"), [(None, set()), (7, {7}), ((7, 9), {7, 9}), (99999, set())])
def test_end_tokens(of_config, ids):
    assert eos_ids(replace(TINY, eos_token_id=of_config), None) == ids


def test_acceptance_without_drafts_is_zero():
    assert EngineCounters().acceptance == 0
    assert EngineCounters(drafted_tokens=4, accepted_tokens=1).acceptance == 0.25
