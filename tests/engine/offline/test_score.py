"""Logprobs of prompts and the scores made of them: those of plain computation on all logits."""

import pytest
import torch

from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.llm import LLM
from shoestring.engine.request import Request, SamplingParams
from shoestring.errors import ConfigError

PROMPTS = [[3, 9, 4, 1, 7], [5], list(range(2, 60)), [3, 9, 4, 1, 7] * 9]


@torch.inference_mode()
def logprobs(model, ids):
    """(T, W): each row predicts the token after it."""
    return model(torch.tensor([ids]))[0].log_softmax(-1)


def check(output, model, count):
    ids, entries = output.prompt_token_ids, output.prompt_logprobs
    assert entries[0] is None
    assert len(entries) == len(ids)
    logp_TW = logprobs(model, ids)
    for place, entry in enumerate(entries[1:]):
        expected = logp_TW[place]
        for token_id, value in entry.items():
            assert value.logprob == pytest.approx(float(expected[token_id]), abs=2e-4)
            assert abs(value.rank - 1 - int((expected > expected[token_id]).sum())) <= 1
        top = expected.topk(count).indices.tolist() if count else []
        assert len({ids[place + 1], *top} - set(entry)) <= 1  # two equally likely ones may change places


@pytest.mark.parametrize("tokens", [8, 64])
def test_in_pieces_beside_others_and_with_cached_prefixes(model, tokens):
    engine = Engine(model, None, EngineSettings(max_num_seqs=4, max_num_batched_tokens=tokens))
    llm = LLM.of(engine)
    params = [SamplingParams(max_tokens=3, prompt_logprobs=count, n=2, seed=1) for count in (0, 3, 2, 5)]
    for _ in range(2):  # the second time their pages are cached
        outputs = llm.generate(PROMPTS, params)
        for output, own in zip(outputs, params, strict=True):
            check(output, model, own.prompt_logprobs)
    plain = llm.generate(PROMPTS, [SamplingParams(max_tokens=3, n=2, seed=1)] * 4)
    assert [[c.token_ids for c in o.outputs] for o in plain] == [
        [c.token_ids for c in o.outputs] for o in outputs
    ]
    assert plain[3].num_cached_tokens > 0 == outputs[3].num_cached_tokens
    assert plain[0].prompt_logprobs is None


def test_all_of_the_vocabulary(gqa):
    llm = LLM.of(Engine(gqa, None, EngineSettings(max_num_seqs=1)))
    output = llm.generate([[3, 4, 5]], SamplingParams(max_tokens=1, prompt_logprobs=-1, logprobs=-1))[0]
    assert [len(entry) for entry in output.prompt_logprobs[1:]] == [gqa.config.vocab_size] * 2
    assert sorted(e.rank for e in output.outputs[0].logprobs[0].values())[-1] == gqa.config.vocab_size


def test_preempted_prompts_keep_theirs(mla):
    settings = EngineSettings(max_num_seqs=6, max_num_batched_tokens=16, max_model_len=128)
    engine = Engine(mla, None, settings)
    engine.scheduler.pool.allocate(engine.scheduler.pool.num_pages - 8)  # too few for all at once
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True, prompt_logprobs=1)
    requests = [
        Request(request_id=str(n), prompt_token_ids=[n, *range(3, 40 + n)], sampling_params=params)
        for n in range(6)
    ]
    for request in requests:
        engine.add_request(request)
    outputs = []
    while engine.has_unfinished():
        outputs += [output for output in engine.step() if output.finished]
    assert engine.counters.preemptions > 0
    for output in outputs:
        check(output, mla, 1)


def test_a_score_is_the_sum_over_the_continuation():
    llm = LLM("mini", device="cpu", max_num_seqs=4)
    words, pairs = llm.tokenizer, [("make 24 from 3,8,1", "3*8*1"), ("a", "b c d e f"), ("x", " y")]
    outputs = llm.score([context for context, _ in pairs], [text for _, text in pairs])
    for (context, text), output in zip(pairs, outputs, strict=True):
        first, second = [words.bos_id, *words.encode(context)], words.encode(text)
        logp_TW = logprobs(llm.engine.model, [*first, *second])
        expected = [float(logp_TW[len(first) - 1 + n, token]) for n, token in enumerate(second)]
        assert output.outputs.token_logprobs == pytest.approx(expected, abs=2e-4)
        assert output.outputs.score == pytest.approx(sum(expected), abs=1e-3)
        assert output.prompt_token_ids == [*first, *second]
    one = llm.score(pairs[0][0], [text for _, text in pairs])
    assert one[0].outputs == outputs[0].outputs
    with pytest.raises(ConfigError, match="2 first texts for 1"):
        llm.score(["a", "b"], "c")
    with pytest.raises(ConfigError, match="not empty"):
        llm.score("a", "")
