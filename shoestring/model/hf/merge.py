"""A model with its adapters in its weights, written as one."""

from pathlib import Path

import torch

from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.named import open_model
from shoestring.model.transformer import Transformer


def save_merged(
    model: Transformer, source: Checkpoint, out: Path, *, dtype: torch.dtype | None = None
) -> None:
    """Write a model with the adapters of `source` in its weights, in Hugging Face layout, to `out`.

    Tokenizer, template and generation settings are the adapter's, if it has them. Raises CheckpointError,
    StorageError, and TokenizerError for a tokenizer that is larger than the embedding.
    """
    source.check_vocabulary()
    names = ", ".join(folder.resolve().name for folder in source.adapters)
    save_model(
        model,
        out,
        dtype=dtype,
        tokenizer_files=source.tokenizer_folder if source.has_tokenizer else None,
        generation=source.generation,
        lineage=f"{source.folder} with the LoRA adapter {names} merged into it.",
    )


def merge_adapter(folder: Path, out: Path) -> None:
    """Write the model that an adapter's folder and the base it names make to `out`; see save_merged."""
    source = open_model(folder)
    save_merged(load_model(source), source, out)
