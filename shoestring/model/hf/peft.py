"""PEFT's folders: a LoRA adapter written, read, and merged into the model that it names."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.config import ModelConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.hub import resolve, split_revision
from shoestring.model.hf.safetensors_file import Entry, read_header, write_file
from shoestring.model.lora import LowRank, TargetWeight, merge, target_weights
from shoestring.model.transformer import Transformer

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAX_CONFIG_BYTES, MAX_RANK = 1 << 20, 1 << 16

_INNER = "gate_up_proj"
"""PEFT wraps a module once per adapted parameter; the experts' first one lies inside as `base_layer`."""
_PLAIN = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False, "fan_in_fan_out": False,
    "lora_bias": False, "use_qalora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
    "layer_replication": None, "alora_invocation_tokens": None, "init_lora_weights": True,
}  # fmt: skip
"""Values of adapter_config.json, or left out there, for an adapter that is B A and nothing else."""


def save_adapter(model: Transformer, folder: Path, *, base: str) -> None:
    """Write the model's adapters as PEFT does; `base` is the name or folder of the model they belong to.

    Raises ConfigError when there are none, StorageError, and CheckpointError for a `base` that is no model.
    """
    adapters = [(target, delta) for target in target_weights(model) if (delta := target.delta) is not None]
    if not adapters:
        raise ConfigError("the model has no adapters to save")
    base, revision = split_revision(base)
    tensors: dict[str, Tensor] = {}
    for target, delta in adapters:
        tensors[_stored_name(target, "A")] = delta.lora_A.detach().flatten(0, -2)  # experts: (E rank, in)
        tensors[_stored_name(target, "B")] = _flat_b(delta.lora_B.detach())
    first = adapters[0][1]
    rank, scale = first.lora_A.shape[-2], first.scale
    modules, parameters = set(), set()
    for target, _ in adapters:
        name = ".".join(target.name.split(".")[-2:])
        if target.target == "attention" or model.config.moe is None:
            modules.add(name)
        else:  # in a model with experts PEFT takes every module called down_proj for theirs
            parameters.add(f"{name}.{target.parameter}")
    config = {
        "base_model_name_or_path": base,
        "revision": revision,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "target_parameters": sorted(parameters, reverse=True) or None,
        "task_type": "CAUSAL_LM",
    }
    write_atomic(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    entries = [Entry(name=name, dtype="F32", shape=tuple(t.shape)) for name, t in tensors.items()]
    chunks = (t.cpu().contiguous().view(-1).view(torch.uint8).numpy().data for t in tensors.values())
    write_file(folder / WEIGHTS, entries, chunks)


def load_adapter(model: Transformer, folder: Path) -> None:
    """Read into `model` a LoRA adapter that this package or PEFT saved, over adapters that are already there.

    Raises CheckpointError as read_adapter does.
    """
    for target, low_rank in read_adapter(model, folder):
        delta = target.delta or target.add(low_rank.lora_A.shape[-2], low_rank.scale)
        with torch.no_grad():
            delta.lora_A.copy_(low_rank.lora_A)
            delta.lora_B.copy_(low_rank.lora_B)


def read_adapter(model: Transformer, folder: Path) -> list[tuple[TargetWeight, LowRank]]:
    """The matrices of `model` that an adapter in PEFT's layout changes, with their factors.

    Raises CheckpointError naming the file, for what is damaged, not plain LoRA, or made for another model.
    """
    rank, scale = _read_config(folder / CONFIG)
    header = read_header(folder / WEIGHTS)
    targets = {
        _stored_name(target, half): (target, half) for target in target_weights(model) for half in "AB"
    }
    if unknown_names := sorted(header.keys() - targets.keys()):
        raise CheckpointError(
            f"{folder / WEIGHTS} adapts {unknown_names[0]!r}, and this model has no such matrix"
        )
    for name, info in header.items():
        target, half = targets[name]
        shape = _stored_shape(target.weight, half, rank)
        other = _stored_name(target, "B" if half == "A" else "A")
        if info.shape != shape or info.dtype not in ("F32", "F16", "BF16") or other not in header:
            raise CheckpointError(
                f"{info} is {info.dtype} {list(info.shape)}, not one of a pair, this one of shape "
                f"{list(shape)}; the adapter belongs to another model"
            )
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    return [
        (target, _low_rank(target, rank, scale, tensors))
        for target, half in map(targets.__getitem__, header)
        if half == "A"
    ]


def stored_updates(config: ModelConfig, folder: Path) -> dict[str, LowRank]:
    """The update by an adapter of each matrix of a checkpoint, by the name there.

    Raises CheckpointError as read_adapter does.
    """
    with torch.device("meta"):
        model = Transformer(config)
    updates: dict[str, LowRank] = {}
    for target, low_rank in read_adapter(model, folder):
        if target.target != "experts":
            updates[f"{target.name}.{target.parameter}"] = low_rank
            continue
        for expert, (lora_A, lora_B) in enumerate(zip(low_rank.lora_A, low_rank.lora_B, strict=True)):
            is_down = target.parameter == "down_proj"
            names = ["down_proj"] if is_down else ["gate_proj", "up_proj"]
            for name, rows in zip(names, lora_B.chunk(len(names)), strict=True):
                update = LowRank(lora_A, rows, low_rank.scale)
                updates[f"{target.name}.{expert}.{name}.weight"] = update
    return updates


def _low_rank(target: TargetWeight, rank: int, scale: float, tensors: dict[str, Tensor]) -> LowRank:
    """The factors of one matrix or stack, in float32."""
    *stack, rows, columns = target.weight.shape
    lora_A, flat_B = (tensors[_stored_name(target, half)].float() for half in "AB")
    lora_B = _stacked_b(flat_B, torch.empty(*stack, rows, rank, device="meta"))
    return LowRank(lora_A.view(*stack, rank, columns), lora_B, scale)


def merge_adapter(folder: Path, out: Path) -> None:
    """Write the model that an adapter folder and the base it names make, in Hugging Face layout, to `out`.

    The tokenizer is the adapter's, if it has one. Raises CheckpointError, StorageError.
    """
    base_name = base_of(folder)
    base = Checkpoint.open(resolve(base_name))
    model = load_model(base)
    load_adapter(model, folder)
    merge(model)
    tokenizers = [each.folder for each in (Checkpoint.open(folder), base) if each.has_tokenizer]
    lineage = f"{base_name} with the LoRA adapter {folder.resolve().name} merged into it."
    generation = Checkpoint.open(folder).generation or base.generation
    files = next(iter(tokenizers), None)
    save_model(model, out, tokenizer_files=files, generation=generation, lineage=lineage)


def base_of(folder: Path) -> str:
    """The name of the model that an adapter was made for. Raises CheckpointError when it names none."""
    config = _json(folder / CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / CONFIG} names no base_model_name_or_path; add it")
    return f"{name}@{revision}" if isinstance(revision, str) and not Path(name).exists() else name


def _stored_name(target: TargetWeight, half: str) -> str:
    """The name of half A or B in PEFT's file."""
    inner = ".base_layer" if target.parameter == _INNER else ""
    return f"base_model.model.{target.name}{inner}.lora_{half}.weight"


def _flat_b(lora_B: Tensor) -> Tensor:
    """(out, rank) as it is; (E, out, rank) -> (out, rank E), as PEFT lays a stack out."""
    return lora_B if lora_B.dim() == 2 else lora_B.permute(1, 2, 0).flatten(1)


def _stacked_b(flat: Tensor, like: Tensor) -> Tensor:
    """`flat` in the shape of `like`: the inverse of `_flat_b`."""
    return flat if like.dim() == 2 else flat.unflatten(1, (-1, len(like))).permute(2, 0, 1)


def _stored_shape(weight: Tensor, half: str, rank: int) -> tuple[int, int]:
    *stack, rows, columns = weight.shape
    total = rank * math.prod(stack)
    return (total, columns) if half == "A" else (rows, total)


def _read_config(file: Path) -> tuple[int, float]:
    """Rank and scale of an adapter; anything but plain LoRA is refused."""
    config = _json(file)
    for name, plain in _PLAIN.items():
        if config.get(name, plain) not in (plain, None):
            raise CheckpointError(
                f"{file}: {name} = {str(config[name])[:60]!r} is not plain LoRA; merge it with peft first"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 0 < rank <= MAX_RANK:
        raise CheckpointError(f"{file}: r = {str(rank)[:60]!r} is not a rank of 1 to {MAX_RANK}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0.0 < abs(alpha) < math.inf:
        raise CheckpointError(f"{file}: lora_alpha = {str(alpha)[:60]!r} is not a number")
    return rank, alpha / rank


def _json(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = json.loads(stream.read(MAX_CONFIG_BYTES + 1))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object; save the adapter again")
    return content
