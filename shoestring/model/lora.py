"""LoRA: low-rank adapters on linear layers and stacked experts; saved as PEFT does, loaded, merged.

An adapter is a parametrization (torch.nn.utils.parametrize): `module.weight` *is* W + (alpha / rank) B A
(arXiv 2106.09685, section 4.1), so training, the engine, absorbed MLA and grouped experts all use it without
knowing. The price is one adapted copy of the adapted weights while a step runs; what LoRA saves is the
gradients and moments of the base. `torch.nn.utils.parametrize.cached()` makes the copies once for many steps.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.safetensors_file import Entry, read_header, write_file
from shoestring.model.moe import Experts
from shoestring.model.transformer import Transformer

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAX_CONFIG_BYTES, MAX_RANK = 1 << 20, 1 << 16

Target = Literal["attention", "mlp", "experts"]
_INNER = "gate_up_proj"
"""PEFT wraps a module once per adapted parameter; the experts' first one lies inside as `base_layer`."""
_PLAIN = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False, "fan_in_fan_out": False,
    "lora_bias": False, "use_qalora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
    "layer_replication": None, "alora_invocation_tokens": None, "init_lora_weights": True,
}  # fmt: skip
"""What adapter_config.json must say, or leave out, for an adapter that is B A and nothing else."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which matrices get adapters, and of what rank. MTP modules and the router stay as they are."""

    rank: int = 0
    """0: no adapters, all weights are trained."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    targets: tuple[Target, ...] = ("attention", "mlp", "experts")
    """`mlp` are dense feed-forwards and shared experts, `experts` the routed ones."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"lora.rank = {self.rank} must be at least 0")
        if not 0.0 < self.alpha < math.inf:
            raise ConfigError(f"lora.alpha = {self.alpha} is not a number over 0")
        if not self.targets or not set(self.targets) <= set(get_args(Target)):
            raise ConfigError(f"lora.targets = {self.targets}: choose from {', '.join(get_args(Target))}")


class Delta(nn.Module):
    """W -> W + scale * B A for a matrix (out, in) or a stack of them (E, out, in); A and B are float32."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        *stack, rows, columns = weight.shape
        self.scale = scale
        self.lora_A = nn.Parameter(torch.zeros(*stack, rank, columns, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(*stack, rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return (weight + self.scale * (self.lora_B @ self.lora_A)).to(weight.dtype)


@dataclass(frozen=True)
class _Place:
    """A parameter that can be adapted."""

    name: str
    """Of the module, as in Hugging Face's model."""
    module: nn.Module
    parameter: str
    target: Target

    @property
    def weight(self) -> Tensor:
        return getattr(self.module, self.parameter)

    @property
    def delta(self) -> Delta | None:
        """Its adapter, if it has one."""
        if not parametrize.is_parametrized(self.module, self.parameter):
            return None
        return self.module.parametrizations[self.parameter][0]  # type: ignore[index, return-value]

    def stored(self, half: str) -> str:
        """The name of half A or B in PEFT's file."""
        inner = ".base_layer" if self.parameter == _INNER else ""
        return f"base_model.model.{self.name}{inner}.lora_{half}.weight"

    def add(self, rank: int, scale: float) -> Delta:
        delta = Delta(self.weight, rank, scale)
        parametrize.register_parametrization(self.module, self.parameter, delta)
        return delta


def add_adapters(model: Transformer, config: LoraConfig, generator: torch.Generator) -> None:
    """Freeze the model and give it trainable adapters that change nothing yet: A uniform, B zero.

    Raises ConfigError when no matrix of the model is meant by `config.targets`.
    """
    places = [place for place in _places(model) if place.target in config.targets]
    if not places:
        raise ConfigError(f"lora.targets = {config.targets}: this model has no such matrices")
    model.requires_grad_(False)
    for place in places:
        delta = place.add(config.rank, config.alpha / config.rank)
        bound = delta.lora_A.shape[-1] ** -0.5  # Kaiming's with a = sqrt(5), as PEFT
        with torch.no_grad():
            delta.lora_A.uniform_(-bound, bound, generator=generator)


def merge(model: Transformer) -> None:
    """Write every adapter into the weight it adapts; the model is an ordinary, trainable one again."""
    for place in _places(model):
        if place.delta is not None:
            with torch.no_grad():
                parametrize.remove_parametrizations(place.module, place.parameter, leave_parametrized=True)
    model.requires_grad_(True)


