import copy
from dataclasses import replace

import pytest
import torch

from shoestring.errors import NonFiniteError
from shoestring.train import state
from shoestring.train.losses import MicroBatch, next_token_losses
from shoestring.train.optim import OptimConfig, build_optimizers
from shoestring.train.step import StepSettings, micro_batches, train_step

SETTINGS = StepSettings(lr_share=1.0, mtp_weight=0.3, bias_speed=0.001, balance_alpha=1e-3, max_grad_norm=1.0)


def rows(count=6, seed=0):
    ids = torch.randint(0, 300, (count, 13), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:].contiguous()


def parts(seed=0):
    """The rows in micro-batches of two."""
    return micro_batches(*rows(seed=seed), 2)


def everything(model, optimizers) -> dict[str, torch.Tensor]:
    """Weights, bias and moments, copied."""
    tensors, _ = state.flatten(optimizers.state_dict())
    return {name: t.detach().clone() for name, t in {**model.state_dict(), **tensors}.items()}


def same(one, other) -> bool:
    """Bit for bit, so that NaN equals itself."""
    return one.keys() == other.keys() and all(
        torch.equal(
            t.view(torch.uint8) if t.dim() else t, other[n].view(torch.uint8) if t.dim() else other[n]
        )
        for n, t in one.items()
    )


@pytest.fixture
def trained(tiny_model):
    """A model three steps in, so that there are moments and biases to lose."""
    model = tiny_model()
    optimizers = build_optimizers(model, OptimConfig(name="muon"))
    for seed in range(3):
        train_step(model, optimizers, parts(seed=seed), SETTINGS)
    return model, optimizers


def test_training_lowers_the_loss(tiny_model):
    model = tiny_model()
    optimizers = build_optimizers(model, OptimConfig(lr=3e-3))
    losses = [train_step(model, optimizers, parts(), SETTINGS).nll for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    assert model.model.layers[1].mlp.gate.e_score_correction_bias.any()


@pytest.mark.parametrize("micro_rows", [1, 4, 100])
def test_micro_rows_change_nothing_but_memory(tiny_model, micro_rows):
    """One AdamW step at eps 1, where the update is smooth in the gradient."""
    results = []
    for size in (6, micro_rows):
        model = tiny_model()
        optimizers = build_optimizers(model, OptimConfig(lr=1.0, eps=1.0))
        inputs, targets = rows()
        targets[0, 2:] = -1
        stats = train_step(model, optimizers, micro_batches(inputs, targets, size), SETTINGS)
        results.append((stats, model.state_dict()))
    (one, weights), (other, others) = results
    assert (one.nll, one.mtp_nll) == pytest.approx((other.nll, other.mtp_nll), abs=1e-6)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-5)
    assert one.worst_load == other.worst_load
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-5, atol=1e-6, msg=name)


def test_stats_are_means_over_the_whole_batch(tiny_model):
    model = tiny_model()
    inputs, targets = rows()
    with torch.no_grad():
        whole = next_token_losses(model, MicroBatch(inputs, targets), mtp_weight=0.3, balance_alpha=1e-3)
    stats = train_step(model, build_optimizers(model, OptimConfig()), parts(), SETTINGS)
    assert stats.nll == pytest.approx(float(whole.nll), abs=1e-5)
    assert stats.mtp_nll == pytest.approx(float(whole.mtp_nll), abs=1e-5)
    assert stats.balance == pytest.approx(float(whole.balance), abs=1e-5)
    assert len(stats.violations) == 2
    assert sum(stats.worst_load) == pytest.approx(1.0)
    assert max(stats.worst_load) * 8 - 1 == pytest.approx(max(stats.violations))


