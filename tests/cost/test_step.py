"""FLOPs of steps are those that PyTorch counts: dense, experts, MTP, Muon, LoRA, checkpointing, RL."""

from dataclasses import replace

import pytest
import torch

from shoestring import kernels
from shoestring.cost.optimizer import newton_schulz, stacks
from shoestring.cost.sampling import SamplingCounts, answer, prompt, sampling
from shoestring.cost.step import Adapters, Method, Pass, added, forward, learning
from shoestring.distill.reverse_kl import Sample, UpdateSettings, update
from shoestring.model.config import GQAConfig, ModelConfig
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize
from shoestring.train.losses import MicroBatch
from shoestring.train.optim import OptimConfig, build_optimizers
from shoestring.train.runs.flops import update_flops
from shoestring.train.step import StepSettings, train_step

V3 = replace(PRESETS["tiny"], num_nextn_predict_layers=2)
DENSE = ModelConfig(
    model_type="qwen2",
    vocab_size=300,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    attention=GQAConfig(num_key_value_heads=2, head_dim=8, qkv_bias=True),
)
SHAPES = {
    "dense": DENSE,
    "tied": replace(DENSE, tie_word_embeddings=True),
    "mtp": V3,
    "experts": replace(V3, num_nextn_predict_layers=0),
    "no query latent": replace(
        V3, num_nextn_predict_layers=1, attention=replace(V3.attention, q_lora_rank=None)
    ),
}
SETTINGS = StepSettings(lr_share=1.0, mtp_weight=0.3, bias_speed=0.0, balance_alpha=1e-4, max_grad_norm=1.0)


def model_of(config: ModelConfig) -> Transformer:
    return initialize(Transformer(config), torch.Generator().manual_seed(0)).train()


