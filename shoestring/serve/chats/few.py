"""Heavy work: few pieces at the same time, and of one account few at the same time or waiting."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shoestring.serve.backends.errors import RequestError

RETRY_S = 2.0


class FewAtOnce:
    """The turns of one kind of work. Use it on one event loop."""

    def __init__(self, num_at_once: int, num_of_account: int, name: str) -> None:
        """`name` says what an account has too many of."""
        self._slots = asyncio.Semaphore(num_at_once)
        self._num_of_account, self._name = num_of_account, name
        self._present: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, account_id: str) -> AsyncGenerator[None]:
        """Wait for a turn, and have it. Raises RequestError for one piece too many of an account."""
        if self._present[account_id] >= self._num_of_account:
            sentence = f"{self._num_of_account} {self._name} of yours are under way; wait for one to end"
            raise RequestError("rate_limit", sentence, retry_after_s=RETRY_S)
        self._present[account_id] += 1
        try:
            async with self._slots:
                yield
        finally:
            self._present[account_id] -= 1
            if not self._present[account_id]:
                del self._present[account_id]
