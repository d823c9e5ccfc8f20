"""The sampler: each row by its own parameters, bit for bit the same alone and among others."""

import math

import pytest
import torch

from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.sampler import Sampler
from shoestring.engine.scheduler import Batch, ScheduledSequence
from shoestring.engine.sequence import Sequence

W = 50
EOS = 3


def row(prompt=(1, 2), output=(), drafts=(), **params) -> ScheduledSequence:
    """A decoding sequence with this output so far."""
    params = SamplingParams(**{"temperature": 0, "max_tokens": 100, **params})
    request = Request(request_id="r", prompt_token_ids=prompt, sampling_params=params)
    sequence = Sequence.start(request, 0, 200)
    sequence.token_ids += output
    sequence.num_computed_tokens = len(sequence.token_ids) - 1
    return ScheduledSequence.next(sequence, 1, tuple(drafts))


def random_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, W, generator=torch.Generator().manual_seed(seed)) * 3


def sample(sampler: Sampler, logits: torch.Tensor, *items: ScheduledSequence) -> list:
    got = sampler.sample(logits.clone(), Batch(items))
    return [got[item.sequence] for item in items]


KINDS = [
    {},
    {"temperature": 1.0, "seed": 7, "token_logprobs": True},
    {"token_logprobs": True},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 0.7, "seed": 2, "top_k": 5},
    {"temperature": 1.3, "seed": 3, "top_p": 0.8},
    {"temperature": 1.0, "seed": 4, "min_p": 0.1},
    {"temperature": 1.0, "seed": 5, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    {"presence_penalty": 1.5, "frequency_penalty": 0.5},
    {"logit_bias": {7: 50.0}},
    {"min_tokens": 5, "logprobs": 3},
    {"temperature": 2.0, "seed": 6, "logprobs": 0},
]


def test_a_row_alone_is_the_row_among_others():
    logits = random_logits(len(KINDS))
    items = [row(output=(4, 4, 9), **kind) for kind in KINDS]
    together = sample(Sampler(eos_ids=frozenset([EOS])), logits, *items)
    with torch.inference_mode():
        natively = sample(Sampler(eos_ids=frozenset([EOS])), logits, *items)
    for n, item in enumerate(items):
        (alone,) = sample(Sampler(eos_ids=frozenset([EOS])), logits[n : n + 1], item)
        assert alone == together[n]
        with torch.inference_mode():
            (alone,) = sample(Sampler(eos_ids=frozenset([EOS])), logits[n : n + 1], item)
        assert alone == natively[n]
        assert alone.ids == together[n].ids


def test_greedy_takes_the_lowest_of_equals():
    logits = torch.zeros(1, W)
    logits[0, [9, 5, 30]] = 1.0
    assert sample(Sampler(), logits, row())[0].ids == [5]


@pytest.mark.parametrize("kind", [k for k in KINDS if k.get("temperature")])
def test_tiny_numbers_of_choices_become_greedy(kind):
    logits = random_logits(1)
    best = int(logits.argmax())
    for more in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        if "repetition_penalty" not in kind:
            assert sample(Sampler(), logits, row(**{**kind, **more}))[0].ids == [best]


def test_seeds_choose_by_the_distribution():
    """Chi-square over 4,000 seeds, at about one in a million."""
    logits = random_logits(1, seed=8)
    count, width = 4000, 10
    logits[0, width:] = -30
    items = [row(temperature=1.5, seed=seed) for seed in range(count)]
    ids = [got.ids[0] for got in sample(Sampler(), logits.expand(count, W), *items)]
    wanted = (logits[0] / 1.5).softmax(-1)[:width] * count
    counts = torch.tensor(ids).bincount(minlength=W)[:width]
    statistic = float(((counts - wanted) ** 2 / wanted).sum())
    assert statistic < 45, f"chi-square {statistic:.0f} with 9 degrees of freedom"


def test_every_token_of_a_request_has_its_own_number():
    logits = torch.zeros(1, W)
    ids = [sample(Sampler(), logits, row(output=[0] * n, temperature=1, seed=3))[0].ids[0] for n in range(60)]
    assert len(set(ids)) > 25
    again = [
        sample(Sampler(), logits, row(output=[1] * n, temperature=1, seed=3))[0].ids[0] for n in range(60)
    ]
    assert again == ids


