"""Gradient checkpointing of a model within its losses: the same numbers, fewer of them kept."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.train.losses import MicroBatch, next_token_losses

DENSE = {
    "model_type": "qwen2",
    "moe": None,
    "num_nextn_predict_layers": 0,
    "attention": GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
    "rope": RopeConfig(),
    "tie_word_embeddings": True,
}


def batch(rows: int = 3, length: int = 40) -> MicroBatch:
    ids = torch.randint(0, 300, (rows, length + 1), generator=torch.Generator().manual_seed(5))
    return MicroBatch(ids[:, :-1], ids[:, 1:])


def gradients(model, **settings):
    losses = next_token_losses(model, batch(), mtp_weight=0.3, balance_alpha=0.1)
    losses.total.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return losses, found


@pytest.mark.parametrize(
    "changes", [{}, DENSE, {"num_nextn_predict_layers": 2}], ids=["mla-moe", "dense", "mtp-2"]
)
def test_losses_and_gradients_are_equal_bit_for_bit(tiny_model, changes):
    model = tiny_model(3, **changes)
    losses, plain = gradients(model)
    model.gradient_checkpointing = True
    again, checkpointed = gradients(model)
    assert torch.equal(losses.total, again.total)
    assert torch.equal(losses.balance, again.balance)
    assert losses.loads.keys() == again.loads.keys()
    assert all(torch.equal(losses.loads[layer], again.loads[layer]) for layer in losses.loads)
    assert plain.keys() == checkpointed.keys()
    assert not [name for name in plain if not torch.equal(plain[name], checkpointed[name])]


def test_replayed_experts_stay_those_of_the_engine(tiny_model):
    model, ids = tiny_model(3), batch().inputs_BT
    experts = {1: torch.arange(2).repeat(ids.numel(), 1)}  # what no router would choose
    results = []
    for is_on in (False, True):
        model.gradient_checkpointing = is_on
        model.features(ids, experts=experts).hidden_BTD.square().sum().backward()
        results.append(model.model.layers[1].mlp.experts.down_proj.grad.clone())
        model.zero_grad(set_to_none=True)
    assert torch.equal(*results)
    assert results[0][:2].any()
    assert not results[0][2:].any()


def kept_bytes(model, ids) -> int:
    """Bytes that a forward pass keeps for the backward pass, beside the parameters."""
    storages: dict[int, int] = {}

    def note(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        hidden_BTD = model.features(ids).hidden_BTD
    assert hidden_BTD.requires_grad
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def test_far_less_is_kept_for_the_backward_pass(tiny_model):
    model = tiny_model(3, num_hidden_layers=6)
    ids = batch(4, 128).inputs_BT
    plain = kept_bytes(model, ids)
    model.gradient_checkpointing = True
    assert kept_bytes(model, ids) < plain / 4


@torch.no_grad()
def test_without_gradients_nothing_is_computed_twice(tiny_model, monkeypatch):
    model = tiny_model(3)
    model.gradient_checkpointing = True
    monkeypatch.setattr("shoestring.model.transformer.checkpoint", None)
    assert model.features(batch().inputs_BT).hidden_BTD.isfinite().all()
