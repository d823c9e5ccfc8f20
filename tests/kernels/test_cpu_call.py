"""Calls into C++: a tensor without memory of its own is refused, since its address would end the process."""

import pytest
import torch

from shoestring.kernels.cpu_call import call, pointer


class Wrapped(torch.Tensor):
    """A subclass such as DTensor and AsyncCollectiveTensor: the values are in another tensor."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Wrapped":
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, operation, *_):
        raise NotImplementedError(operation)


def test_a_tensor_without_memory_is_refused_by_name() -> None:
    x, y = torch.ones(3, 4), torch.empty(3, 4)
    for tensor, name in ((Wrapped(x), "Wrapped"), (x.to("meta"), "meta")):
        with pytest.raises(TypeError, match=name):
            call("rms_norm_forward", 3, 4, 1e-6, tensor, torch.ones(4), y, torch.empty(3))


def test_other_tensors_have_an_address() -> None:
    assert pointer(torch.ones(2)) != 0
    assert pointer(torch.nn.Parameter(torch.ones(2))) != 0
    assert pointer(torch.empty(0, 4)) == 0  # nothing is read through it
