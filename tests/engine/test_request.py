"""Sampling parameters: vLLM's defaults, and one sentence that names the field for everything else."""

import dataclasses

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engine.request import Request, SamplingParams, StructuredOutputsParams, derived_seed
from shoestring.errors import ConfigError
from shoestring.sampling_params import BeamSearchParams


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("n", 0, "from 1 to 128"),
        ("n", 129, "from 1 to 128"),
        ("n", True, "not a whole number"),
        ("temperature", -0.1, "from 0 to 100"),
        ("temperature", float("nan"), "from 0 to 100"),
        ("temperature", "hot", "not a number"),
        ("top_p", 0.0, "above 0"),
        ("top_p", 1.1, "from 0 to 1"),
        ("top_k", -2, "at least -1"),
        ("top_k", 1.5, "not a whole number"),
        ("min_p", 2, "from 0 to 1"),
        ("presence_penalty", 2.5, "from -2 to 2"),
        ("frequency_penalty", -3, "from -2 to 2"),
        ("repetition_penalty", 0, "from 0.01 to 100"),
        ("seed", 2**63, "from"),
        ("max_tokens", 0, "at least 1"),
        ("min_tokens", 17, "from 0 to 16"),
        ("min_tokens", -1, "from 0 to 16"),
        ("logprobs", -2, "at least -1"),
        ("prompt_logprobs", "all", "not a whole number"),
        ("bad_words", [" "], "not blank"),
        ("bad_words", "word", "not a list"),
        ("allowed_token_ids", [], "empty"),
        ("allowed_token_ids", ["a"], "not a whole number"),
        ("ignore_eos", 1, "neither True nor False"),
        ("structured_outputs", {"regex": "a"}, "not StructuredOutputsParams"),
        ("guided_decoding", {"regex": "a"}, "not StructuredOutputsParams"),
        ("stop", ["a", ""], "1 to 1024 characters"),
        ("stop", ["a"] * 65, "at most 64"),
        ("stop", 7, "not a list"),
        ("stop_token_ids", [-1], "at least 0"),
        ("stop_token_ids", ["a"], "not a whole number"),
        ("logit_bias", {5: 101.0}, "from -100 to 100"),
        ("logit_bias", {"five": 1.0}, "not a whole number"),
        ("logit_bias", [1], "not a mapping"),
        ("output_kind", "some", "not one of"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(field, value, words):
    with pytest.raises(ConfigError, match=words) as error:
        SamplingParams(**{field: value})
    assert field in str(error.value)


def test_unknown_fields_are_errors():
    with pytest.raises(TypeError, match="best_of"):
        SamplingParams(best_of=2)


def test_stop_strings_need_text():
    with pytest.raises(ConfigError, match="detokenize"):
        SamplingParams(stop="x", detokenize=False)


@pytest.mark.parametrize("stop", ["end", ["end"], ("end",)])
def test_stops_become_a_list(stop):
    assert SamplingParams(stop=stop).stop == ["end"]
    assert SamplingParams(stop="").stop == []
    assert SamplingParams(stop=None, stop_token_ids=None) == SamplingParams()


def test_a_later_change_of_the_callers_mapping_changes_nothing():
    bias = {3: 1.0}
    params = SamplingParams(logit_bias=bias)
    bias[3] = 1000.0
    assert params.logit_bias == {3: 1.0}


@given(st.floats(0, 100), st.floats(0.001, 1), st.integers(-1, 10**6), st.integers(-(2**63), 2**63 - 1))
def test_what_is_in_range_is_taken(temperature, top_p, top_k, seed):
    params = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, max_tokens=None)
    assert params.is_greedy == (temperature < 1e-5)
    assert not params.has_penalties


@pytest.mark.parametrize(
    "given_", [{}, {"regex": "a", "json_object": True}, {"json": {}, "choice": ["a"]}, {"tools": None}]
)
def test_exactly_one_kind_of_structure(given_):
    with pytest.raises(ConfigError, match="exactly one"):
        StructuredOutputsParams(**given_)


def test_one_kind_of_structure():
    assert StructuredOutputsParams(choice=["a", "b"]).choice == ("a", "b")
    assert StructuredOutputsParams(json={}).json == {}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"choice": "ab"}, "choice must be a list of texts, not a str"),
        ({"json": [1]}, "json"),
        ({"regex": 5}, "regex"),
        ({"json_object": "yes"}, "json_object"),
        ({"tools": {}}, "tools"),
    ],
)
def test_a_structure_of_a_wrong_type_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        StructuredOutputsParams(**fields)


def test_none_is_the_default_of_every_field():
    names = [field.name for field in dataclasses.fields(SamplingParams)]
    assert SamplingParams(**{n: None for n in names if n != "max_tokens"}) == SamplingParams()
    assert SamplingParams.from_optional(temperature=None, max_tokens=None).max_tokens is None
    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(logit_bias={"5": -1, 7: 2}).logit_bias == {5: -1.0, 7: 2.0}


def test_fields_can_be_set_and_are_checked_again():
    params = SamplingParams(stop=["a"], logit_bias={1: 1.0})
    copy = params.clone()
    copy.stop.append("b")
    copy.logit_bias[2] = 1.0
    copy.max_tokens, copy.top_k = 7, numpy.int64(3)
    assert (params.stop, params.logit_bias, params.max_tokens) == (["a"], {1: 1.0}, 16)
    request = Request(request_id="r", prompt_token_ids=[1], sampling_params=copy)
    copy.max_tokens = 9
    assert request.sampling_params.max_tokens == 7
    assert type(request.sampling_params.top_k) is int
    copy.temperature = "hot"
    with pytest.raises(ConfigError, match="temperature = 'hot' is not a number"):
        Request(request_id="r", prompt_token_ids=[1], sampling_params=copy)
    with pytest.raises(AttributeError):
        params.max_token = 5


@pytest.mark.parametrize(
    "fields", [{"beam_width": 0}, {"beam_width": 2, "max_tokens": "5"}, {"beam_width": 2, "temperature": 0.5}]
)
def test_settings_of_beam_search_are_checked(fields):
    with pytest.raises(ConfigError):
        BeamSearchParams(**{"max_tokens": 5, **fields})


def test_a_request_keeps_its_own_prompt():
    ids = [1, 2]
    request = Request(request_id="r", prompt_token_ids=ids)
    ids.append(3)
    assert request.prompt_token_ids == (1, 2)


def test_a_derived_seed_depends_on_both_parts_and_never_changes():
    assert derived_seed(0, 7) == derived_seed(0, "7") == 50558888199652219
    assert len({derived_seed(seed, key) for seed in range(9) for key in range(9)}) == 81
    assert all(0 <= derived_seed(seed, "countdown/1") < 2**56 for seed in range(99))
