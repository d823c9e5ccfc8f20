"""Sizes of a forward pass from the model's shape, beside what PyTorch really keeps for the backward pass."""

from dataclasses import replace

import pytest
import torch

from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize
from shoestring.train import memory
from shoestring.train.losses import MicroBatch, next_token_losses


def kept_bytes(model: Transformer, tokens: int) -> int:
    """Bytes of all distinct tensors that the backward pass of one row needs, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(model.config.vocab_size, (1, tokens))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = next_token_losses(model, MicroBatch(ids, ids), mtp_weight=0.0, balance_alpha=0.0)
    assert losses.total.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("name", ["smollm2-135m", "v3-12m", "r1-mini"])
def test_the_estimate_is_what_is_kept(name):
    shape = replace(PRESETS[name], num_nextn_predict_layers=0, num_hidden_layers=3)
    model = initialize(Transformer(shape), torch.Generator().manual_seed(0)).train()
    kept = kept_bytes(model, 256) / 256
    assert 0.5 < memory.activation_bytes(shape, 4) / kept < 2.0


@pytest.mark.parametrize("name", ["smollm2-135m", "v3-12m", "r1-mini"])
def test_gradient_checkpointing_takes_the_inputs_of_the_layers_and_one_layer(name):
    shape = replace(PRESETS[name], num_nextn_predict_layers=0, num_hidden_layers=6)
    model = initialize(Transformer(shape), torch.Generator().manual_seed(0)).train()
    model.gradient_checkpointing = True
    kept = kept_bytes(model, 256) / 256
    assert kept < memory.activation_bytes(shape, 4, gradient_checkpointing=True)
    assert memory.activation_bytes(shape, 4, gradient_checkpointing=True) < memory.activation_bytes(shape, 4)


def test_a_large_vocabulary_and_a_large_model_take_fewer_tokens(runtime, monkeypatch):
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 16_000_000_000)

    def tokens(name, *, is_on=False):
        return memory.micro_tokens(PRESETS[name], runtime, gradient_checkpointing=is_on)

    assert tokens("r1-mini") == memory.MOST_TOKENS
    assert 512 < tokens("smollm2-135m") < 2048 < tokens("smollm2-135m", is_on=True)
    assert tokens("deepseek-v3") == memory.LEAST_TOKENS
