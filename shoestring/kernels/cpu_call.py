"""Call the compiled CPU kernels: tensors pass as pointers, numbers as int64 or float."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from shoestring.kernels.cpu_build import library


def call(name: str, *arguments: Tensor | int | float | None) -> int:
    """Call a C function of the library with contiguous tensors, or with others and their strides.

    A tensor is passed as its address, None as a null pointer. Returns the function's int64, which has no
    meaning if the function returns nothing.
    """
    values = [pointer(a) if isinstance(a, Tensor) else a for a in arguments]
    return _function(name, tuple(map(type, values)))(*values)


def pointer(tensor: Tensor) -> int:
    """The address of a tensor's values. Raises TypeError for a tensor that has none, such as a DTensor."""
    address = tensor.data_ptr()
    if not address and tensor.numel():
        raise TypeError(
            f"a {type(tensor).__name__} on {tensor.device} has no memory that a kernel can read; "
            "pass a plain tensor, such as to_local() of a DTensor"
        )
    return address


@cache
def integers(name: str, count: int) -> Callable[..., int]:
    """A C function that takes `count` integers and addresses, for calls that are made many times a step."""
    return _function(name, (int,) * count)


C_TYPES: dict[type, Any] = {int: ctypes.c_int64, float: ctypes.c_float, type(None): ctypes.c_void_p}


@cache
def _function(name: str, types: tuple[type, ...]) -> Callable[..., int]:
    """The C function for arguments of these Python types; pointers are 64 bits wide, as int64 is."""
    kernels = library()
    assert kernels is not None
    function = kernels[name]  # a new object each time, unlike getattr
    function.restype = ctypes.c_int64
    function.argtypes = [C_TYPES[kind] for kind in types]
    return function
