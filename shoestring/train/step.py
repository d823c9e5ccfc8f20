"""One training step: forward and backward in micro-batches, check, clip, update, rebalance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring.errors import NonFiniteError
from shoestring.model.transformer import Transformer
from shoestring.train.losses import max_violation, move_balance_bias, next_token_losses
from shoestring.train.optim import Optimizers


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What the schedule says about this step."""

    lr_share: float
    mtp_weight: float
    bias_speed: float
    balance_alpha: float
    clip: float
    micro_rows: int
    """Rows in one forward pass: bounds memory, not the result."""


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """Means over the step's tokens; nll in nats per token."""

    nll: float
    mtp_nll: float
    balance: float
    grad_norm: float
    """Before clipping."""
    violations: list[float]
    """Each MoE layer's maximal violation of balance, in layer order; MTP modules last."""
    worst_load: list[float]
    """Shares of the rows that each expert of the least balanced layer received."""


def train_step(
    model: Transformer,
    optimizers: Optimizers,
    inputs_BT: Tensor,
    targets_BT: Tensor,
    settings: StepSettings,
) -> StepStats:
    """Train on B rows; `micro_rows` changes nothing but memory.

    Raises NonFiniteError, with weights, moments and bias untouched, if loss or gradient is not finite.
    """
    optimizers.zero_grad()
    sums = torch.zeros(3)
    loads: dict[int, Tensor] = {}
    for start in range(0, len(inputs_BT), settings.micro_rows):
        rows = slice(start, start + settings.micro_rows)
        losses = next_token_losses(
            model,
            inputs_BT[rows],
            targets_BT[rows],
            mtp_weight=settings.mtp_weight,
            balance_alpha=settings.balance_alpha,
            whole_BT=targets_BT,
        )
        losses.total.backward()
        sums += torch.stack((losses.nll, losses.mtp_nll, losses.balance)).cpu()
        for layer, load_E in losses.loads.items():
            loads[layer] = loads[layer] + load_E if layer in loads else load_E
    grad_norm = take_step(model, optimizers, sums, clip=settings.clip, lr_share=settings.lr_share)
    move_balance_bias(model, loads, settings.bias_speed)
    return _stats(sums, grad_norm, loads)


def take_step(
    model: Transformer, optimizers: Optimizers, sums: Tensor, *, clip: float, lr_share: float
) -> float:
    """Clip the gradient and update; returns its norm before clipping.

    Raises NonFiniteError, with weights and moments untouched, if it or one of `sums`, the loss first, is not
    finite.
    """
    grad_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip))
    if not (torch.isfinite(sums).all() and grad_norm < float("inf")):
        optimizers.zero_grad()
        raise NonFiniteError(f"the loss is {sums[0]:.4g} and the gradient's norm {grad_norm:.4g}")
    optimizers.step(lr_share)
    return grad_norm


def _stats(sums: Tensor, grad_norm: float, loads: dict[int, Tensor]) -> StepStats:
    violations = {layer: max_violation(load_E) for layer, load_E in sorted(loads.items())}
    worst: list[float] = []
    if violations:
        load_E = loads[max(violations, key=lambda layer: violations[layer])].float()
        worst = (load_E / load_E.sum()).tolist()
    nll, mtp_nll, balance = sums.tolist()
    return StepStats(
        nll=nll,
        mtp_nll=mtp_nll,
        balance=balance,
        grad_norm=grad_norm,
        violations=list(violations.values()),
        worst_load=worst,
    )
