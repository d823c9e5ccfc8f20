"""Connections: how many there may be, in total, from one address and from one network."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from shoestring.serve.admission.address import Proxies, network_of
from shoestring.serve.admission.buckets import Buckets, Rate
from shoestring.serve.admission.pace import Pace

BURST_S = 1.0
"""Strangers of so many seconds may come at the same moment."""
FAMILIAR_S = 24 * 3600.0
SAME_S, SEEN_S = 0.25, 600.0
"""A network stays fresh for a moment after its first connection, since programs open many at once; then it is
not until so long after."""
MAX_NAMES = 65536

Release = Callable[[], None]
"""Says that a connection has ended."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Open connections, and new ones from strangers.

    A stranger is an address from which no valid key or session has come within a day.
    """

    total: int = 8192
    strangers: int = 4096
    """Open connections of all strangers; the rest is for addresses that are familiar."""
    per_address: int = 128
    """Open connections from one stranger."""
    per_network: int = 256
    """Open connections from the strangers of one network (/24 or /64)."""
    new_per_s: float = 50.0
    """New connections from all strangers of fresh networks; fewer while the event loop is late."""
    again_per_s: float = 25.0
    """The same from networks of which a stranger came within ten minutes and had no valid key or session.

    In an attack almost every attacker's network has soon been seen, and a newcomer's has not."""
    new_per_network_s: float = 100.0
    """New connections from the strangers of one network."""


class Connections:
    """The open connections. Trusted proxies and familiar addresses have only the total as their limit."""

    def __init__(
        self,
        limits: ConnectionLimits,
        proxies: Proxies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = limits.total
        """The most open connections; the server lowers it to what the system lets it open."""
        self.pace = Pace()
        self.num_open = self.num_refusals = 0
        self._limits, self._proxies, self._clock = limits, proxies or Proxies(), clock
        self._buckets = Buckets(clock=clock)
        self._strangers: Counter[str] = Counter()
        """Open connections of strangers by address and by network, and of all together."""
        self._familiar: OrderedDict[str, float] = OrderedDict()
        """Addresses, and until when they are familiar."""
        self._networks: OrderedDict[str, float] = OrderedDict()
        """Networks of which a stranger came, and when the first one did."""

    def greet(self, address: str) -> None:
        """Remember an address from which a valid key or session came."""
        _remember(self._familiar, address, self._clock() + FAMILIAR_S)
        self._networks.pop(f"network {network_of(address)}", None)

    def knows(self, address: str) -> bool:
        """Return whether a valid key or session came from an address within a day."""
        return self._familiar.get(address, 0.0) > self._clock()

    def admit(self, address: str) -> Release | None:
        """Count a new connection; None when it must be closed at once."""
        names: tuple[str, ...] = ()
        is_admitted = self.num_open < self.total
        if is_admitted and not (self.knows(address) or self._proxies.include(address)):
            names = (address, f"network {network_of(address)}", "everyone")
            is_admitted = self._has_room(*names)
        if not is_admitted:
            self.num_refusals += 1
            return None
        self.num_open += 1
        self._strangers.update(names)
        if names and self._age_s(names[1]) is None:
            _remember(self._networks, names[1], self._clock())
        return lambda: self._release(names)

    def _has_room(self, address: str, network: str, everyone: str) -> bool:
        """Whether a stranger may connect. A network over its rate takes nothing from the others."""
        limits, num = self._limits, self._strangers
        age_s = self._age_s(network)
        is_fresh = age_s is None or age_s < SAME_S
        per_s, pot = (limits.new_per_s, "fresh") if is_fresh else (limits.again_per_s, "again")
        new, new_per_network = (
            Rate(per_s * BURST_S * self.pace.share, BURST_S),
            Rate(limits.new_per_network_s, 1.0),
        )
        return (
            num[address] < limits.per_address
            and num[network] < limits.per_network
            and num[everyone] < limits.strangers
            and self._buckets.look(pot, new).is_enough
            and self._buckets.take(network, new_per_network).is_enough
            and self._buckets.take(pot, new).is_enough
        )

    def _age_s(self, network: str) -> float | None:
        """Seconds since a stranger of a network came; None for one of which nobody did of late."""
        seen_s = self._networks.get(network)
        age_s = None if seen_s is None else self._clock() - seen_s
        return None if age_s is None or age_s >= SEEN_S else age_s

    def _release(self, names: tuple[str, ...]) -> None:
        self.num_open -= 1
        for name in names:
            self._strangers[name] -= 1
            if not self._strangers[name]:
                del self._strangers[name]


def _remember(times_s: "OrderedDict[str, float]", name: str, time_s: float) -> None:
    """Keep the names that were used last."""
    times_s[name] = time_s
    times_s.move_to_end(name)
    if len(times_s) > MAX_NAMES:
        times_s.popitem(last=False)
