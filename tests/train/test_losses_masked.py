"""With padding and a mask over learned targets: a batch is the token-weighted mean of its rows alone."""

import pytest
import torch
import torch.nn.functional as F

from shoestring.train.losses import MicroBatch, batch_counts, next_token_losses, summed_nll

LENGTHS = (23, 21, 20, 9, 5, 2)


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


def padded(parts) -> MicroBatch:
    width = max(len(ids) for ids, _ in parts) - 1
    inputs = torch.full((len(parts), width), 7)
    targets = torch.full((len(parts), width), -1)
    learned = torch.zeros((len(parts), width), dtype=torch.bool)
    for row, (ids, mask) in enumerate(parts):
        size = len(ids) - 1
        inputs[row, :size], targets[row, :size], learned[row, :size] = ids[:-1], ids[1:], mask[1:]
    return MicroBatch(inputs, targets, learned)


def losses(model, batches):
    counts = batch_counts(batches, model.config.num_nextn_predict_layers)
    return [
        next_token_losses(model, batch, mtp_weight=0.3, balance_alpha=0.1, counts=counts) for batch in batches
    ]


@torch.no_grad()
def test_a_padded_batch_is_the_weighted_mean_of_conversations_alone(tiny_model):
    """Against plain logits and cross-entropy, each conversation by itself."""
    model, total, tokens = tiny_model(3), 0.0, 0
    for ids, learned in rows():
        nll = F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
        total, tokens = total + float(nll[learned[1:]].sum()), tokens + int(learned[1:].sum())
    [whole] = losses(model, [padded(rows())])
    assert float(whole.nll) == pytest.approx(total / tokens, abs=1e-6)
    assert summed_nll(model, [padded(rows())]) == pytest.approx(total, rel=1e-6)


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
    [whole] = losses(model, [padded(rows())])
    assert float(whole.mtp_nll) == pytest.approx(total / tokens, abs=1e-6)


def test_loss_and_gradient_are_those_of_plain_cross_entropies(tiny_model):
    """Each conversation by itself: the mean over learned tokens, and 0.3 times that of the MTP module."""
    model = tiny_model(3)
    main, further = [], []
    for ids, learned in rows():
        hidden = model.features(ids[None, :-1]).hidden_BTD
        main.append(F.cross_entropy(model.logits(hidden)[0], ids[1:], reduction="none")[learned[1:]])
        ahead = model.mtp_features(hidden[:, :-1], ids[None, 1:-1]).hidden_BTD
        nll = F.cross_entropy(model.logits(ahead)[0], ids[2:], reduction="none")
        further.append(nll[learned[2:]])
    plain = torch.cat(main).mean() + 0.3 * torch.cat(further).mean()
    plain.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    masked = next_token_losses(model, padded(rows()), mtp_weight=0.3, balance_alpha=0.0).total
    masked.backward()
    torch.testing.assert_close(masked, plain, rtol=1e-6, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@torch.no_grad()
def test_the_total_is_the_weighted_sum_of_its_parts(tiny_model):
    [whole] = losses(tiny_model(3), [padded(rows())])
    torch.testing.assert_close(whole.total, whole.nll + 0.3 * whole.mtp_nll + 0.1 * whole.balance)


def test_without_padding_and_mask_it_is_pretraining_s_loss(tiny_model):
    model = tiny_model(3)
    ids = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
    parts = [(row, torch.ones(20, dtype=torch.bool)) for row in ids]
    plain = MicroBatch(ids[:, :-1], ids[:, 1:])
    theirs = next_token_losses(model, plain, mtp_weight=0.3, balance_alpha=0.1)
    [ours] = losses(model, [padded(parts)])
    for name in ("total", "nll", "mtp_nll", "balance"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(ours.loads[layer], load) for layer, load in theirs.loads.items())


@torch.no_grad()
def test_padding_is_in_no_balance_and_no_load(tiny_model):
    model = tiny_model(3)
    [together] = losses(model, [padded(rows())])
    alone = losses(model, [padded([row]) for row in rows()])
    assert float(together.balance) == pytest.approx(sum(float(part.balance) for part in alone), abs=1e-5)
    for layer, load_E in together.loads.items():
        assert torch.equal(load_E, sum(part.loads[layer] for part in alone))
        assert int(load_E.sum()) == 2 * sum(LENGTHS)


@pytest.mark.parametrize("everything", [False, True])
def test_how_a_batch_is_cut_changes_nothing(tiny_model, everything):
    parts = rows(everything=everything)
    grads = []
    for cut in ([parts], [parts[:2], parts[2:]], [[row] for row in parts]):
        model = tiny_model(3)
        for share in losses(model, [padded(some) for some in cut]):
            share.total.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for other in grads[1:]:
        for name, grad in grads[0].items():
            torch.testing.assert_close(other[name], grad, rtol=1e-4, atol=1e-6)