@pytest.mark.parametrize("kind", [{}, {"temperature": 1.0, "seed": 11}, KINDS[7]])
def test_drafts_are_kept_while_they_are_what_would_be_drawn(kind):
    """Whatever is drafted, the tokens are those of one row at a time."""
    logits = random_logits(4, seed=2)
    sampler, output, wanted = Sampler(), [8, 9], []
    for n in range(4):
        (got,) = sample(Sampler(), logits[n : n + 1], row(output=output + wanted, **kind))
        wanted += got.ids
    for right in range(4):
        drafts = wanted[:3]
        if right < 3:
            drafts[right] = (drafts[right] + 1) % W
        (got,) = sample(sampler, logits, row(output=output, drafts=drafts, **kind))
        assert got.ids == wanted[: right + 1]


def test_min_tokens_holds_back_every_end():
    logits = torch.zeros(1, W)
    logits[0, [EOS, 9]] = 10.0
    logits[0, 20] = 5.0
    sampler = Sampler(eos_ids=frozenset([EOS]))
    common = {"min_tokens": 2, "stop_token_ids": [9]}
    assert sample(sampler, logits, row(output=(1,), **common))[0].ids == [20]
    assert sample(sampler, logits, row(output=(1, 1), **common))[0].ids == [EOS]
    assert sample(sampler, logits, row(ignore_eos=True, min_tokens=2))[0].ids == [EOS]


def test_min_tokens_counts_drafts():
    logits = torch.zeros(3, W)
    logits[:, EOS] = 10.0
    logits[:, 20] = 5.0
    item = row(drafts=(20, 20), min_tokens=2)
    assert sample(Sampler(eos_ids=frozenset([EOS])), logits, item)[0].ids == [20, 20, EOS]


def test_penalties_follow_the_output():
    logits = torch.zeros(1, W)
    sampler, item = Sampler(), row(output=(), frequency_penalty=1.0)
    seen = []
    for _ in range(2 * W):
        (got,) = sample(sampler, logits, item)
        seen += got.ids
        item.sequence.token_ids += got.ids
    assert seen == [*range(W), *range(W)], "with equal logits the penalty makes it count"


def test_repetition_looks_at_the_prompt_and_presence_does_not():
    logits = torch.ones(1, W)
    logits[0, 1] = 1.5
    assert sample(Sampler(), logits, row(prompt=(1,), repetition_penalty=2.0))[0].ids == [0]
    assert sample(Sampler(), logits, row(prompt=(1,), presence_penalty=2.0))[0].ids == [1]


def test_logprobs_are_of_the_unprocessed_logits():
    logits = random_logits(1, seed=5)
    logp = logits.log_softmax(-1)[0]
    (got,) = sample(Sampler(token_text=str), logits, row(logit_bias={17: 100.0}, logprobs=3))
    assert got.ids == [17]
    (entry,) = got.logprobs
    order = logp.argsort(descending=True).tolist()
    assert set(entry) == {17, *order[:3]}
    assert next(iter(entry)) == 17
    for token_id, value in entry.items():
        assert value.logprob == pytest.approx(float(logp[token_id]))
        assert value.rank == order.index(token_id) + 1
        assert value.decoded_token == str(token_id)


def test_logprobs_of_accepted_drafts_only():
    logits = random_logits(3, seed=6)
    best = logits.argmax(-1).tolist()
    items = [row(drafts=(best[0], best[1] + 1), logprobs=0), row(logprobs=2), row()]
    got = sample(Sampler(), torch.cat((logits, logits[:2])), *items)
    assert [len(one.token_logprobs) for one in got] == [2, 1, 0]
    assert [len(one.logprobs) for one in got] == [2, 1, 0]
    expected = logits.log_softmax(-1)[range(2), best[:2]]
    assert got[0].token_logprobs == pytest.approx(expected.tolist())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [{}, {"temperature": 1.0, "seed": 1, "top_k": 4, "top_p": 0.5}])
def test_a_row_without_finite_logits_fails_alone(bad, kind):
    logits = random_logits(3)
    logits[1, 4] = bad
    good, failed, other = sample(Sampler(), logits, row(**kind), row(**kind), row(**kind))
    assert "not finite" in failed.error
    assert failed.ids == []
    assert (good.error, other.error) == (None, None)
    assert good == sample(Sampler(), logits[:1], row(**kind))[0]


def test_a_bad_row_behind_a_draft_only_ends_the_draft():
    logits = random_logits(2)
    best = int(logits[0].argmax())
    logits[1] = math.nan
    (got,) = sample(Sampler(), logits, row(drafts=(best,)))
    assert got.ids == [best]
    assert got.error is None


def test_a_prompt_piece_samples_nothing():
    item = row()
    item.sequence.num_computed_tokens = 0
    assert Sampler().sample(torch.empty(0, W), Batch((ScheduledSequence.next(item.sequence, 1),))) == {}
