"""Call the compiled CPU kernels: tensors pass as pointers, numbers as int64 or float."""

import ctypes
from typing import Any

from torch import Tensor

from shoestring.kernels.cpu_build import library


def call(name: str, *arguments: Tensor | int | float | None) -> int:
    """Call a C function of the library with tensors that are contiguous (or whose strides are passed too).

    Returns its int64, which means nothing when the function returns nothing.
    """
    function = getattr(library(), name)
    function.restype = ctypes.c_int64
    return function(*(_c_value(argument) for argument in arguments))


def _c_value(value: Tensor | int | float | None) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None) if value is None else ctypes.c_int64(value)
