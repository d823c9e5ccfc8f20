"""Proof of work: a solution is good once, for a while, and only for our own challenges."""

import base64
import json

import altcha
import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.gate import proof_of_work
from shoestring.serve.gate.proof_of_work import ProofOfWork


@pytest.fixture(autouse=True)
def easy(monkeypatch):
    """Challenges of sixteen tries."""
    monkeypatch.setattr(proof_of_work, "KEY_PREFIX", "0")
    monkeypatch.setattr(proof_of_work, "COST", 10)


def solve(fields: dict) -> str:
    challenge = altcha.Challenge.from_dict(fields)
    solution = altcha.solve_challenge(challenge)
    return altcha.Payload(challenge, solution).to_base64()


def change(solution: str, **fields) -> str:
    payload = json.loads(base64.b64decode(solution))
    payload["challenge"]["parameters"] |= fields
    return base64.b64encode(json.dumps(payload).encode()).decode()


def refusal(proofs: ProofOfWork, solution: str, difficulty: int = 1) -> str:
    with pytest.raises(RequestError) as error:
        proofs.check(solution, difficulty)
    assert error.value.status == 400
    return str(error.value)


def test_a_solution_is_good_once():
    proofs = ProofOfWork()
    solution = solve(proofs.challenge())
    proofs.check(solution)
    assert "used before" in refusal(proofs, solution)
    payload = json.loads(base64.b64decode(solution))
    assert "used before" in refusal(proofs, base64.b64encode(json.dumps(payload, indent=1).encode()).decode())


def test_a_solution_expires(monkeypatch):
    now_s = [1_000_000.0]
    monkeypatch.setattr("altcha.v2.time.time", lambda: now_s[0])
    proofs = ProofOfWork(clock=lambda: now_s[0])
    early, late = solve(proofs.challenge()), solve(proofs.challenge())
    now_s[0] += 599
    proofs.check(early)
    now_s[0] += 2
    assert "too old" in refusal(proofs, late)
    assert "used before" in refusal(proofs, early)
    now_s[0] += 600
    proofs.check(solve(proofs.challenge()))
    assert "too old" in refusal(proofs, early)  # forgotten, but expired


def test_challenges_of_others_and_changes_are_refused():
    proofs = ProofOfWork()
    assert "wrong" in refusal(proofs, solve(ProofOfWork().challenge()))
    solution = solve(proofs.challenge())
    assert "wrong" in refusal(proofs, change(solution, expiresAt=2**40))
    assert "wrong" in refusal(proofs, change(solution, keyPrefix=""))
    proofs.check(solution)


def test_an_easy_solution_is_not_enough_when_more_is_asked():
    proofs = ProofOfWork()
    easy = solve(proofs.challenge(1))
    assert "wrong" in refusal(proofs, easy, 2)
    proofs.check(solve(proofs.challenge(2)), 2)


@pytest.mark.parametrize(
    "text", ["", "x", "e30=", "bnVsbA==", base64.b64encode(b'{"challenge": 1}').decode(), "A" * 10_000, "é"]
)
def test_what_is_no_solution_is_refused(text):
    assert "no solution" in refusal(ProofOfWork(), text)


def test_the_store_of_used_solutions_is_bounded(monkeypatch):
    monkeypatch.setattr(proof_of_work, "MAX_SOLUTIONS", 2)
    proofs = ProofOfWork()
    for _ in range(2):
        proofs.check(solve(proofs.challenge()))
    with pytest.raises(RequestError) as error:
        proofs.check(solve(proofs.challenge()))
    assert error.value.status == 503
