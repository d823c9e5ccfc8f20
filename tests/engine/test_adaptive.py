"""Adaptive speculation: it drafts where drafting is faster by its clock, and rests where it is not."""

import pytest
import torch

from shoestring.engine.adaptive import AdaptiveSpeculation, Speculation
from shoestring.engine.request import Request
from shoestring.engine.scheduler import Batch, ScheduledSequence
from shoestring.engine.sequence import Sequence


def simulate(adaptive, steps, *, plain_s, drafted_s, tokens, size=4):
    """Steps of a machine with these costs; which of them drafted."""
    drafted, history = False, []
    for _ in range(steps):
        history.append(drafted)
        wanted = adaptive.depth(size, 2)
        adaptive.record(
            size,
            round(size * (tokens if drafted else 1)),
            model_s=drafted_s if drafted else plain_s,
            draft_s=0.0,
            has_drafts=drafted,
        )
        drafted = bool(wanted)
    return history


@pytest.mark.parametrize(("tokens", "drafted_s"), [(1.75, 1.2), (2.5, 2.0)])
def test_what_pays_goes_on(tokens, drafted_s):
    adaptive = AdaptiveSpeculation()
    history = simulate(adaptive, 3000, plain_s=1.0, drafted_s=drafted_s, tokens=tokens)
    assert sum(history) / len(history) > 0.9
    assert adaptive.gain(4) == pytest.approx(tokens / drafted_s, rel=0.01)


@pytest.mark.parametrize(("tokens", "drafted_s"), [(1.0, 1.1), (1.75, 2.0)])
def test_what_does_not_pay_is_left_more_and_more(tokens, drafted_s):
    history = simulate(AdaptiveSpeculation(), 6000, plain_s=1.0, drafted_s=drafted_s, tokens=tokens)
    assert 0 < sum(history[:150]) < 30
    assert sum(history) / len(history) < 0.04
    assert any(history[1000:]), "it tries again"


def test_a_change_is_noticed():
    adaptive = AdaptiveSpeculation()
    simulate(adaptive, 500, plain_s=1.0, drafted_s=2.0, tokens=1.0)
    history = simulate(adaptive, 3000, plain_s=1.0, drafted_s=1.0, tokens=2.0)
    assert sum(history[-1000:]) > 900


def test_sizes_are_measured_apart():
    adaptive = AdaptiveSpeculation()
    simulate(adaptive, 200, plain_s=1.0, drafted_s=2.0, tokens=1.0, size=16)
    assert adaptive.depth(16, 2) is None
    assert adaptive.depth(1, 2) == 0
    simulate(adaptive, 200, plain_s=1.0, drafted_s=1.0, tokens=2.0, size=1)
    assert adaptive.depth(1, 2) == 2
    assert adaptive.depth(16, 2) is None


class Spy:
    def __init__(self):
        self.depths = []

    def draft(self, batch, hidden_ND, depth):
        self.depths.append(depth)
        return {item.sequence: [1, 2, 3][:depth] for item in batch.items}


def batch():
    sequence = Sequence.start(Request(request_id="r", prompt_token_ids=[1, 2]), 0, 10)
    sequence.num_computed_tokens = 1
    return Batch((ScheduledSequence.next(sequence, 1),))


def test_drafts_are_handed_on_as_far_as_they_are_allowed():
    speculation, one = Speculation(Spy(), num_speculative_tokens=3, adaptive=None), batch()
    speculation.prepare(one, torch.empty(0), lambda sequence, drafts: drafts[:2], tokens=1, model_s=0.1)
    assert one.items[0].sequence.drafts == [1, 2]


def test_while_it_rests_the_drafter_is_not_asked():
    spy = Spy()
    speculation = Speculation(spy, num_speculative_tokens=3, adaptive=AdaptiveSpeculation())
    drafts = []
    for _ in range(100):
        one = batch()
        if drafts:
            one = Batch((ScheduledSequence.next(one.items[0].sequence, 1, tuple(drafts)),))
        speculation.prepare(one, torch.empty(0), lambda _, d: d, tokens=1, model_s=5.0 if drafts else 1.0)
        drafts = one.items[0].sequence.drafts
    assert spy.depths[:8] == [0] * 8, "at first it only keeps up, and the clock measures without drafts"
    assert spy.depths[8:] == [3] * (len(spy.depths) - 8)
    assert 24 <= len(spy.depths) - 8 < 40
