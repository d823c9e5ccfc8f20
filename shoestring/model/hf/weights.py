"""Streaming of weights from safetensors files into a model and back, with no second copy in memory."""

import logging
from collections.abc import Callable, Iterator
from io import FileIO
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn

from shoestring.device import host_memory
from shoestring.durable import require_space, storage_errors
from shoestring.errors import CheckpointError, StorageError
from shoestring.model.adapter import LowRank
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.fp8 import SCALE_SUFFIX, dequantize, scale_shape
from shoestring.model.hf.names import Sink, is_redundant, mtp_copies, sinks, stored_views
from shoestring.model.hf.peft import updates_of
from shoestring.model.hf.quantization import BlockSize
from shoestring.model.hf.safetensors_file import Entry, TensorInfo, read_into
from shoestring.model.hf.shards import SINGLE_NAME, write_shards

log = logging.getLogger(__name__)

MAX_SHARD_BYTES = 5_000_000_000
CHUNK_ELEMENTS = 1024 * 1024
"""Elements that are converted at a time: the only memory that loading and saving need beside the model."""

REWARD_HEAD = "score.weight"
ALIGNMENT = 64
"""Bytes: a line of the cache."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def load_weights(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Read a checkpoint into `model`, which has a `config: ModelConfig`.

    Parameters on the meta device are created on `device` in `dtype` (None: as they were declared); buffers
    keep their own dtype, so V3's balance bias stays float32. Tensors that exist are overwritten in place.
    FP8 weights are dequantized block by block; a packed model quantizes each matrix while it is read.
    The checkpoint's adapters change each matrix on its way. Nothing is read before every name and shape was
    checked. `progress` is called with the bytes read so far and the bytes in all.
    Raises CheckpointError naming file and tensor, UnsafeFileError for a pickle.
    """
    tensors, block = checkpoint.tensors, checkpoint.fp8_block_size
    updates = [updates_of(checkpoint.model_config, folder) for folder in checkpoint.adapters]
    _check(model, tensors, block, checkpoint.folder)
    _materialize(model, dtype, torch.device(device))
    targets = _targets(model)
    shards: dict[Path, list[TensorInfo]] = {}
    for name in targets:
        shards.setdefault(tensors[name].path, []).append(tensors[name])
    bytes_read, total_bytes = 0, sum(tensors[name].end - tensors[name].start for name in targets)
    with torch.no_grad():
        for path, infos in shards.items():
            log.debug("reading %d tensors from %s", len(infos), path)
            with path.open("rb", buffering=0) as file:
                for info in sorted(infos, key=lambda info: info.start):
                    target = targets[info.name]
                    for changes in reversed(updates):  # the first adapter's comes first
                        if info.name in changes:
                            target = _Updated(target, changes[info.name])
                    if info.dtype == "F8_E4M3" and block is not None:
                        _read_fp8(file, info, tensors[info.name + SCALE_SUFFIX], target, block)
                    else:
                        _read_tensor(file, info, target)
                    bytes_read += info.end - info.start
                    if progress is not None:
                        progress(bytes_read, total_bytes)


