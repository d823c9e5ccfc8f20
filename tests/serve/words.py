"""A backend without a model: it says numbers, and may wait before the last one."""

import asyncio
import threading

from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.reply import Delta, Usage, Work
from shoestring.serve.ledger.prices import NANOS, PriceList

PROMPT, MOST, WORDS = 10, 20, 8
CHAT = {"model": "words", "messages": [{"role": "user", "content": "x"}], "max_tokens": MOST}
PRICES = PriceList.model_validate({"models": {"*": {"cache_hit": 1, "cache_miss": 1, "output": 2}}})
PRICE = -(-(PROMPT + 2 * WORDS) * NANOS // 10**6)
"""The cost of a reply."""


class Words:
    """A model of WORDS words."""

    def __init__(self):
        self.card = ModelCard(id="words", max_model_len=100, created_s=0)
        self.is_healthy = True
        self.gate = threading.Event()
        self.gate.set()
        self.num_open = 0
        self.error = None

    def start(self):
        pass

    async def prepare(self, request):
        async def start():
            if self.error:
                raise self.error
            return self._deltas()

        return Work(model="words", prompt_tokens=PROMPT, max_tokens=MOST, start=start)

    async def _deltas(self):
        self.num_open += 1
        try:
            for number in range(1, WORDS + 1):
                while number == WORDS and not self.gate.is_set():
                    await asyncio.sleep(0.01)
                usage = Usage(prompt_tokens=PROMPT, completion_tokens=number)
                yield Delta(text=f" {number}", usage=usage)
            yield Delta(finish_reason="stop", usage=usage)
        finally:
            self.num_open -= 1

    async def close(self):
        pass
