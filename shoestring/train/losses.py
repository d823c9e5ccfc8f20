"""Next-token loss with multi-token prediction, over every target or those of a loss mask."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.data.packing import IGNORE_INDEX
from shoestring.model.transformer import Transformer
from shoestring.train.balance import expert_loads, sequence_balance


class MicroBatch(NamedTuple):
    """Rows that go through the model together."""

    inputs_BT: Tensor
    targets_BT: Tensor
    """The token after each input; negative: none, as where a row has ended."""
    loss_mask_BT: Tensor | None = None
    """Targets that the loss counts (bool); None: all of them, and then no row is padded."""

    @property
    def labels_BT(self) -> Tensor:
        """Targets that the loss counts; the others are negative."""
        if self.loss_mask_BT is None:
            return self.targets_BT
        return self.targets_BT.masked_fill(~self.loss_mask_BT, IGNORE_INDEX)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCounts:
    """Counts over a whole batch: divided by them, its micro-batches add up to its means, however cut."""

    sequences: int
    labels: Tensor
    """Predicted tokens: of the next-token loss, then of each MTP depth; (1 + depths,) int64."""


@dataclass
class Losses:
    """The sum to differentiate and its parts, as means over predicted tokens; nll in nats."""

    total: Tensor
    nll: Tensor
    mtp_nll: Tensor
    balance: Tensor
    loads: dict[int, Tensor]
    """Rows each expert received, by layer: (E,) int64."""


def batch_counts(batches: Sequence[MicroBatch], depths: int) -> BatchCounts:
    """Counts over the micro-batches of a batch for a model with `depths` MTP modules."""
    labels = [
        torch.stack([(batch.labels_BT[:, depth:] >= 0).sum() for depth in range(1 + depths)])
        for batch in batches
    ]
    return BatchCounts(sequences=sum(len(b.inputs_BT) for b in batches), labels=torch.stack(labels).sum(0))


def next_token_losses(
    model: Transformer,
    batch: MicroBatch,
    *,
    mtp_weight: float,
    balance_alpha: float,
    counts: BatchCounts | None = None,
) -> Losses:
    """V3 eq. 24-25: cross-entropy of the next token plus `mtp_weight` times the mean over MTP depths.

    MTP modules read the real next tokens, in the loss or not, as they do when they draft; weight 0 leaves
    them out. `balance_alpha` weighs the sequence balance loss (eq. 17-20). Padding counts in neither.
    `counts` are those of the batch that these rows are a part of; None: they are all of it.
    """
    depths = model.config.num_nextn_predict_layers if mtp_weight else 0
    counts = counts or batch_counts([batch], depths)
    labels_BT, is_masked = batch.labels_BT, batch.loss_mask_BT is not None
    features = model.features(batch.inputs_BT)
    loss, nll = _mean_nll(model, features.hidden_BTD, labels_BT, counts.labels[0], is_masked)
    routings = dict(features.routings)
    mtp_nll = torch.zeros((), device=nll.device)
    hidden_BTD = features.hidden_BTD
    for depth in range(depths):
        next_BT = shift_left(batch.targets_BT, depth).clamp(min=0)
        mtp_features = model.mtp_features(hidden_BTD, next_BT, depth)
        hidden_BTD = mtp_features.hidden_BTD
        further_BT = shift_left(labels_BT, depth + 1)
        part, part_nll = _mean_nll(model, hidden_BTD, further_BT, counts.labels[depth + 1], is_masked)
        loss, mtp_nll = loss + mtp_weight / depths * part, mtp_nll + part_nll / depths
        routings |= mtp_features.routings
    real_BT = batch.targets_BT >= 0 if is_masked else None
    balance = torch.zeros((), device=nll.device)
    if balance_alpha:
        num = len(batch.inputs_BT)
        balance = sum((sequence_balance(r, num, real_BT) for r in routings.values()), balance)
        balance = balance / counts.sequences
        loss = loss + balance_alpha * balance
    loads = {index: expert_loads(routing, real_BT) for index, routing in routings.items()}
    return Losses(loss, nll, mtp_nll, balance.detach(), loads)


@torch.no_grad()
def summed_nll(model: Transformer, batches: Iterable[MicroBatch]) -> float:
    """Nats of all the tokens that the loss counts, without training."""
    total = 0.0
    for batch in batches:
        ones = BatchCounts(sequences=1, labels=torch.ones(1, device=model.device))
        total += float(next_token_losses(model, batch, mtp_weight=0.0, balance_alpha=0.0, counts=ones).nll)
    return total


def shift_left(ids_BT: Tensor, by: int) -> Tensor:
    """Each row moved `by` to the left; IGNORE_INDEX, "nothing to predict", comes in on the right."""
    if by == 0:
        return ids_BT
    filler = ids_BT.new_full((ids_BT.shape[0], min(by, ids_BT.shape[1])), IGNORE_INDEX)
    return torch.cat((ids_BT[:, by:], filler), dim=1)


def _mean_nll(
    model: Transformer, hidden_BTD: Tensor, labels_BT: Tensor, in_batch: Tensor, is_masked: bool
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the labels that count, over their number in the whole batch.

    Returned with and without its gradient. Under a mask only the rows that count go through the head.
    """
    hidden_ND, labels_N = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    if is_masked:
        counts_N = labels_N >= 0
        hidden_ND, labels_N = hidden_ND[counts_N], labels_N[counts_N]
    weights_N = (labels_N >= 0).float() / in_batch.clamp(min=1)
    head = (hidden_ND, model.head_weight_WD, labels_N, weights_N)
    loss, _ = kernels.linear_cross_entropy(*head, in_bf16=model.multiplies_in_bf16)
    return loss, loss.detach()
