"""Scripts on the pattern of vLLM's documentation: only their imports and models differ from vLLM's."""

import runpy
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def run(caplog, capsys):
    """Run a script; returns its variables."""
    return lambda name: runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")


def test_basic(run, caplog):
    outputs = run("basic")["outputs"]
    assert len(outputs) == 4
    assert all(isinstance(output.outputs[0].token_ids, list) for output in outputs)
    notices = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    assert notices == ["LLM: accepted, without effect here: dtype, gpu_memory_utilization"]


def test_chat(run):
    script = run("chat")
    assert len(script["outputs"] + script["many"]) == 4
    assert "You solve puzzles." in script["outputs"][0].prompt


def test_sampling(run):
    base, greedy, banned, allowed = run("sampling")["outputs"]
    assert len(base.outputs) == 2
    assert len(greedy.outputs) == 1
    assert not {"a", "the"} & set(banned.outputs[0].text.split())
    assert 20 not in banned.outputs[0].token_ids
    assert set(allowed.outputs[0].token_ids) <= {20, 21, 22}


def test_structured_outputs(run):
    script = run("structured_outputs")
    assert script["results"]["choice"] in ("Positive", "Negative")
    assert script["results"]["regex"].endswith(".com")
    assert script["car"]["brand"] in ("A", "B")


def test_guided_decoding(run):
    script = run("guided_decoding")
    assert script["results"][0] in ("Positive", "Negative")
    assert script["results"][1].endswith(".com")
    assert script["car"]["brand"] in ("A", "B")


def test_prefix_caching(run):
    script = run("prefix_caching")
    assert all(output.num_cached_tokens > 0 for output in script["cached"])
    assert script["was_reset"]
    assert script["again"][0].num_cached_tokens == 0
    assert script["same"]


def test_batch(run):
    script = run("batch")
    assert len(script["outputs"]) == len(script["texts"]) == 21
    ids = script["outputs"][7].prompt_token_ids, script["outputs"][20].prompt_token_ids
    assert ids[0] == ids[1]  # text and its ids are the same prompt


def test_logprobs(run):
    outputs = run("logprobs")["outputs"]
    assert [len(entry) for entry in outputs[0].logprobs] == [1] * 4
    assert [len(entry) for entry in outputs[5].logprobs] == [5] * 4
    assert [len(entry) for entry in outputs[30].logprobs] == [30] * 4
    assert len(outputs[-1].logprobs[0]) > 256
    assert sum(2.718281828**e.logprob for e in outputs[-1].logprobs[0].values()) == pytest.approx(1, abs=1e-4)
    assert outputs[0].logprobs[2] == {k: v for k, v in outputs[5].logprobs[2].items() if v.rank == 1}


def test_prompt_logprobs(run):
    script = run("prompt_logprobs")
    assert script["prompt_logprobs"][0] is None
    assert len(script["prompt_logprobs"]) == len(script["token_ids"])
    assert all(1 <= len(entry) <= 2 for entry in script["prompt_logprobs"][1:])
    assert script["outputs"][0].prompt_logprobs == script["outputs"][1].prompt_logprobs
    assert script["perplexity"] > 1


def test_chat_template(run, caplog):
    script = run("chat_template")
    assert script["by_text"].prompt_token_ids == script["ids"] == script["encoded"]
    outputs = [script[name].outputs[0].token_ids for name in ("by_text", "by_ids", "by_chat")]
    assert outputs[0] == outputs[1] == outputs[2]
    assert not [record for record in caplog.records if "spells" in record.getMessage()]


def test_lora(run):
    script = run("lora")
    ids = {name: [o.outputs[0].token_ids for o in script[name]] for name in ("plain", "adapted", "mixed")}
    assert ids["mixed"][:4] == ids["plain"] + ids["adapted"]
    assert ids["plain"][0] != ids["adapted"][0] != ids["mixed"][4]
    assert len(script["chat"]) == 1


def test_metrics(run):
    script = run("metrics")
    assert script["gauges"]["vllm:num_requests_running"] == 0
    generated = sum(len(output.outputs[0].token_ids) for output in script["outputs"])
    assert script["counters"]["vllm:generation_tokens"] == generated
    assert script["counters"]["vllm:request_success"] == 2
    counts = {name: histogram.count for name, histogram in script["histograms"].items()}
    assert counts["vllm:time_to_first_token_seconds"] == counts["vllm:e2e_request_latency_seconds"] == 2
    assert script["histograms"]["vllm:request_generation_tokens"].sum == generated
    for histogram in script["histograms"].values():
        assert list(histogram.buckets.values()) == sorted(histogram.buckets.values())
        assert histogram.buckets["+Inf"] == histogram.count
    (accepted,) = script["vectors"].values()
    assert sum(accepted) == script["counters"]["vllm:spec_decode_num_accepted_tokens"]


def test_beam_search(run):
    outputs = run("beam_search")["outputs"]
    assert [len(output.sequences) for output in outputs] == [3, 3]
    for sequence in (sequence for output in outputs for sequence in output.sequences):
        assert sequence.text
        assert sequence.finish_reason in ("stop", "length")


def test_score(run):
    script = run("score")
    assert all(score < 0 for score in script["scores"])
    assert script["best"] != "a red house"


def test_stop_strings(run):
    script = run("stop_strings")
    assert script["cut"].text == script["whole"].text.partition(script["stop"])[0]
    assert script["cut"].stop_reason == script["stop"]
    assert script["kept"].text == script["cut"].text + script["stop"]


def test_seeds(run):
    script = run("seeds")
    assert script["first"] == script["second"] != script["other"]
    assert script["free"][0] != script["free"][1] != script["free"][2]


def test_tools(run):
    script = run("tools")
    assert '"get_weather"' in script["outputs"][0].prompt
    assert "How many days ahead." in script["prompt"]
    assert script["outputs"][0].prompt == script["prompt"]
    assert "Paris" in script["answers"][0].prompt
