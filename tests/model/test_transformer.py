"""The whole model: cached decoding, causality, initialization, precision."""

import copy
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from shoestring.kernels import cpu_build, ops
from shoestring.kernels.bf16 import linear_bf16
from shoestring.model.attention import attention_class
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, RopeConfig
from shoestring.model.cost import cache_bytes_per_token, parameters
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

TINY = replace(PRESETS["tiny"], initializer_range=0.2)
assert isinstance(TINY.attention, MLAConfig)
assert TINY.moe is not None
GROUPS = replace(
    TINY.moe, topk_method="group_limited_greedy", scoring_func="softmax", n_group=4, topk_group=2
)
YARN = RopeConfig(
    rope_type="yarn", interleave=True, factor=4.0, original_max_position_embeddings=16, mscale_all_dim=0.707
)
CONFIGS = {
    "v3": TINY,
    "v3-dense": replace(TINY, moe=None, num_nextn_predict_layers=0),
    "v3-direct": replace(TINY, attention=replace(TINY.attention, q_lora_rank=None), rope=YARN),
    "v2": replace(TINY, model_type="deepseek_v2", moe=GROUPS, num_nextn_predict_layers=0),
    "qwen2": replace(
        *(TINY,),
        model_type="qwen2",
        attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
        moe=None,
        rope=RopeConfig(),
        tie_word_embeddings=True,
        num_nextn_predict_layers=0,
    ),
}
B, T = 2, 26
ROUNDING = 1e-5


