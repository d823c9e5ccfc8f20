"""A padded batch is the token-weighted mean of its conversations alone: losses, gradients, updates."""

import pytest
import torch
import torch.nn.functional as F

from shoestring.data.conversations import Block
from shoestring.errors import NonFiniteError
from shoestring.train.losses import next_token_losses, sequence_balance
from shoestring.train.optim import OptimConfig, build_optimizers
from shoestring.train.sft_step import (
    SFTStep,
    conversation_balance,
    conversation_losses,
    count,
    learned_nll,
    sft_step,
)

LENGTHS = (23, 21, 20, 9, 5, 2)
STEP = SFTStep(lr_share=1.0, mtp_weight=0.3, bias_speed=0.01, balance_alpha=0.1, clip=1.0)


def rows(seed: int = 0, everything: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each conversation's ids and which of them are learned."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in LENGTHS:
        ids = torch.randint(0, 300, (length + 1,), generator=generator)
        learned = torch.rand(length + 1, generator=generator) < 0.6
        learned[-1] = True
        made.append((ids, learned | everything))
    return made


def block(parts) -> Block:
    width = max(len(ids) for ids, _ in parts) - 1
    inputs = torch.full((len(parts), width), 7)
    targets = torch.full((len(parts), width), -1)
    learned = torch.zeros((len(parts), width), dtype=torch.bool)
    for row, (ids, mask) in enumerate(parts):
        size = len(ids) - 1
        inputs[row, :size], targets[row, :size], learned[row, :size] = ids[:-1], ids[1:], mask[1:]
    return Block(inputs=inputs.numpy(), targets=targets.numpy(), learned=learned.numpy())


def losses(model, blocks):
    counts = count(blocks, model.config.num_nextn_predict_layers)
    return [conversation_losses(model, b, counts, mtp_weight=0.3, balance_alpha=0.1) for b in blocks]


@torch.no_grad()
def test_a_padded_batch_is_the_weighted_mean_of_conversations_alone(tiny_model):
    """Against plain logits and cross-entropy, each conversation by itself."""
    model, total, tokens = tiny_model(3), 0.0, 0
    for ids, learned in rows():
        nll = F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
        total, tokens = total + float(nll[learned[1:]].sum()), tokens + int(learned[1:].sum())
    [whole] = losses(model, [block(rows())])
    assert float(whole.nll) == pytest.approx(total / tokens, abs=1e-6)
    assert learned_nll(model, [block(rows())]) == pytest.approx(total, rel=1e-6)


@torch.no_grad()
def test_mtp_reads_real_tokens_and_predicts_learned_ones(tiny_model):
    model, total, tokens = tiny_model(3), 0.0, 0
    for ids, learned in rows():
        if len(ids) < 3:
            continue
        hidden = model.features(ids[None, :-2]).hidden_BTD
        ahead = model.mtp_features(hidden, ids[None, 1:-1]).hidden_BTD
        nll = F.cross_entropy(model.logits(ahead)[0], ids[2:], reduction="none")
        total, tokens = total + float(nll[learned[2:]].sum()), tokens + int(learned[2:].sum())
    [whole] = losses(model, [block(rows())])
    assert float(whole.mtp_nll) == pytest.approx(total / tokens, abs=1e-6)


def test_without_padding_and_mask_it_is_pretraining_s_loss(tiny_model):
    model = tiny_model(3)
    ids = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
    parts = [(row, torch.ones(20, dtype=torch.bool)) for row in ids]
    theirs = next_token_losses(model, ids[:, :-1], ids[:, 1:], mtp_weight=0.3, balance_alpha=0.1)
    [ours] = losses(model, [block(parts)])
    for name in ("total", "nll", "mtp_nll", "balance"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(ours.loads[layer], load) for layer, load in theirs.loads.items())


@torch.no_grad()
def test_padding_is_in_no_balance_and_no_load(tiny_model):
    model = tiny_model(3)
    [together] = losses(model, [block(rows())])
    alone = losses(model, [block([row]) for row in rows()])
    assert float(together.balance) == pytest.approx(sum(float(part.balance) for part in alone), abs=1e-5)
    for layer, load_E in together.loads.items():
        assert torch.equal(load_E, sum(part.loads[layer] for part in alone))
        assert int(load_E.sum()) == 2 * sum(LENGTHS)
    features = model.features(torch.randint(0, 300, (4, 9)))
    for routing in features.routings.values():
        real_BT = torch.ones(4, 9, dtype=torch.bool)
        summed = conversation_balance(routing, real_BT)
        torch.testing.assert_close(summed / 4, sequence_balance(routing, 4))


@pytest.mark.parametrize("everything", [False, True])
def test_how_a_batch_is_cut_changes_nothing(tiny_model, everything):
    parts = rows(everything=everything)
    grads = []
    for cut in ([parts], [parts[:2], parts[2:]], [[row] for row in parts]):
        model = tiny_model(3)
        for share in losses(model, [block(some) for some in cut]):
            share.total.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for other in grads[1:]:
        for name, grad in grads[0].items():
            torch.testing.assert_close(other[name], grad, rtol=1e-4, atol=1e-6)


def test_a_step_updates_and_moves_the_bias(tiny_model):
    model = tiny_model(3)
    optimizers = build_optimizers(model, OptimConfig(lr=1e-2))
    blocks = [block(rows())]
    first = sft_step(model, optimizers, blocks, STEP)
    for _ in range(5):
        last = sft_step(model, optimizers, blocks, STEP)
    assert last.nll < 0.8 * first.nll
    assert last.mtp_nll < first.mtp_nll
    assert model.model.layers[1].mlp.gate.e_score_correction_bias.abs().max() > 0


def test_no_mtp_weight_leaves_the_mtp_modules_alone(tiny_model):
    model = tiny_model(3)
    optimizers = build_optimizers(model, OptimConfig(lr=1e-2, weight_decay=0.0))
    before = {name: p.clone() for name, p in model.named_parameters()}
    still = SFTStep(lr_share=1.0, mtp_weight=0.0, bias_speed=0.0, balance_alpha=0.1, clip=1.0)
    sft_step(model, optimizers, [block(rows())], still)
    mtp = f"model.layers.{model.config.num_hidden_layers}."
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith(mtp) for name in moved)
    assert not model.model.layers[1].mlp.gate.e_score_correction_bias.any()


def test_a_broken_batch_changes_nothing(tiny_model):
    model = tiny_model(3)
    optimizers = build_optimizers(model, OptimConfig())
    model.model.norm.weight.data[0] = float("nan")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        sft_step(model, optimizers, [block(rows())], STEP)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)
    assert all(p.grad is None for p in model.parameters())
