"""Weights of whole layers in C: a tensor without memory is refused by name before C++ reads address 0."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from shoestring.kernels.layer_weights import ExpertWeights, MatrixWeights, NormWeights, RouterWeights
from shoestring.kernels.packed import Packed
from tests.kernels.test_cpu_call import Wrapped

X = torch.ones(4, 4)
PACKED = Packed(8, 16, Wrapped(torch.zeros(1, 1, 1, 544, dtype=torch.uint8)))
ROUTER = RouterWeights(X, None, 4, 1, 1, 1, softmax=True, normalize=True, scaling=1.0)


@pytest.mark.parametrize(
    "weights",
    [
        lambda: NormWeights(Wrapped(torch.ones(4)), 1e-6),
        lambda: MatrixWeights(PACKED),
        lambda: MatrixWeights(replace(PACKED, blocks=torch.zeros(1, 8)), Wrapped(torch.ones(16))),
        lambda: ExpertWeights(PACKED, PACKED),
        lambda: replace(ROUTER, weight_ED=Wrapped(X)),
    ],
    ids=["norm", "matrix", "bias", "experts", "router"],
)
def test_a_tensor_without_memory_is_refused_by_name(weights: Callable[[], NormWeights]) -> None:
    with pytest.raises(TypeError, match="a Wrapped on cpu has no memory"):
        _ = weights().struct