def batch_of(config: ModelConfig, rows: int = 2, length: int = 24, *, masked: bool = False) -> MicroBatch:
    ids = torch.randint(config.vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(length).expand(rows, length) % 3 == 0 if masked else None
    return MicroBatch(ids[:, :-1], ids[:, 1:], mask)


def products(flops: dict[str, float]) -> float:
    """What PyTorch's counter knows: all but the reading of rows."""
    return sum(value for name, value in flops.items() if name != "look-ups")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_of_pretraining(counted, name, optimizer, checkpointing):
    config = SHAPES[name]
    model, batch = model_of(config), batch_of(config)
    model.gradient_checkpointing = checkpointing
    optimizers = build_optimizers(model, OptimConfig(name=optimizer))
    depths = config.num_nextn_predict_layers
    work = Pass.of_rows(2, 24, (48,) * (1 + depths))
    flops = learning(config, work, Method(gradient_checkpointing=checkpointing))
    if optimizer == "muon":
        flops |= {"optimizer": newton_schulz(stacks(config, depths=depths), 5)}
    counter = counted(lambda: train_step(model, optimizers, [batch], SETTINGS))
    assert products(flops) == pytest.approx(counter, rel=0.01)


def test_a_step_without_its_mtp_modules(counted):
    model, batch = model_of(V3), batch_of(V3)
    optimizers = build_optimizers(model, OptimConfig(name="muon"))
    flops = added(learning(V3, Pass.of_rows(2, 24)), {"optimizer": newton_schulz(stacks(V3), 5)})
    counter = counted(lambda: train_step(model, optimizers, [batch], replace(SETTINGS, mtp_weight=0.0)))
    assert products(flops) == pytest.approx(counter, rel=0.01)


def test_a_masked_step_makes_logits_of_the_learned_tokens_alone(counted):
    config = SHAPES["experts"]
    model, batch = model_of(config), batch_of(config, masked=True)
    optimizers = build_optimizers(model, OptimConfig())
    flops = learning(config, Pass.of_rows(2, 24, (16,)))
    counter = counted(lambda: train_step(model, optimizers, [batch], SETTINGS))
    assert products(flops) == pytest.approx(counter, rel=0.01)


@pytest.mark.parametrize("name", ["dense", "experts"])
@pytest.mark.parametrize(
    "targets",
    [
        "all-linear",
        ("attention",),
        ("mlp",),
        ("o_proj",),
        ("q_proj", "k_proj", "v_proj", "up_proj"),
        ("experts",),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_of_lora(counted, name, targets, optimizer):
    config = SHAPES[name]
    if "experts" in targets and config.moe is None:
        pytest.skip("no experts")
    if "q_proj" in targets and config.moe is not None:
        targets = ("q_b_proj", "kv_b_proj", "up_proj")
    model, batch = model_of(config), batch_of(config)
    lora = LoraConfig(rank=4, targets=targets)
    add_adapters(model, lora, torch.Generator().manual_seed(2))
    optimizers = build_optimizers(model, OptimConfig(name=optimizer))
    adapters = Adapters(rank=4, names=lora.names)
    flops = learning(config, Pass.of_rows(2, 24), Method(adapters=adapters))
    if optimizer == "muon":
        flops["optimizer"] = newton_schulz(stacks(config, adapters=adapters), 5)
    counter = counted(lambda: train_step(model, optimizers, [batch], SETTINGS))
    assert products(flops) == pytest.approx(counter, rel=0.01)


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_step_of_lora_with_checkpointing(counted, use_dora):
    model, batch = model_of(DENSE), batch_of(DENSE)
    model.gradient_checkpointing = True
    lora = LoraConfig(rank=4, use_dora=use_dora)
    add_adapters(model, lora, torch.Generator().manual_seed(2))
    optimizers = build_optimizers(model, OptimConfig())
    adapters = Adapters(rank=4, names=lora.names, use_dora=use_dora)
    flops = learning(DENSE, Pass.of_rows(2, 24), Method(adapters=adapters, gradient_checkpointing=True))
    counter = counted(lambda: train_step(model, optimizers, [batch], SETTINGS))
    assert products(flops) == pytest.approx(counter, rel=0.01)


def test_a_pass_that_nothing_is_learned_from(counted):
    config = SHAPES["experts"]
    model, batch = model_of(config), batch_of(config)
    with torch.no_grad():
        counter = counted(lambda: model(batch.inputs_BT))
    assert products(forward(config, Pass.of_rows(2, 24))) == pytest.approx(counter, rel=0.001)


def test_answers_share_the_pairs_of_their_prompt():
    work = Pass.of_segments([(10, 0), (3, 1), (4, 1), (5, 0)], predictions=7)
    assert work.tokens == 22
    assert work.pairs == 55 + (30 + 6) + (40 + 10) + 15


def test_v3_is_the_papers_250_gflop_per_token():
    """ISCA'25, table 2: 250 GFLOP per token at 4,096, without the MTP module."""
    v3 = PRESETS["deepseek-v3"]
    per_token = sum(learning(v3, Pass.of_rows(1, 4096)).values()) / 4096
    assert per_token == pytest.approx(250e9, rel=0.01)


def test_reinforcement_learns_from_answers_that_share_their_prompt(counted):
    config = SHAPES["experts"]
    model = model_of(config)
    lengths = [(10, 0), (3, 1), (4, 1)]
    ids = torch.arange(17) % config.vocab_size
    positions = torch.tensor([*range(10), *range(10, 13), *range(10, 14)])
    at = torch.tensor([9, 10, 11, 12, 9, 13, 14, 15, 16])

    def learn():
        features = model.features(ids[None], None, positions[None], segments_S2=torch.tensor(lengths))
        logp = kernels.token_logprobs(features.hidden_BTD[0, at], model.head_weight_WD, ids[at])
        logp.sum().backward()

    flops = learning(config, Pass.of_segments(lengths, 9), Method(logits_again=True))
    assert products(flops) == pytest.approx(counted(learn), rel=0.01)


def test_on_policy_distillation_makes_the_logits_of_both_models_twice(counted):
    config, teacher = DENSE, replace(DENSE, num_hidden_layers=2, hidden_size=60)
    student = model_of(config)
    samples = [Sample(ids=tuple(range(n, n + 12)), num_answer_tokens=5, is_truncated=False) for n in range(3)]
    settings = UpdateSettings(vocab_size=300, micro_tokens=1000, rows=64, max_grad_norm=1.0, lr_share=1.0)
    optimizers = build_optimizers(student, OptimConfig())
    work = Pass.of_rows(3, 11, (15,))
    flops = added(
        learning(config, work, Method(logits_again=True)), forward(teacher, replace(work, predictions=(30,)))
    )
    counter = counted(lambda: update(student, model_of(teacher), optimizers, samples, settings))
    assert products(flops) == pytest.approx(counter, rel=0.01)


@pytest.mark.parametrize("name", SHAPES)
def test_sampling_over_a_cache(counted, name):
    config = SHAPES[name]
    model = model_of(config)
    ids = torch.arange(30)[None] % config.vocab_size

    def sample():
        cache = model.new_cache(1, 30)
        with torch.no_grad():
            hidden = model.features(ids[:, :20], cache).hidden_BTD
            model.logits(hidden[:, -1:])
            for t in range(20, 29):
                model.logits(model.features(ids[:, t : t + 1], cache).hidden_BTD)

    flops = sampling(config, prompt(20) + answer(20, 10))
    exact = sum(flops.values())
    # The dense cache's own attention looks at every key that there is, also where the mask hides it.
    hidden_pairs = sampling(config, SamplingCounts(pairs=20 * 20 - 210))["sampling"]
    assert exact + hidden_pairs == pytest.approx(counted(sample), rel=0.01)


@pytest.mark.parametrize("name", SHAPES)
def test_the_optimizers_own_matrices_are_those_of_the_shape(name):
    config = SHAPES[name]
    model, depths = model_of(config), config.num_nextn_predict_layers
    optimizers = build_optimizers(model, OptimConfig(name="muon"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    shape = newton_schulz(stacks(config, depths=depths), 5)
    assert update_flops(optimizers) == {"optimizer": shape}
