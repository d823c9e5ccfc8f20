from dataclasses import replace

import pytest
import torch

from shoestring import kernels
from shoestring.low_precision.model import set_precision, simulate_fp8
from shoestring.model.layers import MLP, Linear
from shoestring.model.moe import Experts
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize


@pytest.fixture
def model():
    model = Transformer(replace(TINY, num_nextn_predict_layers=1))
    initialize(model, torch.Generator().manual_seed(1))
    return model


def gradients(model):
    ids = torch.arange(64).view(2, 32) % model.config.vocab_size
    logits = model(ids)
    model.zero_grad()
    logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None]).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_the_products_of_blocks_change_and_nothing_else(model):
    names = set(model.state_dict())
    simulate_fp8(model)
    assert set(model.state_dict()) == names
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            assert (module.product is kernels.linear) == name.startswith("lm_head"), name
        if isinstance(module, Experts):
            assert module.product is not kernels.grouped_linear
        if isinstance(module, MLP):
            assert module.activation is not kernels.swiglu


@pytest.mark.parametrize("options", [{}, {"fp4_experts": True}, {"block_gradients": True}])
def test_logits_and_gradients_are_near_those_of_float32(model, options):
    exact_logits, exact = gradients(model)
    simulate_fp8(model, **options)
    logits, found = gradients(model)
    assert found.keys() == exact.keys()
    bound = 0.3 if options.get("fp4_experts") else 0.15
    assert 0 < (logits - exact_logits).norm() / exact_logits.norm() < bound
    for name, gradient in exact.items():
        if gradient.norm() > 1e-3:
            assert (found[name] - gradient).norm() / gradient.norm() < 3 * bound, name


def test_six_bits_are_kept_after_attention_only(model):
    simulate_fp8(model)
    kept = [
        name
        for name, module in model.model.layers.named_modules()
        if isinstance(module, Linear) and module.product.keywords["precision"].keeps_six_bits
    ]
    assert kept
    assert all(name.endswith("self_attn.o_proj") for name in kept)


@pytest.mark.parametrize(
    ("precision", "bf16", "fp8"), [("auto", 0, 0), ("bf16", 1, 0), ("fp8", 1, 1), ("fp4", 1, 1)]
)
def test_a_recipes_precision_reaches_the_model(model, precision, bf16, fp8):
    set_precision(model, precision)
    assert (model.multiplies_in_bf16, model.multiplies_in_fp8) == (bool(bf16), bool(fp8))
    head = [module for name, module in model.named_modules() if name.startswith("lm_head")]
    assert all((module.product is kernels.linear_bf16) == bool(bf16) for module in head)
    experts = next(module for module in model.modules() if isinstance(module, Experts))
    if fp8:
        block = experts.product.keywords["precision"].weight_block
        assert block == ((1, 32) if precision == "fp4" else (128, 128))
