"""PyTorch's own counter of FLOPs over plain operators, with attention over the causal pairs alone."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop

from shoestring.kernels import ops, reference, reference_layers

IN_PLACE = {torch.ops.aten.addmm_: lambda _, a, b, **__: mm_flop(a, b)}
"""A product that PyTorch's counter does not know under this name."""


def _triangle(q_BTHD, k_BTGD, v_BTGV, scale, segments_S2=None):
    """Causal attention query by query: no product of a query with a key that it does not see."""
    if segments_S2 is not None:
        return _segments(q_BTHD, k_BTGD, v_BTGV, scale, segments_S2)
    group = q_BTHD.shape[2] // k_BTGD.shape[2]
    k_BTHD, v_BTHV = (x.repeat_interleave(group, dim=2) for x in (k_BTGD, v_BTGV))
    outputs = []
    for t in range(q_BTHD.shape[1]):
        outputs.append(_attend(q_BTHD[:, t], k_BTHD[:, : t + 1], v_BTHV[:, : t + 1], scale))
    return torch.stack(outputs, dim=1)


def _attend(q_BHD, k_BSHD, v_BSHV, scale):
    probability_BHS = (torch.einsum("bhd,bshd->bhs", q_BHD, k_BSHD) * scale).softmax(-1)
    return torch.einsum("bhs,bshv->bhv", probability_BHS, v_BSHV)


def _segments(q_BTHD, k_BTGD, v_BTGV, scale, segments_S2):
    """Segments that go on from a prompt: each query is computed once, and sees the prompt and its own."""
    group = q_BTHD.shape[2] // k_BTGD.shape[2]
    k_BTHD, v_BTHV = (x.repeat_interleave(group, dim=2) for x in (k_BTGD, v_BTGV))
    outputs, start, prompt = [], 0, []
    for count, goes_on in segments_S2.tolist():
        own = list(range(start, start + count))
        for number, t in enumerate(own):
            seen = [*(prompt if goes_on else ()), *own[: number + 1]]
            outputs.append(_attend(q_BTHD[:, t], k_BTHD[:, seen], v_BTHV[:, seen], scale))
        start, prompt = start + count, prompt if goes_on else own
    return torch.stack(outputs, dim=1)


@pytest.fixture
def counted(monkeypatch) -> Callable[[Callable[[], object]], int]:
    """`counted(f)`: the FLOPs of the matrix products that f computes, by PyTorch's counter."""
    real = reference.expanded_attention
    operations = {"causal_attention": _triangle, "expanded_attention": real}
    monkeypatch.setattr(reference, "causal_attention", _triangle)

    def pick(op, *_):
        if op in operations:
            return operations[op]
        return getattr(reference if hasattr(reference, op) else reference_layers, op)

    monkeypatch.setattr(ops, "pick", pick)

    def count(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            work()
        return counter.get_total_flops()

    return count
