"""Import of a GGUF file as a Hugging Face folder: config.json, safetensors, tokenizer, chat template."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch

from shoestring.durable import new_folder, require_space
from shoestring.errors import CheckpointError, ConfigError, StorageError
from shoestring.model.config import ModelConfig
from shoestring.model.gguf.config_reader import read_config
from shoestring.model.gguf.file import GGUFFile, GGUFTensor, read_rows
from shoestring.model.gguf.names import ROPE_FACTORS, TensorLayout, layout
from shoestring.model.gguf.quants import CHUNK_ELEMENTS, dequantize
from shoestring.model.gguf.sampling import save_sampling
from shoestring.model.gguf.tokenizer import read_tokenizer, save_tokenizer
from shoestring.model.gguf.vocabulary.templates import save_templates
from shoestring.model.hf.config import save_config, to_hf
from shoestring.model.hf.safetensors_file import Entry
from shoestring.model.hf.shards import write_shards
from shoestring.model.hf.weights import DTYPE_NAMES, DTYPES, MAX_SHARD_BYTES

MAX_MTP = 64
BIAS = "e_score_correction_bias"
"""Name of the tensor that stays float32 whatever the weights are: it is a sum of many small steps."""
IMPORT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class _Part:
    """Location of a Hugging Face tensor, or of some of its rows, in the file."""

    layout: TensorLayout
    tensor: GGUFTensor
    position: int
    """Index among the tensors that are stacked there."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Hugging Face tensor to write, and the parts that it is made of."""

    entry: Entry
    parts: list[_Part]


def import_gguf(
    path: str | Path,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    weights_only: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> ModelConfig:
    """Write the model in the GGUF file `path` as the new folder `folder`, in Hugging Face layout.

    Weights are dequantized to `dtype` (float32, bfloat16 or float16). All names, shapes and sizes are checked
    before the first byte is written, and the folder appears only when it is complete. Returns its
    configuration. With `weights_only` no tokenizer is read or written: the model takes token ids.

    Raises CheckpointError for a file that is damaged, split or not supported,
    TokenizerError for its tokenizer, MissingDependencyError for K-quants without the `gguf` library,
    StorageError.
    """
    if dtype not in IMPORT_DTYPES:
        raise ConfigError(f"weights can be imported as {', '.join(map(str, IMPORT_DTYPES))}, not as {dtype}")
    file, folder = GGUFFile.open(path), Path(folder)
    if file.metadata.get("split.count", 0) not in (0, 1):
        raise CheckpointError(f"{path} is one part of a split model; join them with llama-gguf-split --merge")
    config = read_config(file)
    try:
        to_hf(config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    targets = _targets(file, config, DTYPE_NAMES[dtype])
    tokenizer = None if weights_only else read_tokenizer(file)
    if tokenizer is not None:
        tokenizer.check_fits(config.vocab_size)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} exists and is not an empty folder; choose another or remove it first")
    needed_bytes = sum(target.entry.num_bytes for target in targets)
    require_space(folder, needed_bytes)
    with new_folder(folder, needed_bytes=needed_bytes) as temporary:
        save_config(config, temporary, dtype=str(dtype).removeprefix("torch."))
        if tokenizer is not None:
            save_tokenizer(file, tokenizer, temporary)
            save_templates(file, temporary)
        save_sampling(file, config, temporary)
        _write_shards(file, targets, temporary, max_shard_bytes)
    return config


def _targets(file: GGUFFile, config: ModelConfig, dtype: str) -> list[_Target]:
    """All tensors to write. Raises CheckpointError for one that is missing, wrong or unknown in the file."""
    old_kv_b = "blk.0.attn_kv_b.weight" in file.tensors
    targets: dict[str, _Target] = {}
    names = {ROPE_FACTORS}
    for item in layout(config, split_kv_b=not old_kv_b):
        tensor = file.tensors.get(item.name)
        if tensor is None:
            raise CheckpointError(f"{file.path} lacks the tensor {item.name}, which its metadata describes")
        if tensor.shape != item.shape:
            raise CheckpointError(
                f"{tensor} has shape {list(tensor.shape)} and its metadata asks for {list(item.shape)}; "
                "convert the model again"
            )
        names.add(item.name)
        for position, name in enumerate(item.sources):
            stored_dtype = "F32" if name.endswith(BIAS) else dtype
            new = _Target(Entry(name=name, dtype=stored_dtype, shape=item.source_shape), [])
            targets.setdefault(name, new).parts.append(_Part(item, tensor, position))
    first_mtp = config.num_hidden_layers
    mtp_prefixes = tuple(f"blk.{index}." for index in range(first_mtp, first_mtp + MAX_MTP))
    for name in file.tensors.keys() - names:
        if not name.startswith(mtp_prefixes):
            raise CheckpointError(f"{file.tensors[name]} is not part of a model of this architecture")
    return list(targets.values())


def _write_shards(file: GGUFFile, targets: list[_Target], folder: Path, max_shard_bytes: int) -> None:
    by_name = {target.entry.name: target for target in targets}
    with file.path.open("rb", buffering=0) as raw:
        write_shards(
            folder,
            [target.entry for target in targets],
            lambda entry: _byte_chunks(raw, by_name[entry.name]),
            max_shard_bytes,
        )


def _byte_chunks(raw: FileIO, target: _Target) -> Iterator[memoryview]:
    """Bytes of one Hugging Face tensor in its dtype."""
    for part in _tensor_chunks(raw, target):
        flat = part.to(DTYPES[target.entry.dtype]).contiguous().view(-1)
        yield flat.view(torch.uint8).numpy().data


def _tensor_chunks(raw: FileIO, target: _Target) -> Iterator[torch.Tensor]:
    """Elements of one Hugging Face tensor in order, float32."""
    first = target.parts[0]
    if first.layout.heads is not None:
        yield from _join_heads(raw, target)
        return
    rows = math.prod(target.entry.shape[:-1])
    step = max(CHUNK_ELEMENTS // target.entry.shape[-1], 1)
    for start in range(0, rows, step):
        base = first.position * rows
        yield _read(raw, first.tensor, base + start, base + min(start + step, rows))


def _join_heads(raw: FileIO, target: _Target) -> Iterator[torch.Tensor]:
    """Put the rows of each part back where they came from: the inverse of the reordering in an export."""
    shape = target.entry.shape
    heads = target.parts[0].layout.heads
    assert heads is not None
    columns = shape[1] if len(shape) == 2 else 1
    groups, step = shape[0] // heads.size, max(CHUNK_ELEMENTS // (heads.size * columns), 1)
    for start in range(0, groups, step):
        count = min(step, groups - start)
        rows = torch.empty(count, heads.size, columns)
        for part in target.parts:
            assert part.layout.heads is not None
            index = list(part.layout.heads.index)
            if len(shape) == 1:  # a bias is stored as one row
                block = _read(raw, part.tensor, 0, 1).view(groups, len(index), 1)[start : start + count]
            else:
                lines = columns if part.layout.heads.transpose else len(index)
                block = _read(raw, part.tensor, start * lines, (start + count) * lines).unflatten(
                    0, (count, lines)
                )
            rows[:, index] = block.transpose(1, 2) if part.layout.heads.transpose else block
        yield rows


def _read(raw: FileIO, tensor: GGUFTensor, first: int, last: int) -> torch.Tensor:
    return dequantize(read_rows(raw, tensor, first, last), tensor.type)
