"""PEFT's folders: a LoRA or DoRA adapter written and read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.adapter import Adapter, LowRank
from shoestring.model.config import ModelConfig
from shoestring.model.hf.adapter_config import CONFIG, read_json
from shoestring.model.hf.hub import split_revision
from shoestring.model.hf.safetensors_file import Entry, read_header, write_file
from shoestring.model.lora import TargetWeight, stored_updates, target_weights
from shoestring.model.transformer import Transformer

WEIGHTS = "adapter_model.safetensors"
MAX_RANK = 1 << 16

_INNER = "gate_up_proj"
"""PEFT wraps a module once per adapted parameter; the experts' first one lies inside as `base_layer`."""
_PLAIN = {
    "peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "lora_bias": False, "use_qalora": False,
    "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "layer_replication": None,
    "alora_invocation_tokens": None, "trainable_token_indices": None,
}  # fmt: skip
"""Values of adapter_config.json, or left out there, for an adapter of low rank and nothing else."""
_FIRST_VALUES = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base as it is; others, such as pissa, change it too."""


def save_adapter(model: Transformer, folder: Path, *, base: str) -> None:
    """Write the model's adapters as PEFT does; `base` is the name or folder of the model they belong to.

    Raises ConfigError when there are none, StorageError, and CheckpointError for a `base` that is no model.
    """
    adapters = [(target, target.adapter) for target in target_weights(model) if target.adapter is not None]
    if not adapters:
        raise ConfigError("the model has no adapters to save")
    base, revision = split_revision(base)
    tensors: dict[str, Tensor] = {}
    for target, adapter in adapters:
        tensors[_stored_name(target, "A")] = adapter.lora_A.detach().flatten(0, -2)  # experts: (E rank, in)
        tensors[_stored_name(target, "B")] = _flat_b(adapter.lora_B.detach())
        if adapter.magnitude is not None:
            tensors[_magnitude_name(target)] = adapter.magnitude.detach()
    config = {"base_model_name_or_path": base, "revision": revision} | _config_of(model, adapters)
    write_atomic(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    entries = [Entry(name=name, dtype="F32", shape=tuple(t.shape)) for name, t in tensors.items()]
    chunks = (t.cpu().contiguous().view(-1).view(torch.uint8).numpy().data for t in tensors.values())
    write_file(folder / WEIGHTS, entries, chunks)


def load_adapter(model: Transformer, folder: Path) -> None:
    """Read into `model` a LoRA adapter that this package or PEFT saved, over adapters that are already there.

    Raises CheckpointError as read_adapter does, and for other settings than those of the adapters there.
    """
    settings = _read_config(folder / CONFIG)
    for target, low_rank in read_adapter(model, folder):
        adapter = target.adapter or target.add(
            settings.rank, settings.scale, use_dora=settings.use_dora, use_rslora=settings.use_rslora
        )
        own = adapter.low_rank
        if own.lora_A.shape != low_rank.lora_A.shape or (own.magnitude is None) == settings.use_dora:
            raise CheckpointError(
                f"{folder / CONFIG} has r = {settings.rank} and use_dora = {settings.use_dora}, and the "
                "adapters of this run were made with others; set them back"
            )
        with torch.no_grad():
            adapter.lora_A.copy_(low_rank.lora_A)
            adapter.lora_B.copy_(low_rank.lora_B)
            if adapter.magnitude is not None and low_rank.magnitude is not None:
                adapter.magnitude.copy_(low_rank.magnitude)


def read_adapter(model: Transformer, folder: Path) -> list[tuple[TargetWeight, LowRank]]:
    """The matrices of `model` that an adapter in PEFT's layout changes, with their factors in float32.

    Raises CheckpointError naming the file, for what is damaged, neither LoRA nor DoRA, or of another model.
    """
    settings = _read_config(folder / CONFIG)
    header = read_header(folder / WEIGHTS)
    targets = {target.path: target for target in target_weights(model)}
    shapes = {path: _stored_shapes(target, settings) for path, target in targets.items()}
    owners = {name: path for path, names in shapes.items() for name in names}
    if unknown_names := sorted(header.keys() - owners.keys()):
        raise CheckpointError(
            f"{folder / WEIGHTS} adapts {unknown_names[0]!r}, and this model has no such matrix"
        )
    for name, info in header.items():
        group = shapes[owners[name]]
        is_whole = group.keys() <= header.keys()
        if info.shape != group[name] or info.dtype not in ("F32", "F16", "BF16") or not is_whole:
            raise CheckpointError(
                f"{info} is {info.dtype} {list(info.shape)}, not one of {len(group)} of a matrix, this one "
                f"of shape {list(group[name])}; the adapter belongs to another model"
            )
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    paths = dict.fromkeys(owners[name] for name in header)
    return [(targets[path], _low_rank(targets[path], settings, tensors)) for path in paths]


def updates_of(config: ModelConfig, folder: Path) -> dict[str, LowRank]:
    """The change by an adapter of each matrix of a checkpoint, by the name there.

    Raises CheckpointError as read_adapter does.
    """
    with torch.device("meta"):
        model = Transformer(config)
    return stored_updates(read_adapter(model, folder))


@dataclass(frozen=True)
class _Settings:
    """The settings in adapter_config.json that all factors share."""

    rank: int
    scale: float
    use_dora: bool
    use_rslora: bool


def _config_of(model: Transformer, adapters: list[tuple[TargetWeight, Adapter]]) -> dict[str, Any]:
    """The fields of adapter_config.json about the adapters, which are all made by the same settings."""
    first = adapters[0][1]
    rank = first.lora_A.shape[-2]
    modules, parameters = set(), set()
    for target, _ in adapters:
        name = ".".join(target.name.split(".")[-2:])
        if target.kind == "attention" or model.config.moe is None:
            modules.add(name)
        else:  # in a model with experts PEFT takes every module called down_proj for theirs
            parameters.add(f"{name}.{target.parameter}")
    return {
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": first.scale * (math.sqrt(rank) if first.use_rslora else rank),
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "target_parameters": sorted(parameters, reverse=True) or None,
        "task_type": "CAUSAL_LM",
        "use_dora": first.magnitude is not None,
        "use_rslora": first.use_rslora,
    }


def _low_rank(target: TargetWeight, settings: _Settings, tensors: dict[str, Tensor]) -> LowRank:
    """The factors of one matrix or stack, in float32."""
    *stack, rows, columns = target.shape
    lora_A, flat_B = (tensors[_stored_name(target, half)].float() for half in "AB")
    lora_B = _stacked_b(flat_B, torch.empty(*stack, rows, settings.rank, device="meta"))
    magnitude = tensors[_magnitude_name(target)].float() if settings.use_dora else None
    return LowRank(lora_A.view(*stack, settings.rank, columns), lora_B, settings.scale, magnitude)


def _stored_shapes(target: TargetWeight, settings: _Settings) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a matrix's adapter in PEFT's file, by its name."""
    *stack, rows, columns = target.shape
    total = settings.rank * math.prod(stack)
    shapes: dict[str, tuple[int, ...]] = {
        _stored_name(target, "A"): (total, columns),
        _stored_name(target, "B"): (rows, total),
    }
    return shapes | ({_magnitude_name(target): (rows,)} if settings.use_dora else {})


