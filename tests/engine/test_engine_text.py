"""The engine with a tokenizer: text, stop strings, and constrained output together with everything else."""

import json
import re
import string
from dataclasses import replace

import pytest
import torch

from shoestring.engine.adaptive import Speculation
from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.request import Request, SamplingParams, StructuredOutputsParams
from shoestring.engine.speculate import room
from shoestring.errors import ConfigError
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK_END

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ab", "cd"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([string.printable * 3, '{"name": "ab", "old": true} false cd'], 320)


@pytest.fixture(scope="module")
def spoken(mla, tokenizer) -> Transformer:
    """A model whose vocabulary is the tokenizer's, and its end token the tokenizer's too."""
    config = replace(mla.config, vocab_size=tokenizer.vocab_size + 5, eos_token_id=tokenizer.eos_id)
    return initialize(Transformer(config), torch.Generator().manual_seed(3))


def engine(model, tokenizer, **settings) -> Engine:
    settings = {"speculation": "off", "adaptive_speculation": False, "max_num_seqs": 8, **settings}
    return Engine(model, tokenizer, EngineSettings(kv_cache_memory_bytes=3_000_000, **settings))


def request(name, tokenizer, structured=None, **params) -> Request:
    wanted = None if structured is None else StructuredOutputsParams(**structured)
    params = SamplingParams(**{"temperature": 0, "max_tokens": 60, "structured_outputs": wanted, **params})
    return Request(request_id=name, prompt_token_ids=tokenizer.encode("say: " + name), sampling_params=params)


def test_text_and_stop_strings(spoken, tokenizer, serve):
    done = serve(engine(spoken, tokenizer), [request("a", tokenizer, ignore_eos=True)])
    whole = done["a"][0]
    assert whole.text == tokenizer.decode(whole.token_ids, skip_special=True)
    stop = whole.text[12:15]
    done = serve(engine(spoken, tokenizer), [request("a", tokenizer, ignore_eos=True, stop=stop)])
    assert done["a"][0].text == whole.text[: whole.text.index(stop)]
    assert (done["a"][0].finish_reason, done["a"][0].stop_reason) == ("stop", stop)


@pytest.mark.parametrize("speculation", ["off", "mtp", "prompt_lookup"])
def test_constrained_output_beside_free_output(spoken, tokenizer, serve, speculation):
    """Greedy and sampled; drafts that the grammar refuses and drafts that it takes change nothing."""
    free = [request(f"free {n}", tokenizer, max_tokens=30) for n in range(2)]
    bound = [
        request("json", tokenizer, {"json": SCHEMA}),
        *(request(f"{n}", tokenizer, {"json": SCHEMA}, temperature=1.0, seed=n) for n in range(3)),
        request("regex", tokenizer, {"regex": "(ab|cd){4}e"}, temperature=1.0, seed=9),
        request("choice", tokenizer, {"choice": ["yes", "no"]}, n=2, temperature=1.0, seed=1),
    ]
    serving = engine(spoken, tokenizer, speculation=speculation, num_speculative_tokens=3)
    done = serve(serving, [*free, *bound])
    alone, single = {}, engine(spoken, tokenizer)
    for one in [*free, *bound]:
        alone |= serve(single, [one])
    for name, outputs in done.items():
        assert [out.token_ids for out in outputs] == [out.token_ids for out in alone[name]]
        if not name.startswith("free"):
            assert {out.finish_reason for out in outputs} == {"stop"}
    for name in ("json", "0", "1", "2"):
        value = json.loads(done[name][0].text)
        assert value["name"] in ("ab", "cd")
        assert isinstance(value["old"], bool)
    assert re.fullmatch("(ab|cd){4}e", done["regex"][0].text)
    assert all(out.text in ("yes", "no") for out in done["choice"])
    assert not serving.sampler.matchers


def test_a_grammar_may_begin_behind_the_thinking(spoken, tokenizer, serve):
    end = tokenizer.special_id(THINK_END)
    structured = {"choice": ["yes", "no"], "after_token_id": end}
    one = request(
        "a", tokenizer, structured, logit_bias={end: 100.0}, skip_special_tokens=False, min_tokens=2
    )
    (completion,) = serve(engine(spoken, tokenizer), [one])["a"]
    free, answer = completion.text.split(THINK_END)
    assert free == ""
    assert answer.removesuffix("<｜end▁of▁sentence｜>") in ("yes", "no")