def build(config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> Transformer:
    return initialize(Transformer(config, compute_dtype), torch.Generator().manual_seed(2))


def ids(config: ModelConfig) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (B, T), generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("pieces", [[1] * T, [T], [9, *[1] * 17], [4, 13, 1, 8]])
@pytest.mark.parametrize("name", CONFIGS)
def test_cached_decoding_is_the_full_forward(name: str, pieces: list[int]) -> None:
    model, ids_BT = build(CONFIGS[name]), ids(CONFIGS[name])
    cache = model.new_cache(B, T)
    with torch.no_grad():
        full = model(ids_BT)
        parts = []
        for piece in pieces:
            parts.append(model(ids_BT[:, cache.length : cache.length + piece], cache))
    assert cache.length == T
    difference = (torch.cat(parts, dim=1) - full).abs().max().item()
    print(f"largest difference {difference:.1e} of logits up to {full.abs().max():.1f}")
    assert full.std() > 0.3
    assert difference < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_token_changes_no_earlier_logit(name: str) -> None:
    """Bit for bit, at the edges of the kernels' blocks too. With experts, but for rounding: a product of an
    expert's rows may round each row differently when the number of rows changes."""
    tolerance = 0.0 if CONFIGS[name].moe is None else ROUNDING
    model = build(CONFIGS[name])
    ids_BT = torch.randint(0, model.config.vocab_size, (1, 70), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        before = model(ids_BT)
        for place in (0, 1, 23, 24, 31, 32, 48, 69):
            changed = ids_BT.clone()
            changed[:, place] = (changed[:, place] + 1) % model.config.vocab_size
            after = model(changed)
            torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=tolerance)
            assert (after[:, place] - before[:, place]).abs().max() > 0.1


def test_mtp_is_causal_too() -> None:
    """State t of module k has seen tokens up to t + k + 1, so it may predict t + k + 2."""
    model = build(replace(TINY, num_nextn_predict_layers=2))
    ids_BT = ids(TINY)

    def states(ids_BT: torch.Tensor) -> list[torch.Tensor]:
        first = model.mtp_features(model.features(ids_BT).hidden_BTD[:, :-1], ids_BT[:, 1:], 0)
        second = model.mtp_features(first.hidden_BTD[:, :-1], ids_BT[:, 2:], 1)
        return [first.hidden_BTD, second.hidden_BTD]

    changed = ids_BT.clone()
    changed[:, 12] = (changed[:, 12] + 1) % TINY.vocab_size
    with torch.no_grad():
        for depth, (before, after) in enumerate(zip(states(ids_BT), states(changed), strict=True)):
            unseen = 12 - depth - 1
            torch.testing.assert_close(before[:, :unseen], after[:, :unseen], rtol=0, atol=ROUNDING)
            assert (before[:, unseen] - after[:, unseen]).abs().max() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_is_as_large_as_said(name: str) -> None:
    config = CONFIGS[name]
    cache = build(config).new_cache(B, 7)
    spec = attention_class(config).cache_spec(config)
    held = [layer._entries for layer in cache.layers]
    assert len(held) == config.num_hidden_layers
    assert all(
        {n: x.shape for n, x in layer.items()} == {n: (B, 7, *s) for n, s in spec.items()} for layer in held
    )
    assert sum(x.nbytes for layer in held for x in layer.values()) == B * 7 * cache_bytes_per_token(config, 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_as_many_parameters_as_counted(name: str) -> None:
    model, count = Transformer(CONFIGS[name]), parameters(CONFIGS[name])
    assert sum(p.numel() for p in model.parameters()) == count.total + count.mtp


def test_initialization_is_its_seeds() -> None:
    config = replace(CONFIGS["qwen2"], initializer_range=0.02)
    first, again, other = (
        initialize(Transformer(config), torch.Generator().manual_seed(seed)).state_dict()
        for seed in (1, 1, 2)
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        if tensor.dim() > 1:
            assert not torch.equal(tensor, other[name])
            assert math.isclose(tensor.std().item(), 0.02, rel_tol=0.2)
        else:
            assert (tensor == (0.0 if name.endswith("bias") else 1.0)).all()


def test_initialization_balances_no_expert() -> None:
    biases = {n: b for n, b in build(TINY).named_buffers() if n.endswith("e_score_correction_bias")}
    assert biases
    assert not any(bias.any() for bias in biases.values())


def test_every_moe_layer_reports_its_routing() -> None:
    model = build(TINY)
    features = model.features(ids(TINY))
    layers = [i for i in range(TINY.num_hidden_layers) if TINY.is_moe_layer(i)]
    assert list(features.routings) == layers
    mtp = model.mtp_features(features.hidden_BTD, ids(TINY))
    assert list(mtp.routings) == [TINY.num_hidden_layers]
    for routing in (*features.routings.values(), *mtp.routings.values()):
        assert routing.experts_NK.shape == (B * T, TINY.moe.num_experts_per_tok)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_processes_that_hold_one_layer_each_are_the_whole_model(name: str, cached: bool) -> None:
    config = CONFIGS[name]
    model, ids_BT, layers = build(config), ids(config), range(config.num_hidden_layers)
    expected = model.features(ids_BT, model.new_cache(B, T) if cached else None)
    x_BTD, routings = model.model.embed_tokens(ids_BT), {}
    for index in layers:
        stage = copy.deepcopy(model)
        for other in layers:
            if other != index:
                stage.model.layers[other] = None
        own = {name for name in model.state_dict() if name.startswith(f"model.layers.{index}.")}
        missing = set(model.state_dict()) - set(stage.state_dict())
        assert own
        assert not own & missing  # its tensors have the names that they have in the whole model
        x_BTD, routed = stage.run_layers(
            x_BTD, torch.arange(T).expand(B, T), stage.new_cache(B, T) if cached else None
        )
        routings |= routed
    assert torch.equal(model.model.norm(x_BTD), expected.hidden_BTD)
    assert routings.keys() == expected.routings.keys()
    for index, routing in routings.items():
        assert torch.equal(routing.scores_NE, expected.routings[index].scores_NE)


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_activations_on_the_cpu(name: str) -> None:
    config = replace(CONFIGS[name], initializer_range=0.1)
    exact, half, ids_BT = build(config), build(config, torch.bfloat16), ids(config)
    wanted, got = exact(ids_BT), half(ids_BT)
    assert got.dtype == torch.float32
    assert half.features(ids_BT).hidden_BTD.dtype == torch.bfloat16
    error = (got - wanted).pow(2).mean().sqrt() / wanted.std()
    print(f"relative error {error:.1e}")
    assert error < 0.1  # a token near a routing tie may take another expert
    for logits in (wanted, got):
        logits.square().mean().backward()
    for (key, ours), (_, other) in zip(half.named_parameters(), exact.named_parameters(), strict=True):
        if other.grad is None:
            assert ours.grad is None, key
            continue
        assert ours.grad.dtype == torch.float32
        assert ours.grad.isfinite().all(), key
        alignment = torch.cosine_similarity(ours.grad.flatten(), other.grad.flatten(), dim=0)
        assert alignment > 0.9, key


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_parameters_computed_in_float32(name: str) -> None:
    model = build(CONFIGS[name])
    rounded = build(CONFIGS[name])
    for ours, theirs in zip(model.parameters(), rounded.parameters(), strict=True):
        ours.data = ours.data.bfloat16()
        theirs.data = theirs.data.bfloat16().float()
    with torch.no_grad():
        torch.testing.assert_close(model(ids(CONFIGS[name])), rounded(ids(CONFIGS[name])), rtol=0, atol=1e-4)


@pytest.fixture(params=["fast", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the compiled kernels, and as if there were no compiler."""
    ops.pick.cache_clear()
    if request.param == "plain":
        monkeypatch.setattr(cpu_build, "library", lambda: None)
    yield
    ops.pick.cache_clear()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_nan_anywhere_reaches_the_logits(name: str, kernels: None) -> None:
    """A spoiled weight may not hide: training stops on a loss that is not finite, and on nothing else."""
    model, ids_BT = build(replace(CONFIGS[name], num_nextn_predict_layers=0)), ids(CONFIGS[name])
    with torch.no_grad():
        assert model(ids_BT).isfinite().all()
        for key, tensor in model.state_dict().items():
            kept = tensor.clone()
            if not key.endswith("e_score_correction_bias"):  # it moves choices only
                tensor.view(-1)[::7] = math.nan
                assert not model(ids_BT).isfinite().all(), key
            tensor.copy_(kept)


def test_a_bfloat16_model_decodes_from_its_cache() -> None:
    model, ids_BT = build(TINY, torch.bfloat16), ids(TINY)
    cache = model.new_cache(B, T)
    with torch.no_grad():
        full = model(ids_BT)
        parts = torch.cat([model(ids_BT[:, t : t + 1], cache) for t in range(T)], dim=1)
    assert cache.layers[0]._entries["latent"].dtype == torch.bfloat16
    assert (parts - full).pow(2).mean().sqrt() / full.std() < 0.2


def test_an_empty_model_does_not_load_pytorchs_compiler() -> None:
    """Its import takes 70 MB and seconds, before every answer of a model that is served."""
    code = (
        "import sys, torch\n"
        "from shoestring.model.presets import PRESETS\n"
        "from shoestring.model.transformer import Transformer\n"
        "with torch.device('meta'): Transformer(PRESETS['tiny'])\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_products_in_bfloat16_of_a_float32_model(name: str) -> None:
    """Every matrix but the router's is rounded for its products; activations and gradients are float32."""
    config = replace(CONFIGS[name], initializer_range=0.1)
    exact, rounded, ids_BT = build(config), build(config), ids(config)
    rounded.multiply_in_bf16()
    wanted, got = (model.features(ids_BT).hidden_BTD for model in (exact, rounded))
    assert got.dtype == torch.float32
    error = (got - wanted).detach().pow(2).mean().sqrt() / wanted.detach().std()
    assert 1e-5 < error < 0.1  # a token near a routing tie may take another expert
    for features in (wanted, got):
        features.square().mean().backward()
    for (key, ours), (_, other) in zip(rounded.named_parameters(), exact.named_parameters(), strict=True):
        assert (ours.grad is None) == (other.grad is None), key
    assert linear_bf16 not in {getattr(m, "product", None) for m in exact.modules()}
