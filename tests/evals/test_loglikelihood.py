"""Log-probabilities of continuations against one forward pass for each."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import ConfigError
from shoestring.evals.loglikelihood import score_continuations

IDS = st.lists(st.integers(0, 269), min_size=1, max_size=12)


@torch.no_grad()
def alone(model, context, continuation):
    """The sum of log-probabilities and whether each is the likeliest, without batch or padding."""
    logits = model(torch.tensor([[*context, *continuation]]))[0, len(context) - 1 : -1].double()
    rows = list(zip(logits.log_softmax(-1), continuation, strict=True))
    return sum(float(row[i]) for row, i in rows), all(int(row.argmax()) == i for row, i in rows)


@settings(max_examples=12)
@given(
    pairs=st.lists(st.tuples(IDS, st.one_of(IDS, st.just([]))), max_size=8),
    batch=st.sampled_from([1, 24, 999]),
)
def test_batches_give_what_each_pair_gives_alone(model, pairs, batch):
    found = score_continuations(model, pairs, max_length=64, batch_tokens=batch)
    expected = [alone(model, *pair) for pair in pairs]
    assert [score.logprob for score in found] == pytest.approx([logp for logp, _ in expected], abs=1e-4)
    assert [score.is_greedy for score in found] == [greedy for _, greedy in expected]


def test_a_greedy_continuation_is_known(model):
    ids = [5, 6, 7]
    for _ in range(4):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert score_continuations(model, [(ids[:3], ids[3:])], max_length=64)[0].is_greedy
    other = [*ids[3:6], (ids[6] + 1) % 270]
    assert not score_continuations(model, [(ids[:3], other)], max_length=64)[0].is_greedy


def test_the_context_is_cut_from_the_left(model):
    long = list(range(40))
    (cut,) = score_continuations(model, [(long, [7, 8])], max_length=10)
    assert cut.logprob == pytest.approx(alone(model, long[-9:], [7, 8])[0], abs=1e-4)
    (full,) = score_continuations(model, [([1], long[:10])], max_length=10)
    assert full.logprob == pytest.approx(alone(model, [1], long[:10])[0], abs=1e-4)
    with pytest.raises(ConfigError, match="11 tokens is longer than the context of 10"):
        score_continuations(model, [([1], long[:11])], max_length=10)
