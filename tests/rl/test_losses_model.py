"""The same identities through a small Transformer with MLA and experts, its gradients and its optimizers."""

import copy
import math

import pytest
import torch
from torch import Tensor

from shoestring.errors import NonFiniteError
from shoestring.model.config import MLAConfig, ModelConfig, MoEConfig
from shoestring.model.transformer import Transformer, initialize
from shoestring.rl.advantage import advantages
from shoestring.rl.losses import PolicyLossConfig, denominators, loss_mask, policy_loss
from shoestring.train.optim import OptimConfig, build_optimizers

KINDS = ("grpo", "dr_grpo", "dapo", "gspo")
EVERYTHING = {"beta": 0.1, "off_policy_mask_threshold": 0.05, "negative_scale": 0.3}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_option = pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "all-options"])


TINY = ModelConfig(
    model_type="deepseek_v3",
    vocab_size=23,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    attention=MLAConfig(q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8),
    moe=MoEConfig(
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
    ),
    max_position_embeddings=64,
    initializer_range=0.2,
)
PROMPT = 3


@pytest.fixture
def model() -> Transformer:
    return initialize(Transformer(TINY), torch.Generator().manual_seed(0)).train()


@pytest.fixture
def rollout() -> dict[str, Tensor]:
    """Eight answers of 1 to 9 tokens to prompts of three, two groups with their advantages."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 10, (8,), generator=generator)
    rewards_GX = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    return {
        "ids": torch.randint(0, 23, (8, PROMPT + 9), generator=generator),
        "mask": torch.arange(9)[None] < lengths[:, None],
        "advantages": advantages(rewards_GX, rewards_GX >= 0, "grpo").values_GX.flatten(),
    }


def chosen_logp(model: Transformer, ids: Tensor) -> Tensor:
    """Log-probabilities (B, T) of the tokens after the prompt."""
    logp_NTW = model(ids[:, :-1])[:, PROMPT - 1 :].log_softmax(-1)
    return logp_NTW.gather(-1, ids[:, PROMPT:, None])[..., 0]


def gradient_of(model, rollout, old, ref, parts: int = 1, **options) -> Tensor:
    """Of all parameters as one vector, in `parts` micro-batches."""
    model.zero_grad()
    whole = denominators(rollout["mask"].sum(1).tolist(), 9)
    for rows in torch.arange(len(rollout["ids"])).chunk(parts):
        logp = chosen_logp(model, rollout["ids"][rows])
        policy_loss(
            logp, old[rows], ref[rows], rollout["advantages"][rows], rollout["mask"][rows],
            PolicyLossConfig(**options), denominators=whole,
        ).loss.backward()  # fmt: skip
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def others(model, rollout) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a sampling policy and of a reference near the model."""
    found = []
    with torch.no_grad():
        for seed in (1, 2):
            near, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
            for parameter in near.parameters():
                parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
            found.append(chosen_logp(near, rollout["ids"]))
    return found[0], found[1]


@every_option
@every_kind
def test_model_micro_batches_are_one_batch(model, rollout, others, kind, options):
    whole = gradient_of(model, rollout, *others, loss_type=kind, **options)
    for parts in (2, 8):
        cut = gradient_of(model, rollout, *others, parts=parts, loss_type=kind, **options)
        torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)
    assert float(whole.norm()) > 0.01


@every_kind
def test_model_padding_changes_nothing(model, rollout, others, kind):
    """Five more columns and two more rows of other tokens."""
    whole = gradient_of(model, rollout, *others, loss_type=kind, **EVERYTHING)
    wider = {
        "ids": torch.nn.functional.pad(rollout["ids"], (0, 5, 0, 2), value=11),
        "mask": torch.nn.functional.pad(rollout["mask"], (0, 5, 0, 2), value=False),
        "advantages": torch.nn.functional.pad(rollout["advantages"], (0, 2), value=9.0),
    }
    old, ref = (torch.nn.functional.pad(x, (0, 5, 0, 2), value=math.nan) for x in others)
    padded = gradient_of(model, wider, old, ref, loss_type=kind, **EVERYTHING)
    torch.testing.assert_close(padded, whole, rtol=1e-5, atol=1e-6)


@every_kind
def test_model_on_policy_gradient_is_reinforce(model, rollout, others, kind):
    logp = chosen_logp(model, rollout["ids"])
    found = gradient_of(model, rollout, logp.detach(), others[1], loss_type=kind)
    mask, length = rollout["mask"], rollout["mask"].sum(1, keepdim=True)
    weight = {"dapo": 1 / mask.sum(), "dr_grpo": 1 / (8 * 9)}.get(kind, 1 / (8 * length))
    model.zero_grad()
    (-rollout["advantages"][:, None] * weight * mask * logp).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@every_kind
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_all_truncated_leaves_weights_bitwise_unchanged(model, rollout, others, kind, optimizer):
    mask = loss_mask(
        rollout["mask"],
        valid_B=torch.ones(8, dtype=torch.bool),
        truncated_B=torch.ones(8, dtype=torch.bool),
        config=PolicyLossConfig(mask_truncated_completions=True),
    )
    assert denominators(mask.sum(1).tolist(), 9).sequences == 0
    before = copy.deepcopy(model.state_dict())
    gradient = gradient_of(model, rollout | {"mask": mask}, *others, loss_type=kind, **EVERYTHING)
    assert not gradient.any()
    build_optimizers(model, OptimConfig(name=optimizer, weight_decay=0.0)).step(1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_nan_leaves_weights_and_moments_bitwise_unchanged(model, rollout, others):
    optimizers = build_optimizers(model, OptimConfig())
    gradient_of(model, rollout, *others)
    optimizers.step(1.0)
    before = copy.deepcopy((model.state_dict(), optimizers.state_dict()))
    broken = others[0].clone()
    broken[7, 0] = math.nan
    with pytest.raises(NonFiniteError, match="the sampling policy's log-probabilities"):
        gradient_of(model, rollout, broken, others[1], parts=4)  # so a step is never reached
    weights, moments = before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for index, state in optimizers.state_dict()["0"]["state"].items():
        assert all(torch.equal(value, moments["0"]["state"][index][name]) for name, value in state.items())


def test_a_step_makes_good_answers_likelier(model, rollout, others):
    """The sign, end to end."""
    old = chosen_logp(model, rollout["ids"]).detach()
    gradient_of(model, rollout, old, others[1])
    build_optimizers(model, OptimConfig(lr=1e-3, weight_decay=0.0)).step(1.0)
    change_B = ((chosen_logp(model, rollout["ids"]).detach() - old) * rollout["mask"]).sum(1)
    assert float((change_B * rollout["advantages"]).sum()) > 0
