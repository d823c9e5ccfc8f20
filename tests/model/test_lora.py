"""Adapters: what they compute, what is trained, and merging."""

import math

import pytest
import torch
from torch.nn.utils import parametrize

from shoestring.errors import ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.lora import LoraConfig, add_adapters, merge


def test_fresh_adapters_change_nothing_and_only_they_are_trained(new_model, logits, ids, rank3):
    plain, model = new_model(), new_model()
    add_adapters(model, rank3, torch.Generator().manual_seed(2))
    assert torch.equal(logits(plain), logits(model))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.endswith((".lora_A", ".lora_B")) for name in trained)
    mtp = f"model.layers.{new_model().config.num_hidden_layers}."
    assert not any(name.startswith(mtp) or ".gate." in name for name in trained)
    model(ids).square().mean().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained


def test_an_adapter_adds_alpha_over_rank_b_a(adapted):
    model = adapted()
    q = model.model.layers[0].self_attn.q_a_proj
    delta = q.parametrizations.weight[0]
    base = q.parametrizations.weight.original
    assert torch.allclose(q.weight, base + 2.0 * delta.lora_B @ delta.lora_A)
    experts = model.model.layers[1].mlp.experts
    parts = experts.parametrizations.down_proj
    for expert in range(len(parts.original)):
        expected = parts.original[expert] + 2.0 * parts[0].lora_B[expert] @ parts[0].lora_A[expert]
        assert torch.allclose(experts.down_proj[expert], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "has", "has_not"),
    [
        (("attention",), ".self_attn.", ".mlp."),
        (("mlp",), ".shared_experts.", ".experts.param"),
        (("experts",), ".experts.param", ".self_attn."),
    ],
)
def test_targets_choose_the_matrices(targets, has, has_not, adapted):
    model = adapted(settings=LoraConfig(rank=2, targets=targets))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(has in name for name in trained)
    assert not any(has_not in name for name in trained)


def test_the_cached_forward_uses_adapters_too(adapted, logits, ids):
    """Absorbed attention reads kv_b_proj's weight apart from its forward."""
    model = adapted()
    cache = model.new_cache(2, 19)
    with torch.no_grad(), parametrize.cached():
        steps = [model(ids[:, :11], cache), *(model(ids[:, [t]], cache) for t in range(11, 19))]
    torch.testing.assert_close(torch.cat(steps, 1), logits(model), rtol=1e-4, atol=1e-4)


def test_merging_keeps_the_function_and_gives_an_ordinary_model(family, tmp_path, new_model, adapted, logits):
    model = adapted(family)
    names = new_model(family).state_dict().keys()
    before = logits(model)
    merge(model)
    assert torch.equal(logits(model), before)
    assert model.state_dict().keys() == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    save_model(model, tmp_path / "model")
    assert torch.equal(logits(load_model(Checkpoint.open(tmp_path / "model"))), before)


def test_wrong_settings_are_refused(new_model, dense):
    for wrong in ({"rank": -1}, {"alpha": math.nan}, {"targets": ()}, {"targets": ("router",)}):
        with pytest.raises(ConfigError, match=f"lora.{next(iter(wrong))}"):
            LoraConfig(**wrong)
    with pytest.raises(ConfigError, match="no such matrices"):
        add_adapters(new_model(dense), LoraConfig(rank=2, targets=("experts",)), torch.Generator())


def test_bfloat16_bases_keep_their_precision(new_model, rank3):
    model = new_model().bfloat16()
    add_adapters(model, rank3, torch.Generator().manual_seed(2))
    weight = model.model.layers[0].self_attn.o_proj.weight
    assert weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
