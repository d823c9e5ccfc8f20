"""Connections: how many there may be, in total, from one address and from one network."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from shoestring.serve.admission.address import Proxies, network_of
from shoestring.serve.admission.buckets import Buckets, Rate
from shoestring.serve.admission.pace import Pace

BURST_S = 0.1
"""Strangers of so many seconds may come at the same moment."""
FAMILIAR_S = 24 * 3600.0
MAX_FAMILIAR = 65536

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
    per_address: int = 64
    """Open connections from one stranger."""
    per_network: int = 256
    """Open connections from the strangers of one network (/24 or /64)."""
    new_per_s: float = 200.0
    """New connections from all strangers; fewer while the event loop is late."""
    new_per_network_s: float = 50.0
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

    def greet(self, address: str) -> None:
        """Remember an address from which a valid key or session came."""
        self._familiar[address] = self._clock() + FAMILIAR_S
        self._familiar.move_to_end(address)
        if len(self._familiar) > MAX_FAMILIAR:
            self._familiar.popitem(last=False)

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
        return lambda: self._release(names)

    def _has_room(self, address: str, network: str, everyone: str) -> bool:
        """Whether a stranger may connect. A network over its rate takes nothing from the others."""
        limits, num = self._limits, self._strangers
        new = Rate(limits.new_per_s * BURST_S * self.pace.share, BURST_S)
        new_per_network = Rate(limits.new_per_network_s, 1.0)
        return (
            num[address] < limits.per_address
            and num[network] < limits.per_network
            and num[everyone] < limits.strangers
            and self._buckets.look(everyone, new).is_enough
            and self._buckets.take(network, new_per_network).is_enough
            and self._buckets.take(everyone, new).is_enough
        )

    def _release(self, names: tuple[str, ...]) -> None:
        self.num_open -= 1
        for name in names:
            self._strangers[name] -= 1
            if not self._strangers[name]:
                del self._strangers[name]
