"""The loss of 20 steps of a tiny V3-shaped model: a refactor must reproduce it.

A change that is meant to change the numbers (another initialization, order of data, update) writes them anew:
`python tests/golden/test_loss_curve.py`, with the reason in the commit.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.kernels import ops, reference
from shoestring.model.config import MLAConfig, ModelConfig, MoEConfig
from shoestring.model.transformer import Transformer, initialize
from shoestring.train import schedule
from shoestring.train.optim import OptimConfig, build_optimizers
from shoestring.train.step import StepSettings, micro_batches, train_step

GOLDEN = Path(__file__).with_name("loss_curve.json")
STEPS, ROWS, LENGTH = 20, 4, 32
# Of a value. Weights perturbed by 1e-6 of themselves, more than sums in another order on another CPU do, move
# no value by more than 1e-6; both sets of kernels are 3e-7 apart.
TOLERANCE = {"fast": 1e-4, "reference": 1e-5}
PLAN = schedule.ScheduleConfig(warmup_ratio=0.2, constant_until=0.6, mtp_drop_at=0.5)
SHAPE = ModelConfig(
    model_type="deepseek_v3",
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    attention=MLAConfig(
        q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8
    ),
    moe=MoEConfig(
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
        n_group=2,
        topk_group=1,
    ),
    num_nextn_predict_layers=1,
)


def corpus() -> torch.Tensor:
    """Rows of a noisy cycle, from integers alone, so that no library's generator has a part in it."""
    number, ids = 1, []
    for place in range(STEPS * ROWS * (LENGTH + 1)):
        number = (1_103_515_245 * number + 12_345) % 2**31  # the C standard's example
        ids.append((7 * place + (number >> 16) % 5) % SHAPE.vocab_size)
    return torch.tensor(ids).view(STEPS, ROWS, LENGTH + 1)


def initial_weights(model: Transformer) -> None:
    """Numbers from the same generator: torch's own differ between its versions."""
    initialize(model, torch.Generator())
    generator = np.random.Generator(np.random.PCG64(0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                uniform = generator.random(tuple(parameter.shape)) - 0.5
                parameter.copy_(torch.from_numpy(0.2 * uniform))


def curve(optimizer: str) -> dict[str, list[float]]:
    """Loss, MTP loss and gradient norm of every step."""
    model = Transformer(SHAPE)
    initial_weights(model)
    optimizers = build_optimizers(model, OptimConfig(name=optimizer, lr=3e-3))
    stats = []
    for step, ids in enumerate(corpus()):
        settings = StepSettings(
            lr_share=schedule.learning_rate_share((step + 1) / STEPS, PLAN),
            mtp_weight=schedule.mtp_weight(step / STEPS, PLAN),
            bias_speed=schedule.bias_speed(step / STEPS, PLAN),
            balance_alpha=1e-3,
            max_grad_norm=1.0,
        )
        batches = micro_batches(ids[:, :-1], ids[:, 1:].contiguous(), 2)
        stats.append(train_step(model, optimizers, batches, settings))
    names = ("nll", "mtp_nll", "balance", "grad_norm")
    return {name: [getattr(one, name) for one in stats] for name in names}


@pytest.fixture(params=["fast", "reference"])
def kernels(request, monkeypatch):
    """The kernels of this machine, or plain PyTorch."""
    if request.param == "reference":
        monkeypatch.setattr(ops, "pick", lambda op, *_: getattr(reference, op))
    return request.param


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_curve_is_reproduced(kernels, optimizer):
    golden = json.loads(GOLDEN.read_text())[optimizer]
    for name, values in curve(optimizer).items():
        assert values == pytest.approx(golden[name], rel=TOLERANCE[kernels]), name


def test_the_model_learns_in_20_steps():
    golden = json.loads(GOLDEN.read_text())
    for curves in golden.values():
        assert curves["nll"][-1] < 0.9 * curves["nll"][0]


if __name__ == "__main__":
    curves = {
        name: {k: [round(x, 6) for x in v] for k, v in curve(name).items()} for name in ("adamw", "muon")
    }
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")
    sys.stdout.write(f"wrote {GOLDEN}\n")
