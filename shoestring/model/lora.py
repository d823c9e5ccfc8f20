"""LoRA: low-rank adapters on linear layers and stacked experts, and merging them into the weights.

An adapter is a parametrization (torch.nn.utils.parametrize): `module.weight` *is* W + (alpha / rank) B A
(arXiv 2106.09685, section 4.1), so training, the engine, absorbed MLA and grouped experts all use it without
a change. It costs a second copy of the adapted weights while a step runs, and saves the gradients and moments
of the base. `torch.nn.utils.parametrize.cached()` makes the copies once for many steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from shoestring.errors import ConfigError
from shoestring.model.moe import Experts
from shoestring.model.transformer import Transformer

Target = Literal["attention", "mlp", "experts"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The rank of the adapters and the matrices that get one. MTP modules and the router stay as they are."""

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
class LowRank:
    """The factors of an adapter for a matrix or a stack of them, as in Delta."""

    lora_A: Tensor
    lora_B: Tensor
    scale: float

    def matrix(self) -> Tensor:
        """The sum that is added to the weight."""
        return self.scale * (self.lora_B @ self.lora_A)


@dataclass(frozen=True)
class TargetWeight:
    """A matrix, or a stack of them, that can have an adapter."""

    name: str
    """The module's name in Hugging Face's model."""
    module: nn.Module
    parameter: str
    target: Target

    @property
    def weight(self) -> Tensor:
        return getattr(self.module, self.parameter)

    @property
    def delta(self) -> Delta | None:
        """The adapter, if there is one."""
        if not parametrize.is_parametrized(self.module, self.parameter):
            return None
        return self.module.parametrizations[self.parameter][0]  # type: ignore[index, return-value]

    def add(self, rank: int, scale: float) -> Delta:
        """Give it an adapter of zeros."""
        delta = Delta(self.weight, rank, scale)
        parametrize.register_parametrization(self.module, self.parameter, delta)
        return delta


def add_adapters(model: Transformer, config: LoraConfig, generator: torch.Generator) -> None:
    """Freeze the model and give it trainable adapters that change nothing yet: A uniform, B zero.

    Raises ConfigError when the model has none of the matrices in `config.targets`.
    """
    targets = [weight for weight in target_weights(model) if weight.target in config.targets]
    if not targets:
        raise ConfigError(f"lora.targets = {config.targets}: this model has no such matrices")
    model.requires_grad_(False)
    for target in targets:
        delta = target.add(config.rank, config.alpha / config.rank)
        limit = delta.lora_A.shape[-1] ** -0.5  # Kaiming's with a = sqrt(5), as PEFT
        with torch.no_grad():
            delta.lora_A.uniform_(-limit, limit, generator=generator)


def merge(model: Transformer) -> None:
    """Write every adapter into the weight it adapts; the model is an ordinary, trainable one again."""
    for target in target_weights(model):
        if target.delta is not None:
            with torch.no_grad():
                parametrize.remove_parametrizations(target.module, target.parameter, leave_parametrized=True)
    model.requires_grad_(True)


def target_weights(model: Transformer) -> Iterator[TargetWeight]:
    """Every matrix that can have an adapter, in the model's order."""
    for index in range(model.config.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, module in model.get_submodule(layer).named_modules(prefix=layer):
            if isinstance(module, Experts):
                yield TargetWeight(name, module, "gate_up_proj", "experts")
                yield TargetWeight(name, module, "down_proj", "experts")
            elif isinstance(module, nn.Linear):
                yield TargetWeight(name, module, "weight", "attention" if ".self_attn." in name else "mlp")
