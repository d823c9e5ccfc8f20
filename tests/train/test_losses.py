import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.packing import IGNORE_INDEX
from shoestring.train.losses import MicroBatch, batch_counts, next_token_losses, shift_left


def rows(count: int, length: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 300, (count, length + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:].contiguous()


def losses_and_gradients(model, inputs, targets, *, parts=1, alpha=0.01):
    """Totals over `parts` micro-batches, and the summed gradient of every parameter."""
    model.zero_grad()
    total = torch.zeros(3, dtype=torch.float64)
    batches = [MicroBatch(*part) for part in zip(inputs.chunk(parts), targets.chunk(parts), strict=True)]
    counts = batch_counts(batches, model.config.num_nextn_predict_layers)
    for batch in batches:
        losses = next_token_losses(model, batch, mtp_weight=0.3, balance_alpha=alpha, counts=counts)
        losses.total.backward()
        total += torch.stack((losses.total.detach(), losses.nll, losses.mtp_nll)).double()
    return total, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(one, other, tolerance=1e-6):
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=tolerance, msg=name)


def slow_losses(model, inputs, targets, depths):
    """V3 eq. 22-25 token by token, with torch's own cross-entropy and explicit logits."""
    hidden = model.features(inputs).hidden_BTD
    means = [F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten(), ignore_index=-1)]
    for depth in range(1, depths + 1):
        ahead, aims = torch.zeros_like(inputs), torch.full_like(targets, -1)
        for t in range(inputs.shape[1]):
            if t + depth - 1 < inputs.shape[1]:
                ahead[:, t] = targets[:, t + depth - 1].clamp(min=0)
            if t + depth < inputs.shape[1]:
                aims[:, t] = targets[:, t + depth]
        hidden = model.mtp_features(hidden, ahead, depth - 1).hidden_BTD
        means.append(F.cross_entropy(model.logits(hidden).flatten(0, 1), aims.flatten(), ignore_index=-1))
    return means[0], sum(means[1:]) / depths


@pytest.mark.parametrize("depths", [1, 2])
def test_the_losses_equal_a_slow_computation(tiny_model, depths):
    model = tiny_model(num_nextn_predict_layers=depths)
    inputs, targets = rows(3)
    targets[0, 4:7] = -1
    nll, mtp = slow_losses(model, inputs, targets, depths)
    (nll + 0.3 * mtp).backward()
    slow = (torch.stack((nll + 0.3 * mtp, nll, mtp)).detach().double(), {})
    slow[1].update({name: p.grad.clone() for name, p in model.named_parameters()})
    assert_same(losses_and_gradients(model, inputs, targets, alpha=0.0), slow, tolerance=2e-6)


def test_without_mtp_modules_there_is_no_mtp_loss(tiny_model):
    model = tiny_model(num_nextn_predict_layers=0)
    losses = next_token_losses(model, MicroBatch(*rows(2)), mtp_weight=0.3, balance_alpha=0.0)
    assert float(losses.mtp_nll) == 0.0
    assert torch.equal(losses.total.detach(), losses.nll)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_micro_batches_equal_one_batch(tiny_model, parts):
    """Masks differ from row to row, so a mean of the parts' own means would be wrong."""
    model = tiny_model()
    inputs, targets = rows(6)
    targets[0, :] = -1
    targets[1, 3:] = -1
    targets[4, ::2] = -1
    whole = losses_and_gradients(model, inputs, targets)
    assert_same(losses_and_gradients(model, inputs, targets, parts=parts), whole)


def test_the_order_of_rows_does_not_matter(tiny_model):
    model = tiny_model()
    inputs, targets = rows(5)
    order = torch.tensor([3, 0, 4, 2, 1])
    here = losses_and_gradients(model, inputs, targets)
    assert_same(losses_and_gradients(model, inputs[order], targets[order]), here)


@pytest.mark.parametrize("nothing", [-1, -100])
def test_a_row_without_targets_changes_nothing(tiny_model, nothing):
    """But for the balance loss, which is about every row that is routed."""
    model = tiny_model()
    inputs, targets = rows(3)
    here = losses_and_gradients(model, inputs, targets, alpha=0.0)
    more = torch.cat((inputs, rows(1, seed=9)[0])), torch.cat((targets, torch.full((1, 12), nothing)))
    assert_same(losses_and_gradients(model, *more, alpha=0.0), here)


def test_nothing_to_predict_is_zero_and_not_a_division(tiny_model):
    inputs, targets = rows(2)
    totals, gradients = losses_and_gradients(tiny_model(), inputs, torch.full_like(targets, -1), alpha=0.0)
    assert totals.tolist() == [0.0, 0.0, 0.0]
    assert not any(gradient.abs().max() for gradient in gradients.values())


def test_loads_count_every_routed_row(tiny_model):
    losses = next_token_losses(tiny_model(), MicroBatch(*rows(3)), mtp_weight=0.3, balance_alpha=0.0)
    assert sorted(losses.loads) == [1, 2]  # layer 0 is dense; layer 2 is the MTP module
    assert all(int(load.sum()) == 3 * 12 * 2 for load in losses.loads.values())


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 12))
def test_shift_left(count, length, by):
    ids = torch.arange(count * length).view(count, length)
    shifted = shift_left(ids, by)
    assert shifted.shape == ids.shape
    for t in range(length):
        expected = ids[:, t + by] if t + by < length else torch.full((count,), IGNORE_INDEX)
        assert torch.equal(shifted[:, t], expected)


def test_the_balance_loss_moves_the_router_of_every_moe_layer(tiny_model):
    """Beside what the likelihood does: the difference is alpha times the balance loss's own gradient."""
    model = tiny_model()
    one, two = (losses_and_gradients(model, *rows(3), alpha=alpha)[1] for alpha in (0.0, 1.0))
    changed = {name for name in one if not torch.allclose(one[name], two[name], atol=1e-6)}
    assert {f"model.layers.{index}.mlp.gate.weight" for index in (1, 2)} <= changed
    assert not [name for name in changed if "layers.2.mlp.experts" in name or "lm_head" in name]
