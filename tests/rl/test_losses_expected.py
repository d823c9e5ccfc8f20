"""Expected losses and gradients by enumerating a vocabulary of five: no sampling, so equalities are exact."""

import pytest
import torch
from torch import Tensor

from shoestring.rl.losses import Denominators, PolicyLossConfig, policy_loss

KINDS = ("grpo", "dr_grpo", "dapo", "gspo")
UNCLIPPED = {"epsilon_low": 1e6, "epsilon_high": 1e6}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def three() -> dict[str, Tensor]:
    """Logits of a policy, of the one that sampled and of the reference, far from each other."""
    generator = torch.Generator().manual_seed(2)
    policy, old, ref = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return {"policy": policy.requires_grad_(), "old": old, "ref": ref}


REWARD_W = torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)


def expected_gradient(three, sampler: str, advantage_W: Tensor, kind: str = "dr_grpo", **options) -> Tensor:
    """Of the loss by the policy's logits: each answer of one token, weighed by its chance under the sampler.

    A row's share of the loss has the same denominator as all, so weighing is done by the rows' gradients.
    """
    policy = three["policy"].log_softmax(0)
    old, ref = (three[name].detach().log_softmax(0) for name in (sampler, "ref"))
    whole = Denominators(sequences=1, tokens=1, max_tokens=1)
    config = PolicyLossConfig(loss_type=kind, **UNCLIPPED | options)
    total = torch.zeros((), dtype=torch.float64)
    for token in range(5):
        columns = (x[token].view(1, 1) for x in (policy, old, ref))
        one = torch.ones(1, 1, dtype=torch.bool)
        result = policy_loss(*columns, advantage_W[token].view(1), one, config, denominators=whole)
        total = total + old[token].exp() * result.loss
    return torch.autograd.grad(total, three["policy"])[0]


def exact_gradient(three, objective) -> Tensor:
    policy, ref = three["policy"].log_softmax(0), three["ref"].log_softmax(0)
    return torch.autograd.grad(objective(policy, ref), three["policy"])[0]


def reverse_kl(policy: Tensor, ref: Tensor) -> Tensor:
    return (policy.exp() * (policy - ref)).sum()


def forward_kl(policy: Tensor, ref: Tensor) -> Tensor:
    return (ref.exp() * (ref - policy)).sum()


@every_kind
@pytest.mark.parametrize("sampler", ["policy", "old"])
def test_expected_gradient_is_the_policy_gradient(three, sampler, kind):
    """On-policy and, by the ratio, off-policy."""
    exact = exact_gradient(three, lambda policy, _: -(policy.exp() * REWARD_W).sum())
    torch.testing.assert_close(expected_gradient(three, sampler, REWARD_W, kind), exact)


@pytest.mark.parametrize("sampler", ["policy", "old"])
def test_unbiased_kl_has_the_gradient_of_the_kl(three, sampler):
    found = expected_gradient(three, sampler, torch.zeros(5).double(), beta=1.0, use_bias_correction_kl=True)
    torch.testing.assert_close(found, exact_gradient(three, reverse_kl))


def test_plain_k3_has_the_gradient_of_the_other_kl(three):
    """On-policy k3 as a loss follows KL(reference || policy): its value is unbiased, its gradient is not."""
    found = expected_gradient(
        three, "policy", torch.zeros(5).double(), beta=1.0, use_bias_correction_kl=False
    )
    torch.testing.assert_close(found, exact_gradient(three, forward_kl))
    assert float((found - exact_gradient(three, reverse_kl)).abs().max()) > 0.03


def test_plain_k3_off_policy_has_the_gradient_of_neither(three):
    found = expected_gradient(three, "old", torch.zeros(5).double(), beta=1.0, use_bias_correction_kl=False)
    for objective in (reverse_kl, forward_kl):
        assert float((found - exact_gradient(three, objective)).abs().max()) > 0.03


@pytest.mark.parametrize(
    ("sampler", "use_bias_correction_kl", "exact"),
    [("policy", False, True), ("policy", True, True), ("old", True, True), ("old", False, False)],
)
def test_expected_value_of_the_kl_estimates(three, sampler, use_bias_correction_kl, exact):
    policy, old, ref = (three[n].detach().log_softmax(0)[:, None] for n in ("policy", sampler, "ref"))
    mask, config = (
        torch.ones(1, 1, dtype=torch.bool),
        PolicyLossConfig(use_bias_correction_kl=use_bias_correction_kl),
    )
    whole, nothing = Denominators(sequences=1, tokens=1, max_tokens=1), torch.zeros(1).double()
    mean = 0.0
    for p, o, r in zip(policy.split(1), old.split(1), ref.split(1), strict=True):
        result = policy_loss(p, o, r, nothing, mask, config, denominators=whole)
        mean += float(o.exp() * result.kl)
    assert (abs(mean - float(reverse_kl(policy, ref))) < 1e-12) == exact


def test_drift_is_the_kl_from_the_sampling_policy(three):
    policy, old = (three[n].detach().log_softmax(0)[:, None] for n in ("policy", "old"))
    mask, config = torch.ones(1, 1, dtype=torch.bool), PolicyLossConfig()
    whole = Denominators(sequences=1, tokens=1, max_tokens=1)
    mean = 0.0
    for p, o in zip(policy.split(1), old.split(1), strict=True):
        result = policy_loss(p, o, None, torch.zeros(1).double(), mask, config, denominators=whole)
        mean += float(o.exp() * result.drift)
    assert mean == pytest.approx(float((old.exp() * (old - policy)).sum()), abs=1e-12)


@pytest.mark.parametrize("kind", ["dr_grpo", "dapo"])
def test_answers_of_two_tokens_by_enumeration(kind):
    """All 5 + 20 answers, where token 0 ends one early; the gradient is that of the expected reward."""
    first_W, second_WW = torch.randn(
        5, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ), torch.randn(5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)  # fmt: skip
    first_W.requires_grad_(), second_WW.requires_grad_()
    first, second = first_W.log_softmax(0), second_WW.log_softmax(1)
    answers = [(0, None)] + [(a, b) for a in range(1, 5) for b in range(5)]
    reward = lambda a, b: 1.0 if b is None else float(REWARD_W[a] * REWARD_W[b] - a)  # noqa: E731
    loss = exact = torch.zeros((), dtype=torch.float64)
    for a, b in answers:
        logp = torch.stack((first[a], second[a, b or 0]))[None]
        mask = torch.tensor([[True, b is not None]])
        chance = (logp * mask).sum().exp()
        result = policy_loss(
            logp, logp.detach(), None, torch.tensor([reward(a, b)]).double(), mask,
            PolicyLossConfig(loss_type=kind), denominators=Denominators(sequences=1, tokens=1, max_tokens=1),
        )  # fmt: skip
        loss = loss + chance.detach() * result.loss
        exact = exact - chance * reward(a, b)
    found = torch.autograd.grad(loss, (first_W, second_WW), retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(exact, (first_W, second_WW)))
