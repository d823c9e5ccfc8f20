"""Reading of Hugging Face tensors by rows for an export, from a checkpoint or a model in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Protocol

import torch

from shoestring.errors import CheckpointError
from shoestring.model.hf import fp8
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.names import stored_views
from shoestring.model.hf.safetensors_file import TensorInfo, read_into
from shoestring.model.hf.weights import DTYPES
from shoestring.model.transformer import Transformer


class Rows(Protocol):
    """Tensors by Hugging Face name that can be read by rows; a vector has one element per row."""

    def shape(self, name: str) -> tuple[int, ...] | None: ...

    def read(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows `first` to `last` (without `last`) as float32 (rows, columns) on the CPU."""
        ...


class ModelRows:
    """Tensors of a model in memory."""

    def __init__(self, model: Transformer) -> None:
        self._views = stored_views(model)

    def shape(self, name: str) -> tuple[int, ...] | None:
        view = self._views.get(name)
        return None if view is None else tuple(view.shape)

    def read(self, name: str, first: int, last: int) -> torch.Tensor:
        view = self._views[name].detach()
        rows = view[:, None] if view.ndim == 1 else view
        return rows[first:last].to("cpu", torch.float32)


class CheckpointRows:
    """The tensors of a checkpoint; FP8 weights are dequantized on the way. Use `checkpoint_rows`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tensors, self._block = checkpoint.tensors, checkpoint.fp8_block_size
        self._files: dict[Path, FileIO] = {}

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def shape(self, name: str) -> tuple[int, ...] | None:
        info = self._tensors.get(name)
        return None if info is None else info.shape

    def read(self, name: str, first: int, last: int) -> torch.Tensor:
        info = self._tensors[name]
        if info.dtype not in DTYPES:
            raise CheckpointError(f"{info} is {info.dtype}; weights must be one of {', '.join(DTYPES)}")
        if info.dtype == "F8_E4M3":
            return self._read_fp8(info, first, last)
        return self._raw(info, first, last).float()

    def _raw(self, info: TensorInfo, first: int, last: int) -> torch.Tensor:
        columns = info.shape[1] if len(info.shape) == 2 else 1
        result = torch.empty(last - first, columns, dtype=DTYPES[info.dtype])
        if info.path not in self._files:
            self._files[info.path] = info.path.open("rb", buffering=0)
        position = info.start + first * columns * result.element_size()
        read_into(self._files[info.path], result.view(-1).view(torch.uint8).numpy().data, position, info)
        return result

    def _read_fp8(self, info: TensorInfo, first: int, last: int) -> torch.Tensor:
        """Rows of float8 values, each multiplied by the scale of its block."""
        scale = self._tensors.get(info.name + fp8.SCALE_SUFFIX)
        block = self._block
        if (
            block is None
            or scale is None
            or len(info.shape) != 2
            or scale.dtype != "F32"
            or scale.shape != fp8.scale_shape(info.shape, block)
        ):
            raise CheckpointError(f"{info} is FP8 without scales that fit; download the weights again")
        top = first // block[0]
        scales = self._raw(scale, top, (last - 1) // block[0] + 1)
        values = self._raw(info, first, last).float()
        row_scales = scales[torch.arange(first, last) // block[0] - top]
        return values * row_scales.repeat_interleave(block[1], dim=1)[:, : info.shape[1]]


@contextmanager
def checkpoint_rows(checkpoint: Checkpoint) -> Iterator[CheckpointRows]:
    """A checkpoint's tensors; its files are open inside the block. CheckpointError for damaged ones."""
    rows = CheckpointRows(checkpoint)
    try:
        yield rows
    finally:
        rows.close()
