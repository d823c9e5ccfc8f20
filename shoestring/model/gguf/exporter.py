"""Export of a model as one GGUF file for llama.cpp: weights, configuration, tokenizer and chat template.

Half a million elements are in memory at a time: rows are read, reordered as names.py says, converted and
written. MTP modules are left out, because llama.cpp does not run DeepSeek's.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.config import ModelConfig
from shoestring.model.gguf.config_writer import write_config
from shoestring.model.gguf.k_quants import K_QUANTS, write_k_quants
from shoestring.model.gguf.names import ROPE_FACTORS, HeadRows, TensorLayout, layout
from shoestring.model.gguf.quants import CHUNK_ELEMENTS, quantize
from shoestring.model.gguf.rope import rope_factors
from shoestring.model.gguf.rows import ModelRows, Rows, checkpoint_rows
from shoestring.model.gguf.sampling import write_sampling
from shoestring.model.gguf.types import BF16, F32, Q4_0, Q8_0, StorageType
from shoestring.model.gguf.vocabulary.writer import write_tokenizer
from shoestring.model.gguf.writer import TensorEntry, write_gguf
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.transformer import Transformer

log = logging.getLogger(__name__)

WeightType = Literal["f32", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"]

_STORAGE = {"f32": F32, "bf16": BF16, "q8_0": Q8_0, "q4_0": Q4_0}
_FILE_TYPE = {"f32": 0, "bf16": 32, "q8_0": 7, "q4_0": 2}  # numbers of llama.cpp for general.file_type


def export_gguf(
    source: Checkpoint | Transformer,
    path: str | Path,
    type: WeightType = "q8_0",
    *,
    tokenizer_files: str | Path | None = None,
    name: str | None = None,
) -> None:
    """Write a model as a GGUF file that llama.cpp loads.

    Args:
        source: a checkpoint, read row by row, or a model in memory.
        path: the new file; it appears only when it is complete and on the disk.
        type: format of the matrices. Vectors, routers and matrices whose rows are not a multiple of 32 long
            stay float32; with q4_0 the output matrix is Q8_0, because its error affects every token. q4_k and
            q6_k are written by llama.cpp's own tool, if it is there.
        tokenizer_files: a folder with tokenizer.json and chat template; by default the source folder. Without
            a tokenizer, llama.cpp accepts only token ids.
        name: general.name; by default the name of the folder.

    Raises ConfigError for a model that llama.cpp cannot compute, CheckpointError, TokenizerError,
    MissingDependencyError for q4_k and q6_k without llama.cpp, StorageError.
    """
    if type not in get_args(WeightType):
        raise ConfigError(f"there is no GGUF type {type!r}; the types are {', '.join(get_args(WeightType))}")
    if type in K_QUANTS:

        def write_full(file: Path) -> None:
            is_bfloat16 = isinstance(source, Checkpoint) and source.is_bfloat16
            kind: WeightType = "bf16" if is_bfloat16 else "f32"
            export_gguf(source, file, kind, tokenizer_files=tokenizer_files, name=name)

        write_k_quants(Path(path), type, write_full)
        return
    folder = None if isinstance(source, Transformer) else source.tokenizer_folder
    title = "model" if isinstance(source, Transformer) else source.folder.resolve().name
    with _open_rows(source) as (config, rows):
        metadata = {
            **write_config(config),
            "general.name": name or title,
            "general.file_type": _FILE_TYPE[type],
            "general.quantization_version": 2,
            **({} if isinstance(source, Transformer) else write_sampling(source.generation)),
            **write_tokenizer(Path(tokenizer_files) if tokenizer_files else folder, config),
        }
        if config.num_nextn_predict_layers:
            log.warning(
                "leaving out %d MTP modules, because llama.cpp does not run them",
                config.num_nextn_predict_layers,
            )
        _write(config, rows, Path(path), type, metadata)


@contextmanager
def _open_rows(source: Checkpoint | Transformer) -> Iterator[tuple[ModelConfig, Rows]]:
    if isinstance(source, Transformer):
        yield source.config, ModelRows(source)
        return
    if source.adapters:
        model = load_model(source)
        yield model.config, ModelRows(model)
        return
    with checkpoint_rows(source) as rows:
        yield source.config, rows


def _write(
    config: ModelConfig, rows: Rows, path: Path, type: WeightType, metadata: dict[str, object]
) -> None:
    layouts = list(layout(config))
    for item in layouts:
        _check_sources(item, rows)
    entries = [
        TensorEntry(name=item.name, shape=item.shape, type=_storage(item, type, config)) for item in layouts
    ]
    chunks: list[Iterable[torch.Tensor]] = [
        _tensor_chunks(item, rows, entry.type) for item, entry in zip(layouts, entries, strict=True)
    ]
    if config.rope.rope_type == "llama3":
        factors = rope_factors(config.rope, config.attention.head_dim)  # type: ignore[union-attr]
        entries.append(TensorEntry(name=ROPE_FACTORS, shape=tuple(factors.shape), type=F32))
        chunks.append([quantize(factors, F32, ROPE_FACTORS)])
    write_gguf(path, metadata, entries, chunks)


def _check_sources(item: TensorLayout, rows: Rows) -> None:
    for name in item.sources:
        shape = rows.shape(name)
        if shape != item.source_shape:
            state = "is missing" if shape is None else f"has shape {list(shape)}"
            raise CheckpointError(
                f"{name} {state} and config.json asks for {list(item.source_shape)}; "
                "config.json and the weights do not belong together"
            )


def _storage(item: TensorLayout, type: WeightType, config: ModelConfig) -> StorageType:
    kind = _STORAGE[type]
    if len(item.shape) == 1 or item.name.endswith("ffn_gate_inp.weight") or item.shape[-1] % kind.block:
        return F32
    head = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
    return Q8_0 if kind == Q4_0 and item.name == head else kind


def _tensor_chunks(item: TensorLayout, rows: Rows, kind: StorageType) -> Iterator[torch.Tensor]:
    """Bytes of one GGUF tensor, in chunks."""
    heads = item.heads
    group = 1 if heads is None else heads.size
    columns = item.source_shape[-1] if len(item.source_shape) == 2 else 1
    step = max(CHUNK_ELEMENTS // (columns * group), 1) * group
    for name in item.sources:
        for first in range(0, item.source_shape[0], step):
            part = rows.read(name, first, min(first + step, item.source_shape[0]))
            if heads is not None:
                part = _reorder(part, heads)
            yield quantize(part, kind, name)


def _reorder(part: torch.Tensor, heads: HeadRows) -> torch.Tensor:
    """Select and reorder the rows of each head as GGUF has them."""
    rows = part.unflatten(0, (-1, heads.size))[:, list(heads.index)]
    return (rows.transpose(1, 2) if heads.transpose else rows).flatten(0, 1).contiguous()
