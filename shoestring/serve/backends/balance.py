"""The choice of a server: the one that has the request's prefix in its cache, unless it is clearly busier."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from shoestring.serve.backends.request import BackendRequest, ChatRequest

PREFIX_CHARS = 2048
"""Characters, or token ids, of a text that decide where it goes."""
SLACK_TOKENS = 4096.0
"""Work, in tokens per weight, by which a server may exceed the least busy one and keep its own prefixes."""
SLACK_RATIO = 1.5
"""The same as a ratio; a server is clearly busier when it is above both together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A server that could take a request."""

    name: str
    weight: float
    """Its share of requests; over 0."""
    open_tokens: float
    """Predicted tokens of its requests under way."""

    @property
    def load(self) -> float:
        return self.open_tokens / self.weight


def choose(candidates: Sequence[Candidate], prefix: str) -> Candidate:
    """The server of a prefix: the same one among the same servers, unless it is clearly busier than another.

    Rendezvous hashing: a server that comes or goes moves only the prefixes that are its own.
    """
    least = min(candidates, key=lambda candidate: candidate.load)
    favorite = max(candidates, key=lambda candidate: _score(candidate, prefix))
    is_busier = favorite.load > SLACK_RATIO * least.load + SLACK_TOKENS
    return least if is_busier else favorite


def prefix_of(request: BackendRequest) -> str:
    """A hash of all that the turns of a conversation have in common, or of a text's beginning."""
    if isinstance(request, ChatRequest):
        roles = [message.get("role") for message in request.messages]
        turns = request.messages[: roles.index("user") + 1 if "user" in roles else 1]
        first = json.dumps([*request.tools, *turns], default=str)
    else:
        first = str(request.prompt[:PREFIX_CHARS])
    text = f"{request.cache_salt}\0{first}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _score(candidate: Candidate, prefix: str) -> float:
    """The server with the highest score wins with a probability in proportion to its weight."""
    digest = hashlib.sha256(f"{candidate.name}\0{prefix}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 2)
    return -candidate.weight / math.log(uniform)
