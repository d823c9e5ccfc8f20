"""Reverse KL: the definition, its gradient by enumeration, and cuts that change nothing."""

import copy

import pytest
import torch
from torch import Tensor

from shoestring.distill.reverse_kl import Sample, UpdateSettings, micro_batches, reverse_kl, update
from shoestring.errors import NonFiniteError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.train.optim import OptimConfig, build_optimizers


def linear(weight_WD: Tensor):
    return lambda hidden_ND: hidden_ND @ weight_WD.T


@pytest.fixture
def parts():
    """Hidden states and heads of a student and a wider teacher over five words, in float64."""
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(7, 3), make(5, 3), make(7, 4), make(5, 4)


def test_it_is_the_kl_of_the_definition(parts):
    hidden, head, teacher_hidden, teacher_head = parts
    found = reverse_kl(hidden, linear(head), teacher_hidden, linear(teacher_head), vocab_size=5, rows=2)
    p = torch.distributions.Categorical(logits=hidden @ head.T)
    q = torch.distributions.Categorical(logits=teacher_hidden @ teacher_head.T)
    torch.testing.assert_close(found, torch.distributions.kl_divergence(p, q))
    assert (found > 0).all()
    same = reverse_kl(hidden, linear(head), hidden, linear(head), vocab_size=5, rows=3)
    torch.testing.assert_close(same, torch.zeros(7, dtype=torch.float64))


def test_its_gradient_is_that_of_enumeration(parts):
    """d KL / d logit_v = p_v (log p_v - log q_v - KL), word by word; and the expectation of the score's."""
    hidden, head, teacher_hidden, teacher_head = parts
    hidden.requires_grad_()
    head.requires_grad_()
    reverse_kl(
        hidden, linear(head), teacher_hidden, linear(teacher_head), vocab_size=5, rows=2
    ).sum().backward()
    logits = (hidden @ head.T).detach()
    logp, logq = logits.log_softmax(-1), (teacher_hidden @ teacher_head.T).log_softmax(-1)
    expected = torch.zeros_like(logits)
    for n in range(7):
        kl = sum(logp[n, v].exp() * (logp[n, v] - logq[n, v]) for v in range(5))
        for v in range(5):
            expected[n, v] = logp[n, v].exp() * (logp[n, v] - logq[n, v] - kl)
    torch.testing.assert_close(hidden.grad, expected @ head.detach())
    torch.testing.assert_close(head.grad, expected.T @ hidden.detach())


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_chunks_change_nothing(parts, rows):
    hidden, head, teacher_hidden, teacher_head = (part.clone().requires_grad_() for part in parts)
    kl = reverse_kl(hidden, linear(head), teacher_hidden, linear(teacher_head), vocab_size=5, rows=rows)
    kl.sum().backward()
    whole = [part.clone().requires_grad_() for part in parts]
    kl_whole = reverse_kl(whole[0], linear(whole[1]), whole[2], linear(whole[3]), vocab_size=5, rows=7)
    kl_whole.sum().backward()
    torch.testing.assert_close(kl, kl_whole)
    torch.testing.assert_close(head.grad, whole[1].grad)
    assert teacher_hidden.grad is None
    assert teacher_head.grad is None


def test_padding_words_do_not_count(parts):
    hidden, head, teacher_hidden, teacher_head = parts
    padded = torch.cat((head, 9 * torch.ones(3, 3, dtype=torch.float64)))
    found = reverse_kl(hidden, linear(padded), teacher_hidden, linear(teacher_head), vocab_size=5, rows=9)
    torch.testing.assert_close(
        found, reverse_kl(hidden, linear(head), teacher_hidden, linear(teacher_head), vocab_size=5, rows=9)
    )


def test_logits_of_few_places_are_in_memory(parts):
    hidden, head, teacher_hidden, teacher_head = parts
    seen = []

    def logits(hidden_ND):
        seen.append(len(hidden_ND))
        return hidden_ND @ head.T

    reverse_kl(
        hidden.requires_grad_(), logits, teacher_hidden, linear(teacher_head), vocab_size=5, rows=2
    ).sum().backward()
    assert max(seen) == 2


@pytest.fixture(scope="module")
def models(student_folder, teacher_folder):
    student, teacher = (load_model(Checkpoint.open(folder)) for folder in (student_folder, teacher_folder))
    return student.train(), teacher.requires_grad_(False)


SAMPLES = [
    Sample(ids=tuple(range(10, 10 + length)), num_answer_tokens=answer, is_truncated=False)
    for length, answer in [(12, 5), (7, 3), (30, 20), (8, 1), (12, 9)]
]


def settings(**changes):
    return UpdateSettings(
        **{"vocab_size": 320, "micro_tokens": 10_000, "rows": 512, "max_grad_norm": 1e9, "lr_share": 1.0}
        | changes
    )


def gradients(models, samples, **changes):
    """Those of one update, which are left where the optimizer found them."""
    student = copy.deepcopy(models[0])
    stats = update(
        student, models[1], build_optimizers(student, OptimConfig(lr=1e-30)), samples, settings(**changes)
    )
    return stats, {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", [{"micro_tokens": 1}, {"micro_tokens": 26}, {"rows": 3}])
def test_micro_batches_are_one_batch(models, changes):
    stats, whole = gradients(models, SAMPLES)
    cut_stats, cut = gradients(models, SAMPLES, **changes)
    assert stats.tokens == cut_stats.tokens == 38
    assert cut_stats.kl == pytest.approx(stats.kl, rel=1e-5)
    assert whole.keys() == cut.keys()
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_mean_is_over_the_answers_tokens_alone(models):
    """By whole forward passes of each sample alone, and every word of every place."""
    stats, _ = gradients(models, SAMPLES)
    total = 0.0
    with torch.no_grad():
        for sample in SAMPLES:
            ids = torch.tensor([sample.ids])
            p, q = (model(ids)[0].double().log_softmax(-1) for model in models)
            kl = (p.exp() * (p - q)).sum(-1)
            total += float(kl[len(sample.ids) - sample.num_answer_tokens - 1 : -1].sum())
    assert stats.kl == pytest.approx(total / 38, rel=1e-5)


def test_it_goes_down(models):
    student = copy.deepcopy(models[0])
    optimizers = build_optimizers(student, OptimConfig(lr=3e-3, weight_decay=0.0))
    kls = [update(student, models[1], optimizers, SAMPLES, settings(max_grad_norm=1.0)).kl for _ in range(12)]
    assert kls[-1] < 0.7 * kls[0]


def test_what_is_not_finite_changes_nothing(models):
    student = copy.deepcopy(models[0])
    optimizers = build_optimizers(student, OptimConfig())
    update(student, models[1], optimizers, SAMPLES, settings())
    before = copy.deepcopy(student.state_dict())
    moments = copy.deepcopy(optimizers.state_dict())
    broken = copy.deepcopy(models[1])
    with torch.no_grad():
        broken.head_weight_WD[5] = float("nan")
    with pytest.raises(NonFiniteError, match="nan"):
        update(student, broken, optimizers, SAMPLES, settings())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    after = optimizers.state_dict()
    for key, entry in moments["0"]["state"].items():
        assert all(torch.equal(after["0"]["state"][key][name], value) for name, value in entry.items())


def test_micro_batches_hold_everything_once_within_the_bound():
    for bound in (1, 20, 60, 1000):
        found = list(micro_batches(SAMPLES, bound))
        assert sorted((s for part in found for s in part), key=str) == sorted(SAMPLES, key=str)
        assert all(len(part) == 1 or max(len(s.ids) for s in part) * len(part) <= bound for part in found)
