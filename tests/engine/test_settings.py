"""Settings are refused in one sentence that names them; end tokens; counters."""

from dataclasses import replace

import pytest

from shoestring.engine.settings import EngineCounters, EngineSettings, check_settings, eos_ids
from shoestring.errors import ConfigError
from shoestring.model.presets import PRESETS

TINY = PRESETS["tiny"]


def check(config=TINY, **settings):
    check_settings(EngineSettings(**{"speculation": "off", **settings}), config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs = 0 must be at least 1"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "at least max_num_seqs = 9"),
        ({"speculation": "medusa"}, "not one of"),
        ({"max_model_len": 257}, "from 2 to the model's 256"),
        ({"max_model_len": 1}, "from 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, words):
    with pytest.raises(ConfigError, match=words):
        check(**settings)


def test_mtp_needs_modules():
    with pytest.raises(ConfigError, match="needs a model with MTP modules"):
        check(replace(TINY, num_nextn_predict_layers=0), speculation="mtp")


@pytest.mark.parametrize(("of_config", "ids"), [(None, set()), (7, {7}), ((7, 9), {7, 9}), (99999, set())])
def test_end_tokens(of_config, ids):
    assert eos_ids(replace(TINY, eos_token_id=of_config), None) == ids


def test_acceptance_without_drafts_is_zero():
    assert EngineCounters().acceptance == 0
    assert EngineCounters(drafted_tokens=4, accepted_tokens=1).acceptance == 0.25
