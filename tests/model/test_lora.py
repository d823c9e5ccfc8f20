"""Adapters: what they compute, what is trained, and merging."""

import math

import pytest
import torch

from shoestring.errors import ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.lora import LoraConfig, adapters_off, add_adapters, merge, target_weights


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
    q, x = model.model.layers[0].self_attn.q_a_proj, torch.randn(5, 32)
    expected = x @ (q.weight + 2.0 * q.adapter.lora_B @ q.adapter.lora_A).T
    torch.testing.assert_close(q(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(
        q.adapter.low_rank.apply(q.weight), q.weight + 2.0 * q.adapter.lora_B @ q.adapter.lora_A
    )
    experts = model.model.layers[1].mlp.experts
    rows, ends = torch.randn(6, 32), torch.tensor([2] + [6] * (len(experts.down_proj) - 1), dtype=torch.int32)
    total = experts.gate_up_proj + 2.0 * experts.gate_up_adapter.lora_B @ experts.gate_up_adapter.lora_A
    expected = torch.cat((rows[:2] @ total[0].T, rows[2:] @ total[1].T))
    base = torch.cat((rows[:2] @ experts.gate_up_proj[0].T, rows[2:] @ experts.gate_up_proj[1].T))
    found = experts.gate_up_adapter.grouped(rows, base, ends)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("targets", "has", "has_not"),
    [
        (("attention",), ".self_attn.", ".mlp."),
        (("mlp",), ".shared_experts.", ".experts.gate"),
        (("experts",), ".experts.gate_up_adapter.", ".self_attn."),
        ("all-linear", ".self_attn.", ".gate.weight"),
        ("o_proj", ".o_proj.", ".q_a_proj."),
        (("q_a_proj", "experts.down_proj"), ".experts.down_adapter.", ".gate_up_adapter."),
        (("self_attn.kv_b_proj", "shared_experts.up_proj"), ".shared_experts.up_proj.", ".down_proj."),
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
    with torch.no_grad():
        steps = [model(ids[:, :11], cache), *(model(ids[:, [t]], cache) for t in range(11, 19))]
    torch.testing.assert_close(torch.cat(steps, 1), logits(model), rtol=1e-4, atol=1e-4)


def test_merging_keeps_the_function_and_gives_an_ordinary_model(family, tmp_path, new_model, adapted, logits):
    model = adapted(family)
    names = new_model(family).state_dict().keys()
    before = logits(model)
    merge(model)
    before, unmerged = logits(model), before
    torch.testing.assert_close(before, unmerged, rtol=1e-4, atol=1e-4)
    assert model.state_dict().keys() == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    save_model(model, tmp_path / "model")
    assert torch.equal(logits(load_model(Checkpoint.open(tmp_path / "model"))), before)


def test_wrong_settings_are_refused(new_model, dense):
    for wrong in ({"rank": -1}, {"alpha": math.nan}, {"targets": ()}, {"targets": ("",)}):
        with pytest.raises(ConfigError, match=f"lora.{next(iter(wrong))}"):
            LoraConfig(**wrong)
    with pytest.raises(ConfigError, match="no such matrices"):
        add_adapters(new_model(dense), LoraConfig(rank=2, targets=("experts",)), torch.Generator())
    for name in ("router", "proj", "gate", "model.norm", "lm_head", "q_a_proj"):
        with pytest.raises(ConfigError, match=f"'{name}'.* no such matrices; choose from .*q_proj"):
            add_adapters(new_model(dense), LoraConfig(rank=2, targets=("mlp", name)), torch.Generator())
    with pytest.raises(ConfigError, match=r'set lora.targets=\["attention","mlp"\]'):
        add_adapters(new_model(), LoraConfig(rank=2, use_dora=True), torch.Generator())


def test_bfloat16_bases_keep_their_precision(new_model, rank3):
    model = new_model().bfloat16()
    add_adapters(model, rank3, torch.Generator().manual_seed(2))
    o_proj = model.model.layers[0].self_attn.o_proj
    assert o_proj.adapter.low_rank.apply(o_proj.weight).dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_fresh_adapters_of_every_form_change_nothing(use_dora, family, new_model, logits):
    plain, model = new_model(family), new_model(family)
    config = LoraConfig(rank=4, targets=("attention", "mlp"), use_dora=use_dora, use_rslora=True)
    add_adapters(model, config, torch.Generator().manual_seed(2))
    assert {target.adapter.scale for target in target_weights(model) if target.adapter} == {32.0 / 2}
    assert torch.equal(logits(plain), logits(model))


def test_dora_trains_lengths_apart_from_directions(adapted):
    model = adapted(settings=LoraConfig(rank=2, alpha=4.0, targets=("o_proj",), use_dora=True))
    o_proj = model.model.layers[0].self_attn.o_proj
    x = torch.randn(3, o_proj.in_features)
    total = o_proj.weight + 2.0 * (o_proj.adapter.lora_B @ o_proj.adapter.lora_A)
    lengths = o_proj.adapter.magnitude
    merged = o_proj.adapter.low_rank.apply(o_proj.weight)
    torch.testing.assert_close(merged.norm(dim=1), lengths.abs())
    torch.testing.assert_close(merged, lengths[:, None] * total / total.norm(dim=1, keepdim=True))
    torch.testing.assert_close(o_proj(x), x @ merged.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_switched_off_the_base_is_left_and_comes_back_after_an_error(use_dora, new_model, adapted, logits):
    model = adapted(settings=LoraConfig(rank=2, targets=("attention", "mlp"), use_dora=use_dora))
    before = logits(model)
    with adapters_off(model):
        assert torch.equal(logits(model), logits(new_model()))
    with pytest.raises(RuntimeError, match="inside"), adapters_off(model):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), before)
    assert (before - logits(new_model())).abs().max() > 0.1


def test_a_step_makes_no_gradient_and_no_copy_of_the_base(adapted, ids):
    """What makes it cheap: nothing of a matrix's size is kept for the backward pass or made in it."""
    model, large = adapted(settings=LoraConfig(rank=2, targets=("mlp",))), []
    width = model.model.layers[0].mlp.up_proj.weight.numel()
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(tensor):
        if tensor.numel() == width and tensor.data_ptr() not in own:
            large.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(ids[:1, :3]).square().mean()
    loss.backward()
    assert large == []
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
