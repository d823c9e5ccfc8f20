"""Models from and to folders in Hugging Face layout: config, weights, tokenizer, generation, model card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from shoestring.durable import storage_errors, write_atomic
from shoestring.errors import CheckpointError
from shoestring.model.config import ModelConfig
from shoestring.model.cost import parameters
from shoestring.model.hf.checkpoint import GENERATION_FILE, Checkpoint
from shoestring.model.hf.config import save_config
from shoestring.model.hf.weights import load_weights, save_weights
from shoestring.model.reward import RewardModel
from shoestring.model.transformer import Transformer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    GENERATION_FILE,
)


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    compute_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Transformer:
    """Read a model from a checkpoint: parameters in `dtype` (None: float32), activations in another.

    MTP modules that config.json states and the weights lack are left out; adapters are merged.
    Raises ConfigError, CheckpointError, UnsafeFileError.
    """
    with torch.device("meta"):
        model = Transformer(checkpoint.model_config, compute_dtype)
    load_weights(model, checkpoint, dtype=dtype, device=device)
    return model.eval()


def save_model(
    model: Transformer,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    tokenizer_files: Path | None = None,
    generation: Mapping[str, Any] | None = None,
    license: str = "",
    lineage: str = "",
    name: str = "",
) -> None:
    """Write all files that another engine needs to run `model`.

    Args:
        folder: a new folder, or one without weights.
        dtype: of the stored weights; None keeps the parameters' own.
        tokenizer_files: a folder from which tokenizer.json and the files beside it are copied.
        generation: the fields of generation_config.json, such as {"temperature": 0.6}; None takes those of
            `tokenizer_files`. The model's end tokens are added to them.
        license, lineage, name: for the model card: the license of the weights, their origin in Markdown,
            and the title (by default the folder's name).

    Raises StorageError, ConfigError for a shape Hugging Face has no name for, CheckpointError for a folder
    without tokenizer.json.
    """
    folder = Path(folder)
    weight_dtype = dtype or next(model.parameters()).dtype
    is_reward_model = isinstance(model, RewardModel)
    dtype_name = str(weight_dtype).removeprefix("torch.")
    save_config(model.config, folder, dtype=dtype_name, is_reward_model=is_reward_model)
    use = "text-classification" if is_reward_model else "text-generation"
    card = _card(model.config, name or folder.resolve().name, license, lineage, use)
    write_atomic(folder / "README.md", card)
    if tokenizer_files is not None:
        copy_tokenizer(Path(tokenizer_files), folder)
        generation = Checkpoint.open(tokenizer_files).generation if generation is None else generation
    save_generation(model.config, folder, generation or {})
    save_weights(model, folder, dtype=dtype)


def save_generation(config: ModelConfig, folder: Path, settings: Mapping[str, Any]) -> None:
    """Write generation_config.json: the settings, with the model's end tokens. Raises StorageError."""
    _write_json(folder / GENERATION_FILE, _generation(config, settings))


def _generation(config: ModelConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the model's ids for those that they lack; the end tokens are those of both."""
    own = settings.get("eos_token_id")
    end_ids = list(own) if isinstance(own, list) else [] if own is None else [own]
    end_ids += [token_id for token_id in config.eos_token_ids if token_id not in end_ids]
    ids = {"bos_token_id": config.bos_token_id, "pad_token_id": config.pad_token_id}
    fields = {name: value for name, value in ids.items() if value is not None} | dict(settings)
    if end_ids:
        fields["eos_token_id"] = end_ids if len(end_ids) > 1 or isinstance(own, list) else end_ids[0]
    return fields


def _card(config: ModelConfig, name: str, license: str, lineage: str, use: str) -> str:
    """The model card: YAML that the hub reads, then the model's size and origin."""
    count = parameters(config)
    head = {
        "library_name": "transformers",
        "pipeline_tag": use,
        "tags": [config.model_type, "shoestring"],
    }
    if license:
        head["license"] = license
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())  # JSON is YAML
    sizes = f"{count.total:,} parameters, {count.active:,} active per token"
    if count.mtp:
        sizes += f", and {count.mtp:,} in MTP modules"
    return (
        f"---\n{yaml}\n---\n\n# {name}\n\n{config.model_type}: {sizes}.\n\n{lineage.strip()}".rstrip() + "\n"
    )


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer.json and the files that belong to it. Raises CheckpointError, StorageError."""
    if not (source / "tokenizer.json").is_file():
        raise CheckpointError(f"{source} holds no tokenizer.json; give the folder of the tokenizer to save")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            with storage_errors(folder / name, (source / name).stat().st_size):
                shutil.copyfile(source / name, folder / name)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=2, sort_keys=True) + "\n")
