"""Adapters on packed weights: the loss and gradients of LoRA on the weights that the integers stand for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.hf.peft import load_adapter, save_adapter
from shoestring.model.lora import LoraConfig, adapters_off, add_adapters, merge, target_weights
from shoestring.model.packed.frozen import FrozenLinear, is_frozen, num_packed, thaw
from shoestring.model.packed.quantize import load_for_inference, load_frozen, quantize_checkpoint
from shoestring.model.presets import DEMO, TINY
from shoestring.model.transformer import Transformer, initialize

assert isinstance(DEMO.attention, MLAConfig)
V3 = replace(
    DEMO,
    vocab_size=200,
    initializer_range=0.1,
    attention=replace(DEMO.attention, q_lora_rank=64, kv_lora_rank=64, qk_nope_head_dim=32),
)
QWEN = replace(
    TINY,
    model_type="qwen2",
    vocab_size=200,
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    initializer_range=0.1,
    attention=GQAConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    moe=None,
    rope=RopeConfig(),
    num_nextn_predict_layers=0,
)
QWEN_MOE = replace(
    QWEN,
    model_type="qwen3_moe",
    attention=GQAConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
    moe=MoEConfig(
        n_routed_experts=6,
        n_shared_experts=0,
        num_experts_per_tok=6,
        moe_intermediate_size=32,
        mlp_only_layers=(1,),
        scoring_func="softmax",
        topk_method="greedy",
    ),
)
CONFIGS = {"v3": V3, "qwen2": QWEN, "qwen3 moe": QWEN_MOE}
IDS = torch.randint(0, 200, (2, 23), generator=torch.Generator().manual_seed(1))
Make = Callable[..., Checkpoint]


@pytest.fixture
def packed(tmp_path: Path) -> Make:
    """Makes a packed checkpoint of a random model."""

    def make(config: ModelConfig, form: str = "int4") -> Checkpoint:
        model = initialize(Transformer(config), torch.Generator().manual_seed(0))
        save_model(model, tmp_path / "plain")
        quantize_checkpoint(Checkpoint.open(tmp_path / "plain"), tmp_path / form, form)
        return Checkpoint.open(tmp_path / form)

    return make


def with_adapters(model: Transformer, settings: LoraConfig) -> Transformer:
    add_adapters(model, settings, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.empty_like(parameter).normal_(0.0, 0.1, generator=generator)
    return model


def gradients(model: Transformer, loss: Callable[[Transformer], torch.Tensor]) -> list[torch.Tensor]:
    adapted = [target.adapter for target in target_weights(model) if target.adapter is not None]
    loss(model).backward()
    return [parameter.grad for adapter in adapted for parameter in adapter.parameters()]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", ["int4", "int8"])
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_gradients_are_those_of_lora_on_the_dequantized_weights(name, form, use_dora, packed):
    targets = ("attention", "mlp") if use_dora else ("all-linear",)
    settings = LoraConfig(rank=4, alpha=8.0, targets=targets, use_dora=use_dora)
    frozen = load_frozen(packed(CONFIGS[name], form))
    plain = with_adapters(thaw(frozen), settings)
    frozen = with_adapters(frozen, settings)
    assert is_frozen(frozen)
    assert not is_frozen(plain)

    def loss(model: Transformer) -> torch.Tensor:
        return model(IDS).log_softmax(-1).square().mean()

    torch.testing.assert_close(frozen(IDS), plain(IDS), rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(frozen, loss), gradients(plain, loss)
    assert len(ours) > 4
    for own, other in zip(ours, theirs, strict=True):
        assert (own - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1.0)
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


def test_a_tied_head_and_its_hidden_states(packed):
    frozen = with_adapters(load_frozen(packed(replace(QWEN, tie_word_embeddings=True))), LoraConfig(rank=4))
    plain = thaw(frozen)
    torch.testing.assert_close(
        frozen.features(IDS).hidden_BTD, plain.features(IDS).hidden_BTD, rtol=1e-4, atol=1e-4
    )
    head = frozen.head_weight_WD
    assert (head - plain.head_weight_WD).abs().max() <= head.abs().max() / 64  # the packed head is int8
    torch.testing.assert_close(frozen(IDS), frozen.features(IDS).hidden_BTD @ head.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_of_a_matrix_s_size_is_kept_for_the_backward_pass(name, packed):
    """What makes it small: packed bytes and low-rank factors, and no unpacked matrix between the passes."""
    frozen = with_adapters(load_frozen(packed(CONFIGS[name])), LoraConfig(rank=2))
    shapes = {tuple(sorted(target.shape)) for target in target_weights(frozen)}
    large: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(sorted(tensor.shape)) in shapes:
            large.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = frozen.features(IDS[:1, :5]).hidden_BTD.square().mean()
    loss.backward()
    assert large == []
    assert all(parameter.grad is None for parameter in frozen.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", ["int4", "int8"])
def test_an_adapter_is_loaded_beside_packed_weights_for_serving(name, form, packed, tmp_path):
    base = packed(CONFIGS[name], form)
    trained = with_adapters(load_frozen(base), LoraConfig(rank=4, alpha=8.0))
    save_adapter(trained, tmp_path / "adapter", base=str(base.folder))
    served = load_for_inference(replace(base, adapters=(tmp_path / "adapter",)))
    with torch.no_grad():
        expected, exact = trained(IDS), served(IDS)
        with torch.inference_mode():  # integer activations, as the engine has
            found, base_logits = served(IDS), load_for_inference(base)(IDS)
    torch.testing.assert_close(exact, expected, rtol=1e-4, atol=1e-4)
    spread = expected.std()
    assert (found - expected).std() < (0.002 if form == "int8" else 0.1) * spread
    assert (base_logits - expected).std() > 0.2 * spread
    plain = load_frozen(base)
    load_adapter(plain, tmp_path / "adapter")
    with adapters_off(plain), torch.no_grad():
        torch.testing.assert_close(plain(IDS), load_frozen(base)(IDS), rtol=1e-5, atol=1e-5)


def test_thawed_with_its_adapter_it_is_the_merged_model(packed):
    frozen = with_adapters(load_frozen(packed(V3)), LoraConfig(rank=4))
    other = with_adapters(thaw(load_frozen(packed_again(packed))), LoraConfig(rank=4))
    merge(other)
    plain = thaw(frozen)
    for (name, own), (_, theirs) in zip(plain.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("config", [*CONFIGS.values(), replace(QWEN, tie_word_embeddings=True)])
def test_packed_weights_are_counted(config, packed):
    frozen = load_frozen(packed(config))
    count = sum(parameter.numel() for parameter in frozen.parameters())
    assert count + num_packed(frozen) == sum(parameter.numel() for parameter in thaw(frozen).parameters())


def packed_again(packed: Make) -> Checkpoint:
    """The checkpoint that the test has made already."""
    return Checkpoint.open(packed.__closure__[0].cell_contents / "int4")


def test_the_packed_tensors_are_shared_and_the_base_takes_no_more_memory(packed):
    model = load_frozen(packed(QWEN))
    linear = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    packed_bytes = sum(module.blocks.numel() for module in linear)
    weights = sum(module.out_features * module.in_features for module in linear)
    assert packed_bytes / weights < 0.75  # int4 with its scales, and the int8 head
    storages = {module.blocks.untyped_storage().data_ptr() for module in linear}
    assert len(storages) < len(linear)  # gate and up are parts of one
