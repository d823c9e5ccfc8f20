"""One training step: forward and backward in micro-batches, check, clip, update, rebalance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring.errors import NonFiniteError
from shoestring.model.transformer import Transformer
from shoestring.train.balance import max_violation, move_balance_bias
from shoestring.train.losses import MicroBatch, batch_counts, next_token_losses
from shoestring.train.optim import Optimizers
from shoestring.train.parallel import Ranks


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Values of the schedule for this step."""

    lr_share: float
    """Share of the peak learning rates."""
    mtp_weight: float
    """0 leaves MTP modules out altogether."""
    bias_speed: float
    balance_alpha: float
    max_grad_norm: float


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """Means over what the step's loss counts; nll in nats per token."""

    nll: float
    mtp_nll: float
    balance: float
    grad_norm: float
    """Before clipping."""
    violations: list[float]
    """Each MoE layer's maximal violation of balance, in layer order; MTP modules last."""
    worst_load: list[float]
    """Shares of the rows that each expert of the least balanced layer received."""

    @property
    def max_violation(self) -> float | None:
        """Mean over MoE layers; None without any."""
        return sum(self.violations) / len(self.violations) if self.violations else None


def micro_batches(inputs_BT: Tensor, targets_BT: Tensor, rows: int) -> list[MicroBatch]:
    """The rows of a batch, at most `rows` at a time."""
    return [MicroBatch(*part) for part in zip(inputs_BT.split(rows), targets_BT.split(rows), strict=True)]


def train_step(
    model: Transformer, optimizers: Optimizers, batches: Sequence[MicroBatch], settings: StepSettings
) -> StepStats:
    """Train on the micro-batches of one batch; how it was cut into them changes nothing but memory.

    Raises NonFiniteError, with weights, moments and bias untouched, if loss or gradient is not finite.
    """
    optimizers.zero_grad()
    counts = batch_counts(batches, model.config.num_nextn_predict_layers)
    sums = torch.zeros(4)
    loads: dict[int, Tensor] = {}
    for batch in batches:
        losses = next_token_losses(
            model,
            batch,
            mtp_weight=settings.mtp_weight,
            balance_alpha=settings.balance_alpha,
            counts=counts,
        )
        losses.total.backward()
        sums += torch.stack((losses.total.detach(), losses.nll, losses.mtp_nll, losses.balance)).cpu()
        for layer, load_E in losses.loads.items():
            loads[layer] = loads[layer] + load_E if layer in loads else load_E
    grad_norm = clip_and_step(
        model, optimizers, float(sums[0]), max_grad_norm=settings.max_grad_norm, lr_share=settings.lr_share
    )
    move_balance_bias(model, loads, settings.bias_speed)
    return _stats(sums[1:], grad_norm, loads)


def clip_and_step(
    model: Transformer,
    optimizers: Optimizers,
    loss: float,
    *,
    max_grad_norm: float,
    lr_share: float,
    ranks: Ranks | None = None,
) -> float:
    """Sum the gradient over the ranks, clip it and update; returns its norm before clipping.

    `loss` is the whole step's, the same on every rank. Raises NonFiniteError, on all of them and with weights
    and moments untouched, if it or the norm is not finite.
    """
    if ranks is not None:
        ranks.sum_gradients(model)
    grad_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        optimizers.zero_grad()
        raise NonFiniteError(f"the loss is {loss:.4g} and the gradient's norm {grad_norm:.4g}")
    optimizers.step(lr_share)
    return grad_norm


def _stats(means: Tensor, grad_norm: float, loads: dict[int, Tensor]) -> StepStats:
    """Statistics from the means of nll, MTP nll and balance, and each layer's loads of its experts."""
    violations = {layer: max_violation(load_E) for layer, load_E in sorted(loads.items())}
    worst_load: list[float] = []
    if violations:
        load_E = loads[max(violations, key=lambda layer: violations[layer])].float()
        worst_load = (load_E / load_E.sum()).tolist()
    nll, mtp_nll, balance = means.tolist()
    return StepStats(
        nll=nll,
        mtp_nll=mtp_nll,
        balance=balance,
        grad_norm=grad_norm,
        violations=list(violations.values()),
        worst_load=worst_load,
    )
