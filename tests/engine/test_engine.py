"""The engine: the tokens of naive decoding, whatever happens around; and each way a request ends."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.request import Request, SamplingParams, StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.model.memory import page_bytes
from shoestring.model.transformer import Transformer, initialize

GREEDY = {"temperature": 0, "ignore_eos": True}
PROMPTS = [[(7 * i + j) % 250 for j in range(length)] for i, length in enumerate((1, 5, 33, 64, 90, 40))]


def engine(model, pages=40, tokenizer=None, **settings) -> Engine:
    settings = {"speculation": "off", "max_num_seqs": 6, "adaptive_speculation": False, **settings}
    layers = model.config.num_hidden_layers + (settings["speculation"] == "mtp")
    num_bytes = pages * page_bytes(model.config, layers, model.compute_dtype.itemsize)
    return Engine(model, tokenizer, EngineSettings(kv_cache_memory_bytes=num_bytes, **settings))


def request(name, prompt, salt="", **params) -> Request:
    params = SamplingParams(**{**GREEDY, "max_tokens": 25, **params})
    return Request(request_id=name, prompt_token_ids=prompt, sampling_params=params, cache_salt=salt)


CIRCUMSTANCES = {
    "plain": {},
    "one at a time": {"max_num_seqs": 1},
    "prompts in pieces of 7": {"max_num_batched_tokens": 7},
    "little time for prompts": {"prompt_share": 0.01},
    "without sharing": {"enable_prefix_caching": False},
    "few pages": {"pages": 7},
    "prompt lookup": {"speculation": "prompt_lookup", "num_speculative_tokens": 4},
    "mtp": {"speculation": "mtp", "num_speculative_tokens": 3},
    "all of it": {"speculation": "mtp", "num_speculative_tokens": 2, "pages": 7, "max_num_batched_tokens": 9},
}


@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_greedy_tokens_are_naive_greedy_tokens(model, naive, serve, name):
    settings = CIRCUMSTANCES[name]
    if settings.get("speculation") == "mtp" and not model.config.num_nextn_predict_layers:
        settings = {**settings, "speculation": "prompt_lookup"}
    prompts = [*PROMPTS, PROMPTS[3] + [9], PROMPTS[4] + [3, 4]]
    serving = engine(model, **settings)
    done = serve(serving, [request(str(i), prompt, max_tokens=30) for i, prompt in enumerate(prompts)])
    for i, prompt in enumerate(prompts):
        assert list(done[str(i)][0].token_ids) == naive(model, prompt, 30)
        assert done[str(i)][0].finish_reason == "length"
    counters = serving.counters
    assert (counters.requests, counters.finished, counters.failed) == (8, 8, 0)
    assert counters.generated_tokens == 8 * 30
    assert counters.preemptions > 0 or name != "few pages"
    assert (counters.drafted_tokens > 0) == (serving.speculation is not None)


@pytest.fixture(scope="module")
def metamorphic():
    """bench/metamorphic.py as a module."""
    path = Path(__file__).resolve().parents[2] / "bench" / "metamorphic.py"
    spec = importlib.util.spec_from_file_location("bench_metamorphic", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_metamorphic"] = module
    spec.loader.exec_module(module)
    return module


def test_alone_or_among_others(metamorphic):
    """The acceptance measurement at a fiftieth of its size."""
    result = metamorphic.measure(40, 200, seed=1)
    assert result["requests"] == 40
    assert (result["differences"], result["pages_lost"], result["failed"]) == (0, 0, 0)
    assert min(result[n] for n in ("preemptions", "aborted", "shared_tokens", "accepted_tokens")) > 0


SAMPLED = [
    {"temperature": 0.9, "seed": 1},
    {"temperature": 1.2, "seed": 2, "top_k": 20, "repetition_penalty": 1.2},
    {"temperature": 1.0, "seed": 3, "top_p": 0.7, "presence_penalty": 0.5},
    {"temperature": 1.5, "seed": 4, "min_p": 0.05, "logprobs": 2},
]


def test_a_seeded_request_gives_the_same_alone_and_among_others(mla, serve):
    asked = [request(str(n), PROMPTS[n + 1], max_tokens=20, **kind) for n, kind in enumerate(SAMPLED)]
    alone = {}
    for one in asked:
        alone |= serve(engine(mla), [one])
    for settings in (
        {"max_num_batched_tokens": 11},
        {"speculation": "mtp", "num_speculative_tokens": 2},
        {"pages": 9},
    ):
        others = [request(f"other {n}", PROMPTS[n], temperature=1.0) for n in range(4)]
        together = serve(engine(mla, **settings), [*others, *asked])
        for name, (completion,) in alone.items():
            assert together[name][0].token_ids == completion.token_ids


def test_unseeded_requests_differ(mla, serve):
    asked = [request(str(n), [5], temperature=1.0, max_tokens=30) for n in range(5)]
    assert len({tuple(out[0].token_ids) for out in serve(engine(mla), asked).values()}) == 5


def test_completion_k_of_n_is_seed_plus_k(mla, serve):
    prompt = PROMPTS[4]
    serving = engine(mla)
    together = serve(serving, [request("n", prompt, n=3, temperature=1.0, seed=10)])["n"]
    assert [completion.index for completion in together] == [0, 1, 2]
    for k, completion in enumerate(together):
        (single,) = serve(engine(mla), [request("one", prompt, temperature=1.0, seed=10 + k)])["one"]
        assert completion.token_ids == single.token_ids
    known = len(prompt) - 1
    assert serving.counters.cached_tokens == 2 * known, "the prompt of n completions is computed once"


def test_hits_and_misses_are_exact_per_request_and_tenants_do_not_meet(gqa):
    serving, prompt, seen = engine(gqa), list(range(80)), []
    for name, salt in (("first", ""), ("again", ""), ("tenant", "x"), ("tenant again", "x")):
        serving.add_request(request(name, prompt, salt=salt))
        while serving.has_unfinished():
            seen += [(o.request_id, o.num_cached_tokens) for o in serving.step() if o.finished]
    assert seen == [("first", 0), ("again", 64), ("tenant", 0), ("tenant again", 64)]
    assert (serving.counters.prompt_tokens, serving.counters.cached_tokens) == (320, 128)


def test_new_weights_are_used_at_once_and_share_nothing(naive, gqa, serve):
    model = initialize(Transformer(gqa.config), torch.Generator().manual_seed(1))
    serving, prompt = engine(model), PROMPTS[4]
    serving.add_request(request("running", prompt))
    serving.step()
    initialize(model, torch.Generator().manual_seed(2))
    serving.weights_changed()
    done = serve(serving, [request("later", prompt)])
    first = naive(gqa, prompt, 1)
    assert list(done["later"][0].token_ids) == naive(model, prompt, 25)
    assert list(done["running"][0].token_ids) == first + naive(model, prompt + first, 24)


def test_abort_frees_pages_at_once_and_is_reported(gqa):
    serving = engine(gqa)
    for name in "ab":
        serving.add_request(request(name, PROMPTS[2], n=2))
    serving.step()
    held = serving.counters.pages_used
    serving.abort("a")
    serving.abort("a")
    serving.abort("nobody")
    assert serving.counters.pages_used < held
    outputs = {output.request_id: output for output in serving.step()}
    assert outputs["a"].finished
    assert {c.finish_reason for c in outputs["a"].outputs} == {"abort"}
    assert not outputs["b"].finished
    serving.abort("b")
    assert serving.counters.pages_used == 0
    assert [output.request_id for output in serving.step()] == ["b"]
    assert not serving.has_unfinished()
    assert serving.step() == []
    assert serving.counters.aborted == 2


def test_a_request_may_take_the_name_of_a_finished_one_only(gqa, serve):
    serving = engine(gqa)
    serving.add_request(request("a", [1]))
    with pytest.raises(ConfigError, match="still in use"):
        serving.add_request(request("a", [2]))
    serve(serving, [])
    serve(serving, [request("a", [2])])


def test_a_request_that_fails_fails_alone(gqa, naive, serve):
    model = initialize(
        Transformer(replace(gqa.config, tie_word_embeddings=False)), torch.Generator().manual_seed(1)
    )
    model.model.embed_tokens.weight.data[251] = float("nan")
    serving = engine(model, speculation="prompt_lookup")
    asked = [request("good", PROMPTS[2]), request("bad", [5, 251, 6]), request("other", PROMPTS[4])]
    done = serve(serving, asked)
    assert done["bad"][0].finish_reason == "error"
    assert "not finite" in done["bad"][0].stop_reason
    for name, prompt in (("good", PROMPTS[2]), ("other", PROMPTS[4])):
        assert list(done[name][0].token_ids) == naive(model, prompt, 25)
    assert (serving.counters.failed, serving.counters.finished) == (1, 2)


@pytest.mark.parametrize(
    ("prompt", "params", "words"),
    [
        ([], {}, "has 0 tokens"),
        ([1] * 256, {}, "takes 1 to 255"),
        ([256], {}, "the prompt holds token id 256"),
        ([-1], {}, "the prompt holds token id -1"),
        ([1.0], {}, "token id 1.0"),
        ([True], {}, "token id True"),
        ([1], {"logit_bias": {256: 1.0}}, "logit_bias holds token id 256"),
        ([1], {"stop_token_ids": [300]}, "stop_token_ids holds"),
        (
            *([1], {"structured_outputs": StructuredOutputsParams(regex="a", after_token_id=999)}),
            "after_token_id holds token id 999",
        ),
        ([1], {"structured_outputs": StructuredOutputsParams(regex="a")}, "need an engine with a tokenizer"),
        ([1], {"stop": ["x"]}, "need an engine with a tokenizer"),
    ],
)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(gqa, prompt, params, words):
    serving = engine(gqa)
    with pytest.raises(ConfigError, match=words):
        serving.add_request(request("a", prompt, **params))
    assert not serving.has_unfinished()
    assert serving.counters.requests == 0


def test_the_context_ends_a_completion(gqa, serve):
    serving = engine(gqa, max_model_len=50)
    done = serve(serving, [request("a", PROMPTS[2], max_tokens=None), request("b", [1], max_tokens=1000)])
    assert len(done["a"][0].token_ids) == 50 - 33
    assert (len(done["b"][0].token_ids), done["b"][0].finish_reason) == (49, "length")


def test_the_end_token_ends_a_completion(gqa, naive):
    prompt = PROMPTS[2]
    tokens = naive(gqa, prompt, 25)
    model = Transformer(replace(gqa.config, eos_token_id=(255, tokens[10])))
    model.load_state_dict(gqa.state_dict())
    serving = engine(model)
    serving.add_request(request("a", prompt, ignore_eos=False))
    while serving.has_unfinished():
        outputs = serving.step()
    assert list(outputs[0].outputs[0].token_ids) == tokens[: tokens.index(tokens[10]) + 1]
    assert outputs[0].outputs[0].finish_reason == "stop"


@pytest.mark.parametrize("kind", ["cumulative", "delta", "final_only"])
def test_what_each_step_reports(gqa, naive, kind):
    serving, seen = engine(gqa), []
    serving.add_request(request("a", PROMPTS[1], max_tokens=6, output_kind=kind))
    while serving.has_unfinished():
        seen += [output.outputs[0].token_ids for output in serving.step()]
    tokens = naive(gqa, PROMPTS[1], 6)
    expected = {
        "cumulative": [tokens[: n + 1] for n in range(6)],
        "delta": [[token] for token in tokens],
        "final_only": [tokens],
    }
    assert seen == expected[kind]


def test_times_and_drafts_are_reported(gqa):
    serving = engine(gqa, speculation="prompt_lookup", num_speculative_tokens=3)
    serving.add_request(request("a", [1, 2, 3] * 10, max_tokens=40))
    while serving.has_unfinished():
        outputs = serving.step()
    metrics = outputs[0].metrics
    assert metrics.arrival_s <= metrics.first_token_s <= metrics.last_token_s
    assert metrics.drafted_tokens == serving.counters.drafted_tokens >= metrics.accepted_tokens
    assert metrics.accepted_tokens == serving.counters.accepted_tokens


def test_outputs_of_a_stream_come_by_the_clock_and_lose_nothing(gqa):
    """The first at once, the last at once, and between them one in each interval, of which few can begin."""
    outputs = []
    for interval_s in (0.0, 60.0):
        served = engine(gqa, stream_interval_s=interval_s)
        served.add_request(request("a", PROMPTS[1], max_tokens=9, output_kind="delta"))
        steps = []
        while served.has_unfinished():
            steps += [output.outputs[0].token_ids for output in served.step()]
        outputs.append(steps)
    assert [len(tokens) for tokens in outputs[0]] == [1] * 9
    assert len(outputs[1]) <= 3
    assert len(outputs[1][0]) == 1
    assert [token for tokens in outputs[1] for token in tokens] == [token for (token,) in outputs[0]]


def test_an_aborted_stream_is_reported_between_two_outputs(gqa):
    served = engine(gqa, stream_interval_s=60.0)
    served.add_request(request("a", PROMPTS[1], output_kind="delta"))
    for _ in range(3):
        served.step()
    served.abort("a")
    (last,) = served.step()
    assert last.finished
    assert len(last.outputs[0].token_ids) <= 2
    assert not served.has_unfinished()
