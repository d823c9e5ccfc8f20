"""Limits of receipt: the time and the bytes in which a client must send a request and read its reply."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReceiptLimits:
    """Limits of one connection, in seconds and bytes."""

    head_s: float = 10.0
    head_bytes: int = 16 << 10
    headers: int = 100
    body_s: float = 30.0
    slow_s: float = 5.0
    """Seconds after which a body must have come at the least rate on average."""
    least_bytes_per_s: float = 1024.0
    idle_s: float = 75.0
    """Seconds that a connection may wait for its next request: longer than proxies hold one, mostly 60."""
    reading_s: float = 30.0
    """Seconds in which a client must read what waits for it."""
