"""The fair queue: classes in order, and in a class the account that has had the least (no clock, no I/O).

Within a class it is the virtual token counter of Sheng et al. (arXiv 2401.00588): each account has a counter
of the tokens that it was given, the account with the lowest one is next, and an account that comes back is
lifted to the lowest counter of those that wait, so that nobody saves up service while away.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

Priority = Literal["interactive", "standard", "batch"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "standard", "batch")
"""Classes, the first one served first."""
INPUT_WEIGHT = 1.0
OUTPUT_WEIGHT = 2.0
"""A token of output costs the engine more than one of input: the weights of the paper's experiments."""
MAX_COUNTERS = 10_000
"""Accounts of a class whose counters are kept while they do not wait."""


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """Numbers of requests that run and wait."""

    slots: int
    """Requests that run at the same time."""
    waiting: int = 512
    """Requests of a class that wait. An account may wait with as many as there is room left."""
    waiting_tokens: int = 4_000_000
    """Predicted tokens of a class that wait."""

    @property
    def batch_slots(self) -> int:
        """Slots that the last class may take together, so that one is soon free for the others."""
        return max(self.slots // 2, 1)


@dataclass(eq=False, slots=True, kw_only=True)
class Ticket:
    """A request in the queue or in a slot."""

    account_id: str
    priority: Priority
    weight: float = 1.0
    """The account's share beside those of the others in its class."""
    prompt_tokens: float
    max_tokens: float
    """Predicted tokens of the completion."""
    number: int = -1

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.max_tokens


@dataclass(frozen=True, slots=True)
class Ahead:
    """The requests that come before one that waits."""

    requests: int
    tokens: float


@dataclass(slots=True)
class _Lane:
    """The requests of one account that wait, in order."""

    tickets: dict[int, Ticket] = field(default_factory=dict)
    tokens: float = 0.0

    def add(self, ticket: Ticket) -> None:
        self.tickets[ticket.number] = ticket
        self.tokens += ticket.tokens

    def remove(self, ticket: Ticket) -> None:
        del self.tickets[ticket.number]
        self.tokens -= ticket.tokens

    @property
    def first(self) -> Ticket:
        return next(iter(self.tickets.values()))


class _Class:
    """The requests of one class that wait, and the counters of its accounts."""

    def __init__(self) -> None:
        self.lanes: dict[str, _Lane] = {}
        self.num_waiting = self.num_running = 0
        self.tokens = 0.0
        self._counters: OrderedDict[str, float] = OrderedDict()
        self._last_counter = 0.0
        """The counter of the account that was the last to stop waiting."""

    def counter(self, account_id: str) -> float:
        return self._counters.get(account_id, 0.0)

    def add(self, ticket: Ticket) -> None:
        account_id = ticket.account_id
        if account_id not in self.lanes:
            least = min((self.counter(other) for other in self.lanes), default=self._last_counter)
            self._set(account_id, max(self.counter(account_id), least))
            self.lanes[account_id] = _Lane()
        self.lanes[account_id].add(ticket)
        self.num_waiting += 1
        self.tokens += ticket.tokens

    def remove(self, ticket: Ticket) -> None:
        lane = self.lanes[ticket.account_id]
        lane.remove(ticket)
        if not lane.tickets:
            self._last_counter = self.counter(ticket.account_id)
            del self.lanes[ticket.account_id]
        self.num_waiting -= 1
        self.tokens = self.tokens - ticket.tokens if self.num_waiting else 0.0

    def next(self) -> Ticket:
        """The first request of the account with the lowest counter; of two, the one that came first."""
        lanes = self.lanes.items()
        account_id, _ = min(lanes, key=lambda item: (self.counter(item[0]), item[1].first.number))
        return self.lanes[account_id].first

    def charge(self, ticket: Ticket, cost: float) -> None:
        self._set(ticket.account_id, self.counter(ticket.account_id) + cost / ticket.weight)

    def _set(self, account_id: str, counter: float) -> None:
        self._counters[account_id] = counter
        self._counters.move_to_end(account_id)
        while len(self._counters) > max(MAX_COUNTERS, len(self.lanes) + 1):
            oldest = next(iter(self._counters))
            if oldest in self.lanes:
                self._counters.move_to_end(oldest)
            else:
                del self._counters[oldest]


class FairQueue:
    """Requests to one model. `start` gives a request whenever a slot is free for one that waits."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._classes: dict[Priority, _Class] = {priority: _Class() for priority in PRIORITIES}
        self._num_tickets = 0

    @property
    def num_running(self) -> int:
        return sum(each.num_running for each in self._classes.values())

    def num_waiting(self, priority: Priority | None = None) -> int:
        """Requests that wait, of one class or of all."""
        names = PRIORITIES if priority is None else (priority,)
        return sum(self._classes[name].num_waiting for name in names)

    def has_room(self, ticket: Ticket) -> bool:
        """Return whether a request may wait: its class has room, and its account leaves room for others."""
        own, limits = self._classes[ticket.priority], self.limits
        lane = own.lanes.get(ticket.account_id)
        num_own, tokens_own = (len(lane.tickets), lane.tokens) if lane else (0, 0.0)
        room, token_room = limits.waiting - own.num_waiting, limits.waiting_tokens - own.tokens
        return num_own < room and (tokens_own + ticket.tokens <= token_room or not own.num_waiting)

    def enter(self, ticket: Ticket) -> None:
        """Put a request into the queue."""
        ticket.number = self._num_tickets
        self._num_tickets += 1
        self._classes[ticket.priority].add(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Take a request that waits out of the queue."""
        self._classes[ticket.priority].remove(ticket)

    def start(self) -> Ticket | None:
        """The request whose turn it is; it has a slot now, and its prompt is charged. None to wait."""
        if self.num_running >= self.limits.slots:
            return None
        for priority in PRIORITIES:
            own = self._classes[priority]
            is_open = priority != "batch" or own.num_running < self.limits.batch_slots
            if own.num_waiting and is_open:
                ticket = own.next()
                own.remove(ticket)
                own.num_running += 1
                self.charge(ticket, prompt_tokens=ticket.prompt_tokens)
                return ticket
        return None

    def charge(self, ticket: Ticket, *, prompt_tokens: float = 0, completion_tokens: float = 0) -> None:
        """Count tokens that a request was given."""
        cost = INPUT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * completion_tokens
        self._classes[ticket.priority].charge(ticket, cost)

    def finish(self, ticket: Ticket) -> None:
        """Free the slot of a request."""
        self._classes[ticket.priority].num_running -= 1

    def counter(self, account_id: str, priority: Priority) -> float:
        """The virtual tokens of an account in a class."""
        return self._classes[priority].counter(account_id)

    def ahead(self, ticket: Ticket) -> Ahead:
        """About how much comes before a request that waits, if nothing new of a higher class comes.

        Accounts take turns: before the request with k of its own in front, each other account has k or k + 1.
        """
        requests, tokens = 0, 0.0
        for priority in PRIORITIES[: PRIORITIES.index(ticket.priority)]:
            requests += self._classes[priority].num_waiting
            tokens += self._classes[priority].tokens
        own = self._classes[ticket.priority]
        num_before = list(own.lanes[ticket.account_id].tickets).index(ticket.number)
        counter = own.counter(ticket.account_id)
        for account_id, lane in own.lanes.items():
            turns = num_before + (account_id != ticket.account_id and own.counter(account_id) <= counter)
            num = min(len(lane.tickets), turns)
            requests += num
            tokens += lane.tokens * num / len(lane.tickets)
        return Ahead(requests, tokens)
