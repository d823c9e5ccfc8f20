"""Signals of an attack: counts of the last minute, and how many sign-ups are normal here."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from shoestring.serve.admission.window import Window

MINUTE_S = 60
BURST_S = 5
"""The span in which an attack must be seen."""
MAX_NETWORKS = 4096
"""Networks that are told apart within a second."""
BASELINE_S = 3600.0
"""Time constant of the average of sign-ups: an attack does not become normal within minutes."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The measurement of one moment."""

    sign_ups_burst: int = 0
    """Tries to open an account within the last 5 s."""
    sign_ups_minute: int = 0
    new_accounts_minute: int = 0
    """Accounts that were opened within the last minute."""
    baseline_minute: float = 0.0
    """Sign-ups a minute that are normal."""
    sign_ins_burst: int = 0
    failures_burst: int = 0
    """Sign-ins with a wrong password within the last 5 s."""
    refusals_burst: int = 0
    """Requests without a valid key that were refused within the last 5 s."""
    networks_burst: int = 0
    """Networks that these came from."""
    paying_wait_s: float = 0.0
    """Seconds that the oldest request of a paying class has waited for its turn."""

    @property
    def failure_share(self) -> float:
        return self.failures_burst / self.sign_ins_burst if self.sign_ins_burst else 0.0


class Signals:
    """Counters that the service adds to, one call for each event."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sign_ups, self._accounts = Window(MINUTE_S, clock), Window(MINUTE_S, clock)
        self._sign_ins, self._failures = Window(BURST_S, clock), Window(BURST_S, clock)
        self._refusals = Window(BURST_S, clock)
        self._networks: list[set[str]] = [set() for _ in range(BURST_S)]
        self._networks_s = int(clock())
        self._baseline_minute = 0.0
        self._learnt_s = clock()

    def sign_up(self, network: str) -> None:
        """Count a try to open an account."""
        self._sign_ups.add()
        self._add_network(network)

    def new_account(self) -> None:
        """Count an account that was opened."""
        self._accounts.add()

    def sign_in(self, network: str = "", *, is_right: bool) -> None:
        """Count a sign-in."""
        self._sign_ins.add()
        if not is_right:
            self._failures.add()
            self._add_network(network)

    def refusal(self, network: str) -> None:
        """Count a request without a valid key that was refused."""
        self._refusals.add()
        self._add_network(network)

    def refusals(self, number: int) -> None:
        """Count connections that were closed before anything of them was read."""
        self._refusals.add(number)

    def read(self, paying_wait_s: float) -> Reading:
        """The measurement of this moment."""
        return Reading(
            sign_ups_burst=self._sign_ups.count(BURST_S),
            sign_ups_minute=self._sign_ups.count(MINUTE_S),
            new_accounts_minute=self._accounts.count(MINUTE_S),
            baseline_minute=self._baseline_minute,
            sign_ins_burst=self._sign_ins.count(BURST_S),
            failures_burst=self._failures.count(BURST_S),
            refusals_burst=self._refusals.count(BURST_S),
            networks_burst=len(set().union(*self._recent_networks())),
            paying_wait_s=paying_wait_s,
        )

    def learn(self, most_minute: float) -> None:
        """Take the present sign-ups a minute into what is normal, `most_minute` at most."""
        now_s = self._clock()
        share = 1 - math.exp((self._learnt_s - now_s) / BASELINE_S)
        newest = min(self._sign_ups.count(MINUTE_S), most_minute)
        self._baseline_minute += share * (newest - self._baseline_minute)
        self._learnt_s = now_s

    def forget(self) -> None:
        """Let time pass without learning from it."""
        self._learnt_s = self._clock()

    def _add_network(self, network: str) -> None:
        networks = self._recent_networks()[self._networks_s % BURST_S]
        if network and len(networks) < MAX_NETWORKS:
            networks.add(network)

    def _recent_networks(self) -> list[set[str]]:
        now_s = int(self._clock())
        for second in range(max(self._networks_s + 1, now_s - BURST_S + 1), now_s + 1):
            self._networks[second % BURST_S] = set()
        self._networks_s = now_s
        return self._networks