def save_weights(
    model: nn.Module,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write `model` to `folder` under Hugging Face names, in `dtype` (None, and all buffers: as they are).

    One file, or shards of at most `max_shard_bytes` with an index; each appears only when it is complete.
    Raises StorageError for a full disk, an unwritable folder, or one that already holds weights.
    """
    folder = Path(folder)
    with storage_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        if any(path.suffix == ".safetensors" for path in folder.iterdir()):
            raise StorageError(f"{folder} already holds weights; choose another folder or remove it first")
    tensors = _tensors(model)
    entries = _entries(model, tensors, dtype)
    require_space(folder / SINGLE_NAME, sum(entry.num_bytes for entry in entries))
    write_shards(folder, entries, lambda entry: _chunks(tensors[entry.name], entry), max_shard_bytes)


class _Updated:
    """Changes the rows of a matrix by an adapter, on their way into a view of the model, or a sink."""

    def __init__(self, target: torch.Tensor | Sink, update: LowRank) -> None:
        self._target, self._update, self._sum = target, update, update.matrix()
        rows, columns = target.shape
        self.shape = (rows, columns)
        self.rows_at_once = 1 if isinstance(target, torch.Tensor) else target.rows_at_once

    def write(self, first: int, rows: torch.Tensor) -> None:
        rows = self._update.scaled(rows + self._sum[first : first + len(rows)], first)
        if isinstance(self._target, torch.Tensor):
            self._target[first : first + len(rows)].copy_(rows)
        else:
            self._target.write(first, rows)


def _check(model: nn.Module, tensors: dict[str, TensorInfo], block: BlockSize | None, folder: Path) -> None:
    """Refuse a checkpoint whose tensors are not exactly those of the model."""
    views = _targets(model)
    if REWARD_HEAD in tensors and REWARD_HEAD not in views:
        raise CheckpointError(f"{folder} is a reward model: it scores answers and writes none; give its base")
    for name, view in views.items():
        info = tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{folder} lacks the tensor {name}; its config.json and its weights do not belong together"
            )
        if info.shape != tuple(view.shape):
            raise CheckpointError(
                f"{info} has shape {list(info.shape)} and config.json asks for {list(view.shape)}; "
                "use the config.json that belongs to these weights"
            )
        if info.dtype not in DTYPES:
            raise CheckpointError(f"{info} is {info.dtype}; weights must be one of {', '.join(DTYPES)}")
        if info.dtype == "F8_E4M3":
            _check_scale(info, tensors.get(name + SCALE_SUFFIX), block)
    scales = {info.name + SCALE_SUFFIX for info in tensors.values() if info.dtype == "F8_E4M3"}
    for name in sorted(tensors.keys() - views.keys() - scales):
        if not is_redundant(name, model.config):  # type: ignore[arg-type]
            raise CheckpointError(
                f"{tensors[name]} is not part of this model; config.json and weights do not belong together, "
                "or the model has parts this code does not know"
            )


def _check_scale(info: TensorInfo, scale: TensorInfo | None, block: BlockSize | None) -> None:
    if block is None:
        raise CheckpointError(
            f"{info} is FP8 and config.json has no quantization_config; restore the config.json it came with"
        )
    if scale is None:
        raise CheckpointError(
            f"{info} is FP8 without its {info.name}{SCALE_SUFFIX}; download the weights again"
        )
    if len(info.shape) != 2 or scale.dtype != "F32" or scale.shape != scale_shape(info.shape, block):
        raise CheckpointError(
            f"{scale} is {scale.dtype} {list(scale.shape)}, which cannot scale {list(info.shape)} "
            f"in blocks of {list(block)}; use the config.json that belongs to these weights"
        )


def _materialize(model: nn.Module, dtype: torch.dtype | None, device: torch.device) -> None:
    """Create the tensors that are on the meta device; on a CPU they lie side by side in one memory."""
    empty: list[tuple[nn.Module, str, torch.Tensor]] = []
    for module in model.modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        empty += [(module, name, tensor) for name, tensor in tensors if tensor.is_meta]
    dtypes = [dtype or t.dtype if isinstance(t, nn.Parameter) else t.dtype for *_, t in empty]
    sizes = [t.numel() * kind.itemsize for (*_, t), kind in zip(empty, dtypes, strict=True)]
    starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
    memory = host_memory(starts[-1], huge_pages=True) if device.type == "cpu" and empty else None
    for (module, name, old), kind, start in zip(empty, dtypes, starts, strict=False):
        if memory is None:
            data = torch.empty_like(old, dtype=kind, device=device)
        else:
            data = torch.frombuffer(memory, dtype=kind, count=old.numel(), offset=start).view(old.shape)
        if isinstance(old, nn.Parameter):
            module.register_parameter(name, nn.Parameter(data, requires_grad=old.requires_grad))
        else:
            module.register_buffer(name, data)


def _targets(model: nn.Module) -> dict[str, torch.Tensor | Sink]:
    """The target of every stored tensor by its name on disk: a view of the model, or a sink that packs it."""
    packing = sinks(model)
    if not packing:
        return dict(stored_views(model))
    packed = {f"{prefix}." for prefix, module in model.named_modules() if hasattr(module, "sinks")}
    plain = {
        name: view
        for name, view in stored_views(model).items()
        if not name.startswith(tuple(packed)) or name.endswith(".bias")
    }
    if model.config.tie_word_embeddings:  # type: ignore[union-attr]
        packing.pop("lm_head.weight", None)  # quantize.py makes it from the embedding
    return plain | packing


def _read_tensor(file: FileIO, info: TensorInfo, target: torch.Tensor | Sink) -> None:
    """Fill `target`, a contiguous view of the model or a sink, from the file."""
    if not isinstance(target, torch.Tensor):
        rows, columns = info.shape
        step = target.rows_at_once * max(1, CHUNK_ELEMENTS // (target.rows_at_once * columns))
        for first in range(0, rows, step):
            count = min(step, rows - first)
            part = _read_range(file, info, first * columns, count * columns)
            target.write(first, part.float().view(count, columns))
        return
    flat = target.view(-1)
    if target.device.type == "cpu" and target.dtype == DTYPES[info.dtype]:
        read_into(file, _bytes(flat), info.start, info)  # no copy at all
        return
    for first in range(0, flat.numel(), CHUNK_ELEMENTS):
        part = flat[first : first + CHUNK_ELEMENTS]
        part.copy_(_read_range(file, info, first, part.numel()))


def _read_fp8(
    file: FileIO, info: TensorInfo, scale_info: TensorInfo, target: torch.Tensor | Sink, block: BlockSize
) -> None:
    if not isinstance(target, torch.Tensor):
        whole = torch.empty(info.shape)
        _read_fp8(file, info, scale_info, whole, block)
        target.write(0, whole)
        return
    rows, columns = info.shape
    with scale_info.path.open("rb", buffering=0) as scale_file:  # it may lie in another shard
        scales = _read_range(scale_file, scale_info, 0, scale_info.shape[0] * scale_info.shape[1])
    for index, scale in enumerate(scales.view(scale_info.shape)):
        first, last = index * block[0], min((index + 1) * block[0], rows)
        part = _read_range(file, info, first * columns, (last - first) * columns).view(-1, columns)
        target[first:last].copy_(dequantize(part, scale, block[1]))


def _read_range(file: FileIO, info: TensorInfo, first: int, count: int) -> torch.Tensor:
    """`count` elements from element `first`, in the dtype of the file."""
    result = torch.empty(count, dtype=DTYPES[info.dtype])
    read_into(file, _bytes(result), info.start + first * result.element_size(), info)
    return result


def _bytes(flat: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return flat.detach().view(torch.uint8).numpy().data


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors to write, in the model's order, MTP's copies of embedding and head last."""
    if sinks(model):  # packed: only packed/quantize.py reads these, stacked as they are in memory
        return model.state_dict()
    views = stored_views(model)
    return views | {copy: views[main] for copy, main in mtp_copies(model.config).items()}  # type: ignore[arg-type]


def _entries(model: nn.Module, tensors: dict[str, torch.Tensor], dtype: torch.dtype | None) -> list[Entry]:
    """The entry of each tensor; it is converted to the entry's dtype only while it is written."""
    buffers = {name for name, _ in model.named_buffers()}
    entries = []
    for name, tensor in tensors.items():
        file_dtype = tensor.dtype if dtype is None or name in buffers else dtype
        if file_dtype not in DTYPE_NAMES:
            raise CheckpointError(f"{name} is {file_dtype}; weights are saved as one of {', '.join(DTYPES)}")
        entries.append(Entry(name=name, dtype=DTYPE_NAMES[file_dtype], shape=tuple(tensor.shape)))
    return entries


def _chunks(tensor: torch.Tensor, entry: Entry) -> Iterator[memoryview]:
    flat = tensor.detach().reshape(-1)
    for first in range(0, flat.numel(), CHUNK_ELEMENTS):
        yield _bytes(flat[first : first + CHUNK_ELEMENTS].to("cpu", DTYPES[entry.dtype]))
