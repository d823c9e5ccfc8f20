"""Proof of work at sign-up: a puzzle that costs the client seconds and the server less than a millisecond."""

import base64
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import altcha

from shoestring.serve.backends.errors import RequestError

ALGORITHM = "PBKDF2/SHA-256"
COST = 500
"""Iterations of one try at difficulty 1; checking a solution is one try."""
KEY_PREFIX = "000"
"""Hexadecimal digits that a solution begins with: 4,096 tries on average."""
EXPIRY_S = 600
MAX_SOLUTIONS = 65536
"""Solutions within EXPIRY_S; with so many, nobody else signs up."""
MAX_SOLUTION_BYTES = 4096


class ProofOfWork:
    """Challenges of ALTCHA, each good for one sign-up.

    The secret is drawn at the start, so what an earlier process gave out is worth nothing: the solutions that
    were used need not be stored.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._solutions: OrderedDict[str, float] = OrderedDict()
        """Signatures of the challenges whose solutions were used, and when they expire."""

    def challenge(self, difficulty: int = 1) -> dict[str, Any]:
        """A challenge in ALTCHA's format, `difficulty` times as much work as the easiest."""
        challenge = altcha.create_challenge(
            ALGORITHM,
            COST * difficulty,
            key_prefix=KEY_PREFIX,
            expires_at=int(self._clock()) + EXPIRY_S,
            hmac_secret=self._secret,
        )
        return challenge.to_dict()

    def check(self, solution: str, difficulty: int = 1) -> None:
        """Use up a solution (base64, as ALTCHA's clients send it).

        Raises RequestError for one that is wrong, expired, used or too easy, and when too many were used.
        """
        signature, cost = _read(solution)
        self._forget()
        if signature in self._solutions:
            raise RequestError("invalid", "this proof of work was used before; ask for a new challenge")
        result = altcha.verify_solution(solution, self._secret) if cost >= COST * difficulty else None
        if result is None or not result.verified:
            raise RequestError("invalid", "the proof of work is wrong or too old; ask for a new challenge")
        if len(self._solutions) >= MAX_SOLUTIONS:
            raise RequestError("overloaded", "too many sign-ups; try again later", retry_after_s=EXPIRY_S / 4)
        self._solutions[signature] = self._clock() + EXPIRY_S

    def _forget(self) -> None:
        """Drop solutions that have expired."""
        now_s = self._clock()
        while self._solutions and next(iter(self._solutions.values())) < now_s:
            self._solutions.popitem(last=False)


def _read(solution: str) -> tuple[str, int]:
    """The signature and the cost of a solution's challenge; they are not yet known to be ours."""
    try:
        if len(solution) > MAX_SOLUTION_BYTES:
            raise ValueError
        challenge = json.loads(base64.b64decode(solution, validate=True))["challenge"]
        signature, cost = challenge["signature"], challenge["parameters"]["cost"]
    except (ValueError, KeyError, TypeError, RecursionError):
        signature = cost = None
    if not isinstance(signature, str) or type(cost) is not int:
        raise RequestError("invalid", "the proof of work is no solution of ALTCHA") from None
    return signature, cost
