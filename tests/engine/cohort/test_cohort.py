"""Sequences that decode together: every output is the one of batches, to the bit and in the same step."""

from dataclasses import replace

import pytest
import torch

from shoestring.engine.cohort.cohort import RECORD_STEPS, Cohort
from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.kernels import packed
from shoestring.model.memory import page_bytes
from shoestring.model.packed.copy import PackedCopy
from shoestring.tokenizer.bpe import Tokenizer

TOKENIZER = Tokenizer.train(["0123456789+-*/ say what it is"], 300)


def requests(**options):
    """Greedy and random requests of several lengths, with stop tokens, seeds and logprobs of their own."""
    made = []
    for n in range(6):
        own = {
            "n": 1 + n % 3,
            "temperature": (0.0, 1.0, 0.7)[n % 3],
            "seed": n,
            "max_tokens": 20 + 17 * n,
            "stop_token_ids": [5 + n, 17],
            "ignore_eos": n % 2 == 0,
            "token_logprobs": n != 4,
            "output_kind": "final_only",
        }
        params = SamplingParams(**own | options)
        prompt = [*range(3 + n, 30 + 2 * n)]
        made.append(Request(request_id=f"{n}", prompt_token_ids=prompt, sampling_params=params))
    return made


def engine(model, tokenizer=None, *, pages=100, **settings):
    num_bytes = pages * page_bytes(model.config, model.config.num_hidden_layers, 4)
    own = {"speculation": "off", "kv_cache_memory_bytes": num_bytes, "enable_return_routed_experts": True}
    return Engine(model, tokenizer, EngineSettings(**own | settings))


def plain(output):
    """All of an output but its times."""
    experts = [completion.routed_experts for completion in output.outputs]
    outputs = [replace(completion, routed_experts=None) for completion in output.outputs]
    return output.request_id, outputs, [e if e is None else e.tolist() for e in experts]


def totals(engine):
    counters = engine.counters
    counters.busy_s = 0.0
    return counters


def steps(engine, added, act=lambda engine, step: None):
    """The outputs and counters after each step; `act` is called before it."""
    engine.add_requests(added)
    seen = []
    while engine.has_unfinished():
        act(engine, len(seen))
        seen.append(([plain(output) for output in engine.step()], totals(engine)))
    assert engine.counters.pages_used == 0
    return seen


@pytest.fixture
def both(monkeypatch):
    """Run something with cohorts and without; returns what both give, and the steps of cohorts."""

    def run(make):
        counted = []
        step = Cohort.step
        monkeypatch.setattr(Cohort, "step", lambda self: (counted.append(len(self)), step(self))[1])
        together = make()
        monkeypatch.setattr(Cohort, "form", lambda *_: None)
        alone = make()
        monkeypatch.undo()
        return together, alone, counted

    return run


@pytest.mark.parametrize("is_packed", [False, True])
def test_every_step_gives_what_a_batch_gives(model, both, is_packed):
    if is_packed and not packed.available():
        pytest.skip("no kernels of packed weights on this CPU")
    of = PackedCopy(model).model if is_packed else model
    together, alone, counted = both(lambda: steps(engine(of), requests()))
    assert together == alone
    assert sum(counted) > 100
    assert together[-1][1].finished == 6


def test_text_is_read_at_its_end(mla, both):
    together, alone, counted = both(lambda: steps(engine(mla, TOKENIZER), requests()))
    assert together == alone
    assert counted
    assert all(completion.text for outputs, _ in together for _, done, _ in outputs for completion in done)


@pytest.mark.parametrize("pages", [12, 7])
def test_where_pages_are_short_some_are_computed_twice(gqa, both, pages):
    wanted = dict_of(steps(engine(gqa), requests()))
    together, alone, counted = both(lambda: steps(engine(gqa, pages=pages, max_num_seqs=6), requests()))
    assert together == alone
    assert counted
    assert dict_of(together) == wanted
    assert together[-1][1].preemptions > 0


def dict_of(seen):
    return {name: [c.token_ids for c in done] for outputs, _ in seen for name, done, _ in outputs}


def test_it_goes_on_after_its_record_is_full(gqa, both):
    long = requests(n=1, max_tokens=RECORD_STEPS + 40, ignore_eos=True, stop_token_ids=[])[:2]
    together, alone, counted = both(lambda: steps(engine(gqa), long))
    assert together == alone
    assert len(counted) > RECORD_STEPS


def test_requests_come_and_go_meanwhile(mla, both):
    def act(serving, step):
        if step == 9:
            serving.abort("3")
        if step == 14:
            params = SamplingParams(temperature=0.0)
            serving.add_request(Request(request_id="late", prompt_token_ids=[7, 8], sampling_params=params))
        if step == 20:
            serving.weights_changed()

    together, alone, counted = both(lambda: steps(engine(mla), requests(), act))
    assert together == alone
    assert counted
    (aborted,) = [done for outputs, _ in together for name, done, _ in outputs if name == "3"]
    assert {completion.finish_reason for completion in aborted} == {"abort"}
    assert any(len(completion.token_ids) > 5 for completion in aborted)


def test_more_requests_than_rows(gqa, both):
    together, alone, counted = both(lambda: steps(engine(gqa, max_num_seqs=4), requests()))
    assert together == alone
    assert counted


def test_logits_that_are_not_finite_end_a_sequence_alone(gqa, both, monkeypatch):
    def run():
        serving = engine(gqa)
        logits = serving.runner.logits

        def broken(hidden_ND):
            made = logits(hidden_ND)
            if serving.counters.steps == 12:
                made[0] = torch.nan
            return made

        serving.runner.logits = broken
        return steps(serving, requests())

    together, alone, counted = both(run)
    assert together == alone
    assert counted
    assert together[-1][1].failed == 1


@pytest.mark.parametrize(
    "options",
    [
        {"output_kind": "delta"},
        {"output_kind": "cumulative"},
        {"logprobs": 2},
        {"top_k": 3},
        {"min_tokens": 3},
        {"presence_penalty": 0.5},
        {"logit_bias": {3: 1.0}},
    ],
)
def test_sequences_that_need_more_decode_in_batches(gqa, both, options):
    _, _, counted = both(lambda: steps(engine(gqa), requests(**options)))
    assert not counted


def test_stop_strings_and_drafts_decode_in_batches(mla, both):
    _, _, counted = both(lambda: steps(engine(mla, TOKENIZER), requests(stop=["zz"])))
    assert not counted
    _, _, counted = both(lambda: steps(engine(mla, speculation="prompt_lookup"), requests()))
    assert not counted
