"""Drafters: what they guess, and that drafting leaves the distribution of the answers as it is."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from shoestring.engine.adaptive import Speculation
from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.scheduler import Batch, ScheduledSequence
from shoestring.engine.sequence import Sequence
from shoestring.engine.speculate import PromptLookup, room
from shoestring.model.transformer import Transformer, initialize


def decoding(tokens, max_tokens=50, prompt=1) -> ScheduledSequence:
    """A running sequence whose newest token is still to be computed."""
    request = Request(request_id="r", prompt_token_ids=tokens[:prompt])
    sequence = Sequence.start(request, 0, prompt + max_tokens)
    sequence.token_ids, sequence.num_computed_tokens, sequence.table_row = list(tokens), len(tokens) - 1, 0
    return ScheduledSequence.next(sequence, 1)


def look_up(drafter, item, depth):
    return drafter.draft(Batch((item,)), torch.empty(0), depth).get(item.sequence, [])


@pytest.mark.parametrize(
    ("tokens", "drafts"),
    [
        ([1, 2, 3, 4, 9, 1, 2], [3, 4, 9]),
        ([1, 2, 3, 8, 2, 3, 7, 2, 3], [7, 2, 3]),  # the newest occurrence
        ([5, 2, 3, 8, 1, 2, 3, 9, 5, 2, 3], [8, 1, 2]),  # but the longer run first
        ([1, 2, 3, 4], []),
        ([4, 4, 4, 4], [4]),
        ([1], []),
    ],
)
def test_prompt_lookup_proposes_what_followed(tokens, drafts):
    assert look_up(PromptLookup(), decoding(tokens), 3) == drafts


def test_prompt_lookup_goes_on_from_where_it_was():
    drafter, item = PromptLookup(), decoding([1, 2, 3])
    for new in [7, 1, 2, 3, 7, 1, 2]:
        whole = look_up(PromptLookup(), decoding(item.sequence.token_ids), 2)
        assert look_up(drafter, item, 2) == whole
        item.sequence.token_ids.append(new)
        item.sequence.num_computed_tokens += 1
    assert look_up(drafter, item, 2) == [3, 7]


def test_room():
    item = decoding([1, 2, 3], max_tokens=4)
    assert room(item.sequence, 9) == 1, "five tokens at most, three are there, one more is drawn anyway"
    item.sequence.num_computed_tokens = 0
    assert room(item.sequence, 9) == 0, "the prompt comes first"


@pytest.fixture(scope="module")
def copier(mla) -> Transformer:
    """A model whose MTP module sees exactly what the main layers make of the next position.

    Every block adds nothing, so the main model's logits depend on the newest token only; the module passes on
    the embedding of the next token, whose logits are then the same.
    """
    model = initialize(
        Transformer(replace(mla.config, tie_word_embeddings=True)), torch.Generator().manual_seed(5)
    )
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            for name, parameter in block.mlp.named_parameters():
                if "down_proj" in name:
                    parameter.zero_()
        size = model.config.hidden_size
        model.model.layers[-1].eh_proj.weight.copy_(torch.eye(size, 2 * size))
        model.model.embed_tokens.weight.copy_(
            torch.randn(256, size, generator=torch.Generator().manual_seed(6))
        )
    untied = Transformer(replace(mla.config, tie_word_embeddings=False))
    state = model.state_dict()
    state["lm_head.weight"] = torch.randn(256, size, generator=torch.Generator().manual_seed(7))
    untied.load_state_dict(state)
    return untied


def run(model, asked, **settings):
    serving = Engine(
        model, None, EngineSettings(kv_cache_memory_bytes=2_000_000, adaptive_speculation=False, **settings)
    )
    for request in asked:
        serving.add_request(request)
    done = {}
    while serving.has_unfinished():
        done |= {o.request_id: o.outputs[0].token_ids for o in serving.step() if o.finished}
    return done, serving.counters


def asked(count=6, **params):
    params = SamplingParams(**{"temperature": 0, "max_tokens": 24, "ignore_eos": True, **params})
    prompts = [[(n * 31 + i * i) % 256 for i in range(3 + 20 * n)] for n in range(count)]
    return [
        Request(request_id=str(n), prompt_token_ids=p, sampling_params=params) for n, p in enumerate(prompts)
    ]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_module_that_knows_the_answer_is_always_accepted(copier, depth):
    """Through pieces of prompts, many sequences, recursion and page borders."""
    plain, _ = run(copier, asked(), speculation="off")
    drafted, counters = run(
        copier,
        asked(),
        speculation="mtp",
        num_speculative_tokens=depth,
        max_num_seqs=4,
        max_num_batched_tokens=19,
    )
    assert drafted == plain
    assert counters.acceptance == 1
    assert counters.drafted_tokens > 60
    assert counters.steps < 100


def test_mtp_drafts_are_those_of_one_whole_pass(mla):
    """The module's cached entries, written in pieces beside the main layers', are those of a full pass."""
    prompt = [(i * 37) % 256 for i in range(70)]
    serving = Engine(
        mla,
        None,
        EngineSettings(
            kv_cache_memory_bytes=2_000_000, speculation="mtp", max_num_batched_tokens=64, max_num_seqs=3
        ),
    )
    serving.speculation.adaptive = None
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    serving.add_request(Request(request_id="a", prompt_token_ids=prompt, sampling_params=params))
    compared = 0
    while serving.has_unfinished():
        serving.step()
        for sequence in serving.scheduler.running:
            if sequence.drafts:
                ids = torch.tensor([sequence.token_ids])
                with torch.inference_mode():
                    hidden = mla.features(ids[:, :-1]).hidden_BTD
                    wanted = mla.logits(mla.mtp_features(hidden, ids[:, 1:]).hidden_BTD)[0, -1].argmax()
                assert sequence.drafts == [int(wanted)]
                compared += 1
    assert compared > 10


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 1.0, "seed": 4}, {"temperature": 0.8, "seed": 1, "top_p": 0.6}]
)
@pytest.mark.parametrize("kind", ["mtp", "prompt_lookup"])
def test_drafts_change_no_token(mla, kind, params):
    plain, _ = run(mla, asked(4, **params), speculation="off")
    drafted, counters = run(mla, asked(4, **params), speculation=kind, num_speculative_tokens=3)
    assert drafted == plain
    assert counters.accepted_tokens <= counters.drafted_tokens


class Stubborn:
    """Always drafts the same two tokens."""

    def draft(self, batch, hidden_ND, depth):
        return {item.sequence: [11, 12][: room(item.sequence, depth)] for item in batch.items}


def test_the_distribution_of_sampled_answers_is_unchanged(gqa):
    """Four tokens, 2,000 fresh seeds with drafts that are often wrong: chi-square against the exact one.

    Only two tokens are likely at all, 11 and 12, so there are 16 answers; one in a million fails.
    """
    bias = {token: -100.0 for token in range(256) if token not in (11, 12)}
    count, prompt = 2000, [1, 2, 3]
    params = SamplingParams(
        temperature=1.0, max_tokens=4, n=100, logit_bias=bias, ignore_eos=True, output_kind="final_only"
    )
    serving = Engine(gqa, None, EngineSettings(max_num_seqs=64, speculation="off"))
    serving.speculation = Speculation(Stubborn(), num_speculative_tokens=2, adaptive=None)
    for n in range(count // 100):
        serving.add_request(Request(request_id=str(n), prompt_token_ids=prompt, sampling_params=params))
    counts = torch.zeros(2, 2, 2, 2)
    while serving.has_unfinished():
        for output in serving.step():
            for completion in output.outputs:
                counts[tuple(token - 11 for token in completion.token_ids)] += 1
    assert counts.sum() == count
    wanted = torch.ones(2, 2, 2, 2)
    with torch.inference_mode():
        for a, b, c in product(range(2), repeat=3):
            logits = gqa(torch.tensor([[*prompt, 11 + a, 11 + b, 11 + c]]))[0, -4:, 11:13].softmax(-1)
            wanted[a, b, c] = logits[0, a] * logits[1, b] * logits[2, c] * logits[3] * count
    statistic = float(((counts - wanted) ** 2 / wanted).sum())
    acceptance = serving.counters.acceptance
    print(f"chi-square {statistic:.1f} with 15 degrees of freedom, acceptance {acceptance:.2f}")
    assert wanted.min() > 4
    assert 0.05 < acceptance < 0.95
    assert statistic < 57
