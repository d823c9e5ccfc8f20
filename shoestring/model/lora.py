"""LoRA: low-rank adapters on linear layers and stacked experts, switching them off, and merging them.

A layer with an adapter computes W x + (alpha / rank) B A x (arXiv 2106.09685, section 4.1), so a step needs
neither the sum of the two matrices nor a gradient of W. Where a layer's weight itself is used, as in absorbed
attention, `adapted` makes the sum.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from shoestring.errors import ConfigError
from shoestring.model.adapter import AdaptedLayer, Adapter, LowRank
from shoestring.model.transformer import Transformer

Kind = Literal["attention", "mlp", "experts"]
ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters: their rank, and the matrices that get one. MTP modules and the router stay as they are."""

    rank: int = 0
    """PEFT's r. 0: no adapters, all weights are trained."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    targets: str | tuple[str, ...] = ALL_LINEAR
    """all-linear; or a list of kinds (attention, mlp, experts) and of module names, such as q_proj.

    `mlp` are dense feed-forwards and shared experts, `experts` the routed ones. A name is the end of a
    module's path, as PEFT's target_modules has it; routed experts are experts.gate_up_proj and
    experts.down_proj.
    """
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank): higher ranks learn as fast as low ones (arXiv 2312.03732)."""
    use_dora: bool = False
    """Train the length of each row of a matrix apart from its direction (DoRA, arXiv 2402.09353)."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"lora.rank = {self.rank} must be at least 0")
        if not 0.0 < self.alpha < math.inf:
            raise ConfigError(f"lora.alpha = {self.alpha} is not a number over 0")
        if not self.names or not all(self.names):
            raise ConfigError(f"lora.targets = {self.targets!r} names no matrix; {ALL_LINEAR!r} takes all")

    @property
    def names(self) -> tuple[str, ...]:
        """The targets, one or many."""
        return (self.targets,) if isinstance(self.targets, str) else self.targets

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


@dataclass(frozen=True)
class TargetWeight:
    """A matrix, or a stack of them, that can have an adapter."""

    name: str
    """The module's name in Hugging Face's model."""
    module: nn.Module
    parameter: str
    kind: Kind

    @property
    def path(self) -> str:
        """The name by which `targets` finds it: the module's, or that of one of the experts' stacks."""
        return f"{self.name}.{self.parameter}" if self.kind == "experts" else self.name

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in) of a stack."""
        return cast(AdaptedLayer, self.module).matrix_shape(self.parameter)

    @property
    def weight(self) -> Tensor:
        return getattr(self.module, self.parameter)

    @property
    def adapter(self) -> Adapter | None:
        """The adapter, if there is one."""
        return getattr(self.module, self._slot)

    def add(self, rank: int, scale: float, *, use_dora: bool, use_rslora: bool) -> Adapter:
        """Give it an adapter that changes nothing."""
        device = next(chain(self.module.parameters(), self.module.buffers())).device
        adapter = Adapter(self.shape, rank, scale, use_rslora=use_rslora, device=device)
        if use_dora:
            adapter.keep_lengths(self.weight)
        setattr(self.module, self._slot, adapter)
        return adapter

    def remove(self) -> None:
        """Take its adapter away."""
        setattr(self.module, self._slot, None)

    def is_meant(self, name: str) -> bool:
        """Return whether a name of `targets` means it."""
        return name in (ALL_LINEAR, self.kind) or f".{self.path}".endswith(f".{name}")

    @property
    def _slot(self) -> str:
        return cast(AdaptedLayer, self.module).adapter_slots[self.parameter]


def add_adapters(model: Transformer, config: LoraConfig, generator: torch.Generator) -> None:
    """Freeze the model and give it trainable adapters that change nothing yet: A uniform, B zero.

    Raises ConfigError for a name in `config.targets` that no matrix here has, and for DoRA of experts.
    """
    matrices = list(target_weights(model))
    targets = [matrix for matrix in matrices if any(map(matrix.is_meant, config.names))]
    for name in config.names:
        is_kind = name in get_args(Kind)  # a model without experts may be given the same kinds as one with
        if not any(matrix.is_meant(name) for matrix in matrices) and not (is_kind and targets):
            names = sorted({matrix.path.rpartition(".")[2] for matrix in matrices})
            raise ConfigError(
                f"lora.targets names {name!r}, and this model has no such matrices; choose from "
                f"{', '.join((ALL_LINEAR, *get_args(Kind), *names))}"
            )
    if config.use_dora and any(target.kind == "experts" for target in targets):
        raise ConfigError(
            'lora.use_dora trains no routed experts; set lora.targets=["attention","mlp"], or use_dora=false'
        )
    model.requires_grad_(False)
    for target in targets:
        adapter = target.add(
            config.rank, config.scale, use_dora=config.use_dora, use_rslora=config.use_rslora
        )
        limit = adapter.lora_A.shape[-1] ** -0.5  # Kaiming's with a = sqrt(5), as PEFT
        with torch.no_grad():
            adapter.lora_A.uniform_(-limit, limit, generator=generator)


@contextmanager
def adapters_off(model: Transformer) -> Iterator[None]:
    """Within it, the model computes what its base does."""
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    try:
        for adapter in adapters:
            adapter.is_on = False
        yield
    finally:
        for adapter in adapters:
            adapter.is_on = True


def merge(model: Transformer) -> None:
    """Write every adapter into the weight it adapts; the model is an ordinary, trainable one again."""
    for target in target_weights(model):
        if target.adapter is not None:
            with torch.no_grad():
                target.weight.copy_(target.adapter.low_rank.apply(target.weight))
            target.remove()
    model.requires_grad_(True)


def target_weights(model: Transformer) -> Iterator[TargetWeight]:
    """Every matrix that can have an adapter, in the model's order."""
    for index in range(model.config.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, module in model.get_submodule(layer).named_modules(prefix=layer):
            for parameter in getattr(module, "adapter_slots", ()):
                kind: Kind = "attention" if ".self_attn." in name else "mlp"
                yield TargetWeight(name, module, parameter, kind if parameter == "weight" else "experts")


def adapters_of(model: Transformer) -> list[tuple[TargetWeight, LowRank]]:
    """The matrices that have an adapter, with its factors."""
    return [
        (target, target.adapter.low_rank) for target in target_weights(model) if target.adapter is not None
    ]


def stored_updates(adapters: Iterable[tuple[TargetWeight, LowRank]]) -> dict[str, LowRank]:
    """The change of each matrix of a checkpoint, by the name there: the experts' stacks lie apart on disk."""
    updates: dict[str, LowRank] = {}
    for target, low_rank in adapters:
        if target.kind != "experts":
            updates[f"{target.name}.{target.parameter}"] = low_rank
            continue
        for expert, (lora_A, lora_B) in enumerate(zip(low_rank.lora_A, low_rank.lora_B, strict=True)):
            names = ["down_proj"] if target.parameter == "down_proj" else ["gate_proj", "up_proj"]
            for name, rows in zip(names, lora_B.chunk(len(names)), strict=True):
                update = LowRank(lora_A, rows, low_rank.scale)
                updates[f"{target.name}.{expert}.{name}.weight"] = update
    return updates