def _stored_name(target: TargetWeight, half: str) -> str:
    """The name of half A or B in PEFT's file."""
    inner = ".base_layer" if target.parameter == _INNER else ""
    return f"base_model.model.{target.name}{inner}.lora_{half}.weight"


def _magnitude_name(target: TargetWeight) -> str:
    """The name of DoRA's magnitude in PEFT's file."""
    return f"base_model.model.{target.name}.lora_magnitude_vector"


def _flat_b(lora_B: Tensor) -> Tensor:
    """(out, rank) as it is; (E, out, rank) -> (out, rank E), as PEFT lays a stack out."""
    return lora_B if lora_B.dim() == 2 else lora_B.permute(1, 2, 0).flatten(1)


def _stacked_b(flat: Tensor, like: Tensor) -> Tensor:
    """`flat` in the shape of `like`: the inverse of `_flat_b`."""
    return flat if like.dim() == 2 else flat.unflatten(1, (-1, len(like))).permute(2, 0, 1)


def _read_config(file: Path) -> _Settings:
    """The settings of an adapter; anything but LoRA and DoRA is refused."""
    config = read_json(file)
    for name, plain in _PLAIN.items():
        if config.get(name, plain) not in (plain, None):
            raise CheckpointError(
                f"{file}: {name} = {str(config[name])[:60]!r} is not plain LoRA; merge it with peft first"
            )
    first_values = config.get("init_lora_weights")
    if not any(first_values is value or first_values == value for value in _FIRST_VALUES):
        raise CheckpointError(
            f"{file}: init_lora_weights = {str(first_values)[:60]!r} changed the base too; merge it with "
            "peft first"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 0 < rank <= MAX_RANK:
        raise CheckpointError(f"{file}: r = {str(rank)[:60]!r} is not a rank of 1 to {MAX_RANK}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0.0 < abs(alpha) < math.inf:
        raise CheckpointError(f"{file}: lora_alpha = {str(alpha)[:60]!r} is not a number")
    for name in ("use_dora", "use_rslora"):
        if config.get(name) not in (None, True, False):
            raise CheckpointError(f"{file}: {name} = {str(config[name])[:60]!r} is neither true nor false")
    use_rslora = bool(config.get("use_rslora"))
    scale = alpha / (math.sqrt(rank) if use_rslora else rank)
    return _Settings(rank, scale, bool(config.get("use_dora")), use_rslora)
