"""Money for requests to a server: what they have cost, and what those under way may still cost."""

import asyncio


class Budget:
    """The cost of all requests so far; with what those under way may cost it never exceeds the cap.

    It belongs to one event loop.
    """

    def __init__(self, cap: float | None, total_cost: float = 0.0) -> None:
        self.cap, self.total_cost = cap, total_cost
        self._reserve = 0.0
        self._num_open = 0  # reservations; sums of floats do not come back to zero
        self._change = asyncio.Condition()

    async def reserve(self, most: float) -> bool:
        """Set aside the most that a request may cost, waiting for others to end if it could fit then.

        False when it cannot, whatever the others leave.
        """
        async with self._change:
            while self._is_over(most) and self._num_open:
                await self._change.wait()
            if self._is_over(most):
                return False
            self._reserve += most
            self._num_open += 1
            return True

    async def charge(self, reservation: float, cost: float) -> None:
        """End a reservation with the cost of its request."""
        async with self._change:
            self._num_open -= 1
            self._reserve = self._reserve - reservation if self._num_open else 0.0
            self.total_cost += cost
            self._change.notify_all()

    def _is_over(self, most: float) -> bool:
        return self.cap is not None and self.total_cost + self._reserve + most > self.cap


class Account:
    """The cost of one caller's requests within a budget, retries included."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._new_cost = budget, 0.0

    async def reserve(self, most: float) -> bool:
        """See Budget.reserve."""
        return await self._budget.reserve(most)

    async def charge(self, reservation: float, cost: float) -> None:
        """See Budget.charge."""
        self._new_cost += cost
        await self._budget.charge(reservation, cost)

    def take_new_cost(self) -> float:
        """The cost since the last call."""
        cost, self._new_cost = self._new_cost, 0.0
        return cost