class Oracle:
    """Drafts of the tokens that the request has without drafts, and end tokens behind them."""

    def __init__(self, token_ids, eos_id):
        self.token_ids, self.eos_id = token_ids, eos_id

    def draft(self, batch, hidden_ND, depth):
        drafts = {}
        for item in batch.items:
            count = room(item.sequence, depth)
            start = item.sequence.num_output_tokens
            drafts[item.sequence] = [*self.token_ids[start:], *[self.eos_id] * depth][:count]
        return drafts


END_CASES = [
    ({"regex": "[ab]{1,9}"}, {}),
    ({"regex": "[ab]{4}"}, {}),  # nothing may follow the last letter
    ({"choice": ["aaaa", "aaaabbbbcc"]}, {}),
    ({"json": SCHEMA}, {}),
    ({"grammar": 'start: "a" start | "b"'}, {}),
    ({"regex": "[ab]{1,9}"}, {"ignore_eos": True}),
    ({"regex": "[ab]{1,9}"}, {"min_tokens": 5}),
    ({"regex": "[ab]{1,9}"}, {"include_stop_str_in_output": True, "skip_special_tokens": False}),
    ({"regex": "[ab]{3,9}"}, {"stop": ["ba", "aaa"]}),
    ({"regex": "[ab]{1,9}"}, {"logprobs": 2}),
]


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(("structured", "params"), END_CASES)
def test_an_end_token_that_was_drafted_ends_the_text_once(
    spoken, tokenizer, serve, structured, params, thinking
):
    """Also where the grammar ends the text, and rows behind the end were accepted."""
    bias = dict.fromkeys([*tokenizer.encode("ab"), tokenizer.eos_id], 9.0)
    if thinking:
        end = tokenizer.special_id(THINK_END)
        bias, structured = {**bias, end: 9.0}, {**structured, "after_token_id": end}
    one = request("a", tokenizer, structured, logit_bias=bias, **params)
    serving = engine(spoken, tokenizer)
    (alone,) = serve(serving, [one])["a"]
    for depth in (1, 2, 3, 7):
        drafter = Oracle(alone.token_ids, tokenizer.eos_id)
        serving.speculation = Speculation(drafter, num_speculative_tokens=depth, adaptive=None)
        (completion,) = serve(serving, [one])["a"]
        assert completion.finish_reason == alone.finish_reason != "error"
        assert completion.token_ids == alone.token_ids
        assert completion.text == alone.text
        assert len(completion.logprobs or ()) == len(alone.logprobs or ())


def test_a_grammar_that_cannot_be_compiled_is_refused(spoken, tokenizer):
    serving = engine(spoken, tokenizer)
    with pytest.raises(ConfigError):
        serving.add_request(request("a", tokenizer, {"regex": "("}))
    assert not serving.has_unfinished()


class Broken:
    """A matcher that fails in its second token."""

    is_stopped = False

    def __init__(self, mask):
        self._mask, self.consumed = mask, 0

    def mask(self):
        if self.consumed:
            raise ConfigError("too complex")
        return self._mask

    def consume(self, token_id):
        self.consumed += 1
        return True

    def rollback(self, count):
        self.consumed -= count


def test_a_grammar_that_fails_on_the_way_fails_alone(spoken, tokenizer, serve):
    serving = engine(spoken, tokenizer)
    good = request("good", tokenizer, {"choice": ["yes", "no"]})
    serving.add_request(request("bad", tokenizer, {"choice": ["yes", "no"]}))
    (sequence,) = serving.scheduler.waiting
    serving.sampler.matchers[sequence] = Broken(serving.sampler.matchers[sequence].mask())
    done = serve(serving, [good])
    assert done["good"][0].text in ("yes", "no")
    assert (done["bad"][0].finish_reason, done["bad"][0].stop_reason) == ("error", "too complex")
    assert len(done["bad"][0].token_ids) == 1


def test_logprobs_have_text(spoken, tokenizer, serve):
    (completion,) = serve(engine(spoken, tokenizer), [request("a", tokenizer, logprobs=2, max_tokens=4)])["a"]
    for token_id, entry in zip(completion.token_ids, completion.logprobs, strict=True):
        assert entry[token_id].decoded_token == tokenizer.token_bytes(token_id).decode(errors="replace")
        assert entry[token_id].rank == 1
    total = sum(entry[t].logprob for t, entry in zip(completion.token_ids, completion.logprobs, strict=True))
    assert completion.cumulative_logprob == pytest.approx(total)