def test_the_gradient_is_clipped_and_its_norm_told_from_before(tiny_model):
    """Plain descent shows the gradient that was used: its norm is the clip, its direction the true one."""

    class Descent:
        def __init__(self, model):
            self.model, self.used = model, {}

        def zero_grad(self):
            self.model.zero_grad()

        def step(self, share):
            self.used = {name: p.grad.clone() for name, p in self.model.named_parameters()}

    def gradient(clip):
        optimizer = Descent(tiny_model())
        stats = train_step(optimizer.model, optimizer, parts(), replace(SETTINGS, max_grad_norm=clip))
        return stats.grad_norm, torch.cat([g.flatten() for g in optimizer.used.values()])

    norm, free = gradient(1e9)
    told, clipped = gradient(0.5)
    assert norm == pytest.approx(float(free.norm()), rel=1e-5)
    assert norm > 0.5
    assert told == pytest.approx(norm)
    torch.testing.assert_close(clipped, free * (0.5 / norm), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.2.eh_proj.weight"],
)
def test_a_bad_weight_stops_the_step_before_anything_moves(trained, name, bad):
    model, optimizers = trained
    inputs, targets = rows(seed=5)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[int(inputs[-1, -1]) * 32 if "embed" in name else 3] = bad
    before = everything(model, optimizers)
    with pytest.raises(NonFiniteError, match=r"loss is .* gradient's norm"):
        train_step(model, optimizers, micro_batches(inputs, targets, 2), SETTINGS)
    assert same(before, everything(model, optimizers))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_under_a_finite_loss_stops_the_step_too(trained, bad):
    model, optimizers = trained
    before = everything(model, optimizers)
    weight = model.get_parameter("model.layers.1.mlp.experts.down_proj")
    hook = weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([2]), bad))
    with pytest.raises(NonFiniteError):
        train_step(model, optimizers, parts(seed=5), SETTINGS)
    hook.remove()
    assert same(before, everything(model, optimizers))


def test_after_a_refused_step_training_goes_on_as_if_it_had_not_been(trained):
    model, optimizers = trained
    twin = copy.deepcopy(model)
    others = build_optimizers(twin, OptimConfig(name="muon"))
    others.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    hook = model.model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NonFiniteError):
        train_step(model, optimizers, parts(seed=8), SETTINGS)
    hook.remove()
    for m, o in ((model, optimizers), (twin, others)):
        train_step(m, o, parts(seed=9), SETTINGS)
    assert same(everything(model, optimizers), everything(twin, others))


def padded() -> MicroBatch:
    """Rows of 13, 8 and 3 tokens, padded; every second target is learned."""
    inputs, targets = rows(3)
    for row, length in enumerate((12, 8, 3)):
        targets[row, length:] = -1
    learned = (targets >= 0) & (torch.arange(12) % 2 == 0)
    return MicroBatch(inputs, targets, learned)


def test_a_step_on_a_masked_batch_updates_and_moves_the_bias(tiny_model):
    model = tiny_model(3)
    optimizers = build_optimizers(model, OptimConfig(lr=1e-2))
    settings = replace(SETTINGS, bias_speed=0.01, balance_alpha=0.1)
    first = train_step(model, optimizers, [padded()], settings)
    for _ in range(5):
        last = train_step(model, optimizers, [padded()], settings)
    assert last.nll < 0.8 * first.nll
    assert last.mtp_nll < first.mtp_nll
    assert model.model.layers[1].mlp.gate.e_score_correction_bias.abs().max() > 0


@pytest.mark.parametrize("batches", [parts(), [padded()]], ids=["whole", "masked"])
def test_no_mtp_weight_leaves_the_mtp_modules_alone(tiny_model, batches):
    model = tiny_model(3)
    optimizers = build_optimizers(model, OptimConfig(lr=1e-2, weight_decay=0.0))
    before = {name: p.clone() for name, p in model.named_parameters()}
    train_step(model, optimizers, batches, replace(SETTINGS, mtp_weight=0.0, bias_speed=0.0))
    mtp = f"model.layers.{model.config.num_hidden_layers}."
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith(mtp) for name in moved)
    assert not model.model.layers[1].mlp.gate.e_score_correction_bias.any()


def test_a_masked_batch_that_is_broken_changes_nothing(tiny_model):
    model = tiny_model(3)
    optimizers = build_optimizers(model, OptimConfig())
    model.model.norm.weight.data[0] = float("nan")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        train_step(model, optimizers, [padded()], SETTINGS)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)
    assert all(p.grad is None for p in model.parameters())
