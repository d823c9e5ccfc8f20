"""AdamW for all, or Muon for the matrices and AdamW for the rest."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shoestring import kernels
from shoestring.cost.optimizer import Stack
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer; defaults are DeepSeek-V3's (section 4.2), with a learning rate for small models."""

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    """Peak learning rate of everything AdamW trains."""
    muon_lr: float = 1e-2
    """Peak learning rate of Muon's matrices, for updates of root mean square 0.2 (arXiv 2502.16982)."""
    final_norm_lr: float = 0.0
    """Peak learning rate of the last norm's weight, 0 for `lr`. It scales all logits, as a temperature does,
    and the reinforcement of a tiny model has few steps to move it."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.95
    """Muon's momentum."""
    newton_schulz_steps: int = 5
    max_grad_norm: float = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "muon"):
            raise ConfigError(f"optim.name = {self.name!r} is neither adamw nor muon")
        for name in ("lr", "muon_lr", "eps", "max_grad_norm", "newton_schulz_steps"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name} = {getattr(self, name)} is not a number over 0")
        for name in ("beta1", "beta2", "momentum"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"optim.{name} = {getattr(self, name)} is not at least 0 and under 1")
        for name in ("weight_decay", "final_norm_lr"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name} = {getattr(self, name)} is not a number of at least 0")


class Optimizers:
    """One or two PyTorch optimizers that step together, with one share of their peak learning rates."""

    def __init__(self, parts: list[torch.optim.Optimizer], *, bf16_moments: bool = False) -> None:
        """`bf16_moments`: round moments to bfloat16 after each step, as V3 stores them (section 3.3.2)."""
        self.parts, self.bf16_moments = parts, bf16_moments
        self.peaks = [[group["lr"] for group in part.param_groups] for part in parts]

    def step(self, share: float) -> None:
        """Update with every learning rate at `share` of its peak."""
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            part.step()
            if self.bf16_moments:
                _round_moments(part)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def newton_schulz_steps(self) -> int:
        """Steps of Muon's Newton-Schulz; 0 without Muon."""
        return next((part.defaults["steps"] for part in self.parts if isinstance(part, Muon)), 0)

    def stacks(self) -> Iterator[Stack]:
        """The matrices with a gradient that Muon makes orthogonal."""
        for part in self.parts:
            if isinstance(part, Muon):
                yield from part.stacks()

    def state_dict(self) -> dict[str, Any]:
        return {str(i): part.state_dict() for i, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the moments; learning rates, weight decay and the like stay those of the recipe.

        Raises CheckpointError if the state is of another optimizer or another model.
        """
        saved_groups = {
            name: [len(g["params"]) for g in part["param_groups"]] for name, part in state.items()
        }
        own_groups = {
            str(i): [len(g["params"]) for g in part.param_groups] for i, part in enumerate(self.parts)
        }
        if saved_groups != own_groups:
            raise CheckpointError(
                f"the saved moments are of parameter groups {saved_groups}, the recipe's optimizer has "
                f"{own_groups}; "
                "resume with the run's own optim.name"
            )
        for i, part in enumerate(self.parts):
            part.load_state_dict(state[str(i)] | {"param_groups": part.state_dict()["param_groups"]})


def build_optimizers(model: Transformer, config: OptimConfig) -> Optimizers:
    """Muon for the layers' matrices if `name` is muon, AdamW for the rest; norms and biases do not decay."""
    matrices: list[nn.Parameter] = []
    pairs: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if config.name != "muon" or not _is_muon_matrix(name, parameter):
            other.append(parameter)
        else:
            (pairs if name.endswith("experts.gate_up_proj") else matrices).append(parameter)
    other_matrices = [p for p in other if p.dim() > 1]
    last = model.model.norm.weight if config.final_norm_lr else None
    rest = [p for p in other if p.dim() <= 1 and p is not last]
    groups: list[dict[str, Any]] = [
        {"params": other_matrices, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    if last is not None:
        groups.append({"params": [last], "weight_decay": 0.0, "lr": config.final_norm_lr})
    betas = (config.beta1, config.beta2)
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
    ]
    if matrices or pairs:
        # An expert's gate and up are two matrices, on disk and in the paper; here they share a tensor.
        muon_groups = [{"params": matrices, "stacked": 1}, {"params": pairs, "stacked": 2}]
        parts.append(
            Muon(
                [group for group in muon_groups if group["params"]],
                lr=config.muon_lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                steps=config.newton_schulz_steps,
                in_bf16=model.multiplies_in_bf16,
            )
        )
    return Optimizers(parts, bf16_moments=model.multiplies_in_fp8)


def _round_moments(part: torch.optim.Optimizer) -> None:
    for state in part.state.values():
        for moment in state.values():
            if torch.is_tensor(moment) and moment.dim():  # not the number of steps
                moment.copy_(moment.bfloat16())


def _is_muon_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Everything two- or three-dimensional but the embedding, the head and the router."""
    return parameter.dim() > 1 and not any(part in name for part in ("embed_tokens", "lm_head", "mlp.gate."))


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by Newton-Schulz (Jordan et al. 2024), all experts at once.

    An update is scaled to AdamW's root mean square: 0.2 sqrt(longer side) (arXiv 2502.16982, section 2.2).
    A parameter is a matrix, or a stack of matrices (E, rows, columns); in a group with `stacked` = 2 each of
    these is two matrices, one above the other. The iteration multiplies in bfloat16 if `in_bf16`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        steps: int = 5,
        in_bf16: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "steps": steps,
            "stacked": 1,
        }
        super().__init__(params, defaults)
        self.in_bf16 = in_bf16

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for same_shape in _by_shape(p for p in group["params"] if p.grad is not None):
                self._step_stack(group, same_shape)

    def stacks(self) -> Iterator[Stack]:
        """The matrices that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape[-2] // group["stacked"], parameter.shape[-1]
                    yield Stack(parameter.numel() // (rows * columns), rows, columns)

    def _step_stack(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        """One batched Newton-Schulz for all parameters of one shape."""
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            grad, momentum = parameter.grad, state["momentum"]
            assert grad is not None
            momentum.lerp_(grad, 1 - group["momentum"])
            update = grad.lerp(momentum, group["momentum"])  # Nesterov
            updates.append(update.reshape(-1, update.shape[-2] // group["stacked"], update.shape[-1]))
        orthogonal = newton_schulz(torch.cat(updates), group["steps"], in_bf16=self.in_bf16)
        scale = 0.2 * max(orthogonal.shape[-2:]) ** 0.5
        for parameter, update in zip(parameters, orthogonal.split([len(u) for u in updates]), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


def _by_shape(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(tuple(parameter.shape), []).append(parameter)
    return list(groups.values())


def newton_schulz(stack_EFD: Tensor, steps: int, *, in_bf16: bool = False) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each, roughly: a quintic pushes singular values to 0.7..1.2.

    Products are in bfloat16 on a GPU, and on a CPU if asked for.
    """
    x = stack_EFD.float() if stack_EFD.device.type == "cpu" else stack_EFD.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_rounded = in_bf16 and x.dtype == torch.float32
    x = kernels.newton_schulz_bf16(x, steps) if is_rounded else kernels.newton_schulz(x, steps)
    return (x.mT if tall else x).to(stack_EFD.dtype)
