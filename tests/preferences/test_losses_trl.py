"""Losses and gradients on the same random batches, against TRL's trainers where TRL is installed.

tests/preferences/test_losses_papers.py compares them with the papers' formulas everywhere.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from shoestring.preferences.losses import PreferenceLossConfig, dpo, ipo, kl_estimate, kto, orpo, simpo

from .batches import BATCHES, PROMPT, Batch, mismatched, random_batch, sequence_logp

trl = pytest.importorskip("trl")
cpo = pytest.importorskip("trl.experimental.cpo")
trl_orpo = pytest.importorskip("trl.experimental.orpo")

every_batch = pytest.mark.parametrize("seed", range(BATCHES))
TOLERANCE = 1e-5


def assert_same(batch: Batch, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE, check_dtype=False)
    gradients = [torch.autograd.grad(loss, batch.policy_WW, retain_graph=True)[0] for loss in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=0, atol=TOLERANCE)


class Bigrams(torch.nn.Module):
    """The batch's model in the form that TRL's trainers call."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.logits_WW = batch.policy_WW

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **_: Any) -> SimpleNamespace:
        logits = self.logits_WW[input_ids]
        if labels is None:
            return SimpleNamespace(logits=logits)
        logp = logits.log_softmax(2)[:, :-1].gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
        logp = logp.masked_fill(labels[:, 1:] < 0, 0.0)
        unused = torch.zeros_like(logp)
        return SimpleNamespace(log_probs=logp, entropy=unused, mean_logits=unused, is_top1=unused.bool())


def trainer(cls: type, batch: Batch, **attributes: Any) -> Any:
    """A trainer without its set-up: only what its loss reads."""
    trainer = object.__new__(cls)
    accelerator = SimpleNamespace(
        device="cpu", gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    common = {
        "model": Bigrams(batch),
        "accelerator": accelerator,
        "aux_loss_enabled": False,
        "is_encoder_decoder": False,
        "padding_value": 0,
        "pad_token_id": 0,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    for name, value in (common | attributes).items():
        setattr(trainer, name, value)
    return trainer


def columns(ids_BT: Tensor, prefix: str = "") -> dict[str, Tensor]:
    """Ids and masks under TRL's names."""
    mask = (ids_BT >= 0).long()
    completion = mask.clone()
    completion[:, :PROMPT] = 0
    return {
        f"{prefix}input_ids": ids_BT.clamp(min=0),
        f"{prefix}attention_mask": mask,
        f"{prefix}completion_mask": completion,
    }


def labeled(ids_BT: Tensor, prefix: str) -> dict[str, Tensor]:
    """Ids, masks and labels as TRL's ORPO and CPO have them."""
    named = columns(ids_BT, prefix)
    completion = named.pop(f"{prefix}completion_mask")
    return named | {f"{prefix}labels": ids_BT.masked_fill(completion == 0, -100)}


@every_batch
@pytest.mark.parametrize("loss_type", ["dpo", "ipo"])
def test_dpo_and_ipo(seed, loss_type):
    batch = random_batch(seed)
    chosen, rejected = batch.answers(batch.chosen_BT), batch.answers(batch.rejected_BT)
    inputs = columns(torch.cat((batch.chosen_BT, batch.rejected_BT))) | {
        "ref_chosen_logps": chosen.ref_logp_B,
        "ref_rejected_logps": rejected.ref_logp_B,
    }
    theirs = trainer(
        trl.DPOTrainer,
        batch,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid" if loss_type == "dpo" else loss_type],
        loss_weights=[1.0],
        beta=0.1,
        use_weighting=False,
    )
    ours = {"dpo": dpo, "ipo": ipo}[loss_type](chosen, rejected, PreferenceLossConfig(loss_type=loss_type))
    assert_same(batch, ours.mean(), theirs._compute_loss(theirs.model, inputs, False))


@every_batch
def test_label_smoothing(seed):
    """Conservative DPO: TRL has it in its CPO, whose sigmoid loss is DPO's with an even reference."""
    batch = random_batch(seed)
    chosen, rejected = batch.answers(batch.chosen_BT), batch.answers(batch.rejected_BT)
    stub = trainer(cpo.CPOTrainer, batch, alpha=0.0, beta=0.1, loss_type="sigmoid", label_smoothing=0.1)
    theirs = stub.cpo_loss(chosen.log_ratio_B, rejected.log_ratio_B)[0]
    ours = dpo(chosen, rejected, PreferenceLossConfig(label_smoothing=0.1))
    assert_same(batch, ours.mean(), theirs.mean())


@every_batch
def test_simpo(seed):
    batch = random_batch(seed)
    settings = {"beta": 2.0, "simpo_gamma": 0.5, "label_smoothing": 0.1}
    stub = trainer(cpo.CPOTrainer, batch, alpha=0.0, cpo_alpha=0.0, loss_type="simpo", **settings)
    inputs = labeled(batch.chosen_BT, "chosen_") | labeled(batch.rejected_BT, "rejected_")
    chosen, rejected = batch.answers(batch.chosen_BT), batch.answers(batch.rejected_BT)
    ours = simpo(chosen, rejected, PreferenceLossConfig(loss_type="simpo", **settings))
    assert_same(batch, ours.mean(), stub.get_batch_loss_metrics(stub.model, inputs)[0])


@every_batch
def test_orpo(seed):
    batch = random_batch(seed)
    stub = trainer(trl_orpo.ORPOTrainer, batch, beta=0.2)
    inputs = labeled(batch.chosen_BT, "chosen_") | labeled(batch.rejected_BT, "rejected_")
    chosen, rejected = batch.answers(batch.chosen_BT), batch.answers(batch.rejected_BT)
    settings = PreferenceLossConfig(loss_type="orpo", beta=0.2)
    ours = orpo(chosen, rejected, settings, mean_tokens=float(chosen.tokens_B.double().mean()))
    assert_same(batch, ours.mean(), stub.get_batch_loss_metrics(stub.model, inputs)[0])


@every_batch
def test_kto(seed):
    batch = random_batch(seed)
    ids = torch.cat((batch.chosen_BT, batch.rejected_BT))
    is_good, others = torch.arange(len(ids)) < len(batch.chosen_BT), mismatched(ids)
    inputs = (
        columns(ids)
        | columns(others, "KL_")
        | {
            "label": is_good,
            "ref_logps": sequence_logp(batch.reference_WW, ids),
            "ref_KL_logps": sequence_logp(batch.reference_WW, others),
        }
    )
    weights = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.3}
    stub = trainer(
        trl.KTOTrainer, batch, calculate_KL=True, precompute_ref_logps=True, loss_type="kto", **weights
    )
    kl = kl_estimate(batch.answers(others).log_ratio_B)
    ours = kto(batch.answers(ids), is_good, kl, PreferenceLossConfig(loss_type="kto", **weights))
    assert_same(batch, ours.mean(), stub._compute_loss(stub.model, inputs, False))
