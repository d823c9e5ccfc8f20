"""The service around a model that is a clock: a token whenever its time has come, at no cost.

    python bench/stub_service.py PORT [--interval SECONDS]

GET /stub says how many replies are open, how many were at most, and how many ended before their time.
"""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Sequence

from shoestring.serve.app import build_app
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.reply import Delta, Usage, Work
from shoestring.serve.backends.request import BackendRequest
from shoestring.serve.server import listen, serve_app
from shoestring.serve.service import Service

PROMPT_TOKENS = 10


class ClockBackend:
    """A backend that writes `x` after each interval."""

    def __init__(self, interval_s: float) -> None:
        self.card = ModelCard(id="clock", max_model_len=1 << 20, created_s=0)
        self.is_healthy = True
        self.counts = {"open": 0, "most": 0, "begun": 0, "left": 0}
        self._interval_s = interval_s

    def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        return tuple(range(PROMPT_TOKENS))

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return "x " * len(token_ids)

    async def prepare(self, request: BackendRequest) -> Work:
        most = request.sampling.max_tokens or 100

        async def start() -> AsyncGenerator[Delta]:
            return self._deltas(most)

        return Work(model=self.card.id, prompt_tokens=PROMPT_TOKENS, max_tokens=most, start=start)

    async def _deltas(self, num_tokens: int) -> AsyncGenerator[Delta]:
        counts = self.counts
        counts["open"] += 1
        counts["begun"] += 1
        counts["most"] = max(counts["most"], counts["open"])
        usage, is_whole = Usage(prompt_tokens=PROMPT_TOKENS), False
        try:
            for number in range(num_tokens):
                await asyncio.sleep(self._interval_s)
                usage = Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=number + 1)
                yield Delta(text="x ", usage=usage)
            yield Delta(finish_reason="stop", usage=usage)
            is_whole = True
        finally:
            counts["open"] -= 1
            counts["left"] += not is_whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--interval", type=float, default=0.0)
    arguments = parser.parse_args()
    backend = ClockBackend(arguments.interval)
    service = Service({backend.card.id: backend})
    app = build_app(service)
    app.get("/stub")(lambda: backend.counts)
    serve_app(app, service, listen("127.0.0.1", arguments.port))


if __name__ == "__main__":
    main()
