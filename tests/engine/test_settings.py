"""Settings are refused in one sentence that names them; end tokens; counters and latencies."""

from dataclasses import replace

import pytest

from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.settings import (
    LENGTHS,
    TIMES_S,
    Distribution,
    EngineCounters,
    EngineSettings,
    check_settings,
    eos_ids,
)
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
        ({"prompt_share": 0.0}, "above 0 and at most 1"),
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


def test_a_value_is_in_the_bucket_of_the_next_bound() -> None:
    values = Distribution((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1, 99.0):
        values.add(value)
    assert values.counts == [2, 2, 2]
    assert values.total == pytest.approx(105.6)
    for bounds in (TIMES_S, LENGTHS):
        assert list(bounds) == sorted(set(bounds))


def test_requests_and_tokens_are_counted_once(mla) -> None:
    serving = Engine(mla, None, EngineSettings(max_num_seqs=4, max_model_len=64, speculation="off"))
    for number, n in enumerate((1, 2)):
        params = SamplingParams(n=n, max_tokens=5, ignore_eos=True, seed=1)
        serving.add_request(
            Request(request_id=str(number), prompt_token_ids=(1, 2, 3), sampling_params=params)
        )
    serving.add_request(Request(request_id="gone", prompt_token_ids=(1,)))
    serving.abort("gone")
    while serving.has_unfinished():
        serving.step()
    latencies = serving.latencies
    numbers = {name: sum(values.counts) for name, values in vars(latencies).items() if name != "accepted_at"}
    assert numbers == {
        "first_token_s": 2,
        "between_tokens_s": 3 * 4,
        "decode_s": 2,
        "request_s": 2,
        "prompt_tokens": 2,
        "generated_tokens": 3,
    }
    assert latencies.generated_tokens.total == 15
    assert latencies.request_s.total >= latencies.decode_s.total > 0
    assert latencies.request_s.total == pytest.approx(
        latencies.decode_s.total + latencies.first_token_s.total
    )
    assert latencies.accepted_at == [0]


def test_accepted_drafts_are_counted_by_their_place(mla) -> None:
    settings = EngineSettings(
        max_num_seqs=2, speculation="prompt_lookup", num_speculative_tokens=3, adaptive_speculation=False
    )
    serving = Engine(mla, None, settings)
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    serving.add_request(Request(request_id="a", prompt_token_ids=(1, 2, 3) * 9, sampling_params=params))
    while serving.has_unfinished():
        serving.step()
    counts = serving.latencies.accepted_at
    assert len(counts) == 3
    assert sum(counts) == serving.counters.accepted_tokens
    assert counts == sorted(counts, reverse=True)
    assert counts[0] <= serving.counters.drafts <= serving.counters.drafted_tokens
