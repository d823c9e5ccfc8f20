"""The circuit breaker of a server: closed while it makes tokens, open while it does not."""

from typing import Literal

State = Literal["closed", "open", "half_open"]

MOST_FAILURES = 3
"""Connections that fail one after another, without a token between them, before a server counts as gone."""


class Breaker:
    """Whether requests go to a server. Requests never try a server that failed: only probes do.

    closed: requests go there. Failures in a row, or a probe that fails, open it.
    open: no request goes there until a probe is made, which makes it
    half_open: a token closes it, a failure opens it again.
    """

    def __init__(self) -> None:
        self.state: State = "closed"
        self.failures = 0
        """Connections that failed since the last token."""

    @property
    def lets_requests(self) -> bool:
        return self.state == "closed"

    def begin_probe(self) -> None:
        """A probe of the server begins."""
        if self.state == "open":
            self.state = "half_open"

    def token(self) -> None:
        """A token came, for a request or a probe. One of a request that began before does not close it."""
        self.failures = 0

    def probe_ended(self, *, ok: bool) -> None:
        """A probe ended, with a token or without."""
        self.state = "closed" if ok else "open"
        self.failures = 0 if ok else self.failures + 1

    def connection_failed(self) -> None:
        """A request's connection was refused, broke off or was silent too long."""
        self.failures += 1
        if self.failures >= MOST_FAILURES:
            self.state = "open"