def save_adapter(model: Transformer, folder: Path, *, base: str) -> None:
    """Write the model's adapters as PEFT does; `base` is the name or folder of the model they belong to.

    Raises ConfigError when there are none, StorageError.
    """
    found = [(place, delta) for place in _places(model) if (delta := place.delta) is not None]
    if not found:
        raise ConfigError("the model has no adapters to save")
    tensors: dict[str, Tensor] = {}
    for place, delta in found:
        tensors[place.stored("A")] = delta.lora_A.detach().flatten(0, -2)  # experts: (E rank, in)
        tensors[place.stored("B")] = _flat_b(delta.lora_B.detach())
    rank, scale = found[0][1].lora_A.shape[-2], found[0][1].scale
    modules, parameters = set(), set()
    for place, _ in found:
        name = ".".join(place.name.split(".")[-2:])
        if place.target == "attention" or model.config.moe is None:
            modules.add(name)
        else:  # in a model with experts PEFT takes every module called down_proj for theirs
            parameters.add(f"{name}.{place.parameter}")
    config = {
        "base_model_name_or_path": base,
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
    """Read a LoRA adapter that we or PEFT saved into `model`, over adapters that are already there.

    Raises CheckpointError naming the file, for what is damaged, not plain LoRA, or made for another model.
    """
    rank, scale = _read_config(folder / CONFIG)
    header = read_header(folder / WEIGHTS)
    known = {place.stored(half): (place, half) for place in _places(model) for half in "AB"}
    if unknown := sorted(header.keys() - known.keys()):
        raise CheckpointError(f"{folder / WEIGHTS} adapts {unknown[0]!r}, and this model has no such matrix")
    for name, info in header.items():
        place, half = known[name]
        wanted, other = _stored_shape(place.weight, half, rank), place.stored("B" if half == "A" else "A")
        if info.shape != wanted or info.dtype not in ("F32", "F16", "BF16") or other not in header:
            raise CheckpointError(
                f"{info} is {info.dtype} {list(info.shape)}, not one of a pair, this one of shape "
                f"{list(wanted)}; the adapter belongs to another model"
            )
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    for place in {place.stored("A"): place for place, _ in map(known.__getitem__, header)}.values():
        delta = place.delta or place.add(rank, scale)
        with torch.no_grad():
            delta.lora_A.copy_(tensors[place.stored("A")].view_as(delta.lora_A))
            delta.lora_B.copy_(_stacked_b(tensors[place.stored("B")], delta.lora_B))


def merge_adapter(folder: Path, out: Path) -> None:
    """Write the model that an adapter folder and the base it names make, in Hugging Face layout, to `out`.

    The tokenizer is the adapter's if it brings one. Raises CheckpointError, StorageError.
    """
    base_name = _json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name:
        raise CheckpointError(f"{folder / CONFIG} names no base_model_name_or_path; add it")
    base = resolve(base_name)
    model = load_model(base)
    load_adapter(model, folder)
    merge(model)
    brings = next((place for place in (folder, base) if (place / "tokenizer.json").is_file()), None)
    lineage = f"{base_name} with the LoRA adapter {folder.resolve().name} merged into it."
    save_model(model, out, tokenizer_files=brings, lineage=lineage)


def _places(model: Transformer) -> Iterator[_Place]:
    """Every matrix that may be adapted, in the model's order."""
    for index in range(model.config.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, module in model.get_submodule(layer).named_modules(prefix=layer):
            if isinstance(module, Experts):
                yield _Place(name, module, "gate_up_proj", "experts")
                yield _Place(name, module, "down_proj", "experts")
            elif isinstance(module, nn.Linear):
                yield _Place(name, module, "weight", "attention" if ".self_attn." in name else "mlp")


def _flat_b(lora_B: Tensor) -> Tensor:
    """(out, rank) as it is; (E, out, rank) -> (out, rank E), as PEFT lays a stack out."""
    return lora_B if lora_B.dim() == 2 else lora_B.permute(1, 2, 0).flatten(1)


def _stacked_b(stored: Tensor, like: Tensor) -> Tensor:
    """The way back from `_flat_b`."""
    return stored if like.dim() == 2 else stored.unflatten(1, (-1, len(like))).permute(2, 0, 1)


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
