"""Models as training needs them: with all of their weights trained, or adapters on a base that stays."""

from pathlib import Path

import torch

from shoestring.device import Runtime
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import copy_tokenizer, load_model, save_generation
from shoestring.model.hf.named import open_model
from shoestring.model.hf.peft import load_adapter, save_adapter
from shoestring.model.lora import LoraConfig, add_adapters, merge
from shoestring.model.packed.frozen import is_frozen, thaw
from shoestring.model.packed.quantize import load_frozen
from shoestring.model.transformer import Transformer


def open_trainable(name: str, lora: LoraConfig, newest: Path | None = None) -> Checkpoint:
    """The checkpoint of the weights to train: the run's newest, which holds all of them, or the start's.

    With LoRA a checkpoint of the run holds the adapter alone, and the start is its base. Raises
    CheckpointError when it is gone, and ConfigError for weights that cannot be trained.
    """
    if newest is not None and not lora.rank:
        return Checkpoint.open(newest)
    try:
        start = open_model(name)
    except CheckpointError as error:
        if newest is None:
            raise
        raise CheckpointError(f"{newest} is an adapter, and its base is needed too: {error}") from None
    if start.quantization is not None and not lora.rank:
        raise ConfigError(
            f"{name} is packed by `quantize`, and packed weights stay as they are; train adapters on them "
            "(--set lora.rank=16), or the model that they were made from"
        )
    if lora.rank and start.adapters:
        raise ConfigError(
            f"{name} has an adapter already, and a new one would belong to a base without a name; write the "
            f"two as one model first: shoestring merge {name} FOLDER"
        )
    return start


def load_trainable(
    weights: Checkpoint, lora: LoraConfig, runtime: Runtime, *, seed: int, newest: Path | None = None
) -> Transformer:
    """The model to train, in training mode: its float32 weights, or adapters on weights that stay.

    Those are in compute precision, or packed (QLoRA). `newest` is a folder with the adapter to go on from.
    Raises CheckpointError, ConfigError.
    """
    dtype, device = runtime.compute_dtype, runtime.device
    if not lora.rank:
        return load_model(weights, dtype=torch.float32, compute_dtype=dtype, device=device).train()
    if weights.quantization is not None:
        model = load_frozen(weights, dtype).to(device)
    else:
        model = load_model(weights, dtype=dtype, compute_dtype=dtype, device=device)
    add_adapters(model, lora, torch.Generator(device).manual_seed(seed))
    if newest is not None:
        load_adapter(model, newest)
    return model.train()


def load_fixed(weights: Checkpoint, runtime: Runtime) -> Transformer:
    """A model that stays as it is, in compute precision or packed. Raises CheckpointError."""
    dtype, device = runtime.compute_dtype, runtime.device
    if weights.quantization is not None:
        return load_frozen(weights, dtype).to(device)
    return load_model(weights, dtype=dtype, compute_dtype=dtype, device=device).requires_grad_(False)


def write_adapter(model: Transformer, folder: Path, *, base: str, tokenizer: Path) -> None:
    """Write the model's adapters with the tokenizer, template and end tokens into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(model, folder, base=base)
    copy_tokenizer(tokenizer, folder)
    save_generation(model.config, folder, Checkpoint.open(tokenizer).generation)


def merged(model: Transformer) -> Transformer:
    """The trained model as an ordinary one, its adapters in the weights; packed ones become float32."""
    if is_frozen(model):
        return thaw(model)
    merge(model)
    return model
