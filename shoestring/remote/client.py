"""An asynchronous client of one OpenAI-compatible server: a chat completion, retried, at a known cost."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from shoestring.errors import ConfigError
from shoestring.remote.budget import Account
from shoestring.remote.config import RemoteConfig, checked_url, read_key
from shoestring.remote.wire import ChatCompletion, Refusal, backoff_s, read_completion, read_refusal

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

TEMPLATE_TOKENS = 256
"""The most tokens that a server's chat template adds to a prompt, for the highest possible cost."""
OUT_OF_MONEY = "cost"
"""The message of the refusal of a request that would exceed the cost cap."""
_ERROR_BYTES = 1 << 16
_HINTS = {
    401: "check the key that remote.key_env names",
    402: "the account there is empty",
    403: "check the key that remote.key_env names",
    404: "check the URL (most end in /v1) and remote.model",
}


class ChatClient:
    """Chat completions of one server. Use as an asynchronous context manager, in one event loop at a time.

    The highest cost of a request assumes that a token of the prompt has at least one byte, that a template
    adds at most TEMPLATE_TOKENS of them and that `max_tokens` bounds the thinking too. A request whose reply
    is lost counts at that cost.
    """

    def __init__(self, url: str, config: RemoteConfig) -> None:
        """Raises ConfigError for a URL, model or key that cannot be right."""
        self.url, self.config = checked_url(url), config
        if not config.model:
            raise ConfigError(
                f"remote.model is empty; set it to the name of the model that {self.url} should use"
            )
        self._key = read_key(config.key_env, self.url)
        self._quiet_until_s = 0.0  # by the loop's clock: a server's Retry-After holds for all requests
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        import httpx2

        headers = {"Accept-Encoding": "identity"}  # a compressed reply could be a bomb
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limits = httpx2.Limits(max_connections=self.config.concurrency)
        self._http = httpx2.AsyncClient(headers=headers, limits=limits, timeout=None)
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def complete(self, body: Mapping[str, Any], account: Account) -> ChatCompletion:
        """The completion for a request's `body`, without its model: messages, max_tokens and perhaps n.

        Raises Refusal when no attempt succeeded, ConfigError when the server would refuse every request.
        """
        attempts = self.config.attempts
        for attempt in range(attempts):
            try:
                return await self._attempt(body, account)
            except Refusal as refusal:
                if refusal.action != "retry" or attempt + 1 == attempts:
                    raise
                log.info("%s: %s; trying again", self.url, refusal)
                if refusal.wait_s:
                    until_s = asyncio.get_running_loop().time() + refusal.wait_s
                    self._quiet_until_s = max(self._quiet_until_s, until_s)
                await asyncio.sleep(backoff_s(attempt, refusal.wait_s, random.random()))
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, body: Mapping[str, Any], account: Account) -> ChatCompletion:
        """One request, charged to the account."""
        await asyncio.sleep(self._quiet_until_s - asyncio.get_running_loop().time())
        content, n = self._content(body), body.get("n", 1)
        most = self._price(len(content) + TEMPLATE_TOKENS, n * body["max_tokens"])
        if not await account.reserve(most):
            raise Refusal(OUT_OF_MONEY, "stop")
        cost = most  # unless the reply says less; also when interrupted
        try:
            completion = await self._post(content, n)
            if completion.prompt_tokens is not None and completion.completion_tokens is not None:
                cost = self._price(completion.prompt_tokens, completion.completion_tokens)
            return completion
        except Refusal as refusal:
            cost = most if refusal.may_cost else 0.0
            raise
        except ConfigError:
            cost = 0.0
            raise
        finally:
            await account.charge(most, cost)

    async def _post(self, content: bytes, n: int) -> ChatCompletion:
        async with self._reply(content) as reply:
            body = await _read(reply, self.config.max_reply_bytes)
        return read_completion(body, n)

    @asynccontextmanager
    async def _reply(self, content: bytes) -> "AsyncIterator[httpx2.Response]":
        """The reply to one POST, of status 200 and unread; Refusal for every other end of it."""
        import httpx2

        assert self._http is not None, "use the client as a context manager"
        headers, url = {"Content-Type": "application/json"}, f"{self.url}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.config.timeout_s),
                self._http.stream("POST", url, content=content, headers=headers) as reply,
            ):
                if reply.status_code != 200:
                    body = await _read(reply, _ERROR_BYTES, cut=True)
                    raise self._refusal(reply.status_code, reply.headers, body)
                yield reply
        except TimeoutError:
            reason = f"no reply within {self.config.timeout_s:g} s"
            raise Refusal(reason, "retry", may_cost=True) from None
        except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
            raise Refusal(f"no connection: {self._without_key(str(error))}", "retry") from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError, ValueError) as error:
            reason = f"the reply broke off ({type(error).__name__})"
            raise Refusal(reason, "retry", may_cost=True) from None

    def _content(self, body: Mapping[str, Any]) -> bytes:
        return json.dumps({**self.config.extra, "model": self.config.model, **body}).encode()

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
        """The refusal that a status means; ConfigError for one that every request would meet."""
        refusal = read_refusal(status, {name.lower(): headers[name] for name in headers}, body)
        reason = self._without_key(str(refusal))
        if refusal.action == "stop":
            raise ConfigError(f"{self.url} refuses us, {reason}; {_HINTS.get(status, _HINTS[404])}")
        return Refusal(reason, refusal.action, may_cost=refusal.may_cost, wait_s=refusal.wait_s)

    def _without_key(self, text: str) -> str:
        """The text without the key, which some servers repeat."""
        return text.replace(self._key, "***") if self._key else text

    def _price(self, prompt_tokens: int, completion_tokens: float) -> float:
        config = self.config
        return (prompt_tokens * config.price_in + completion_tokens * config.price_out) / 1e6


async def _read(reply: "httpx2.Response", limit: int, *, cut: bool = False) -> bytes:
    """The reply's bytes, or (`cut`) only the first `limit`; Refusal when they are too many or compressed."""
    if reply.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("the reply is compressed, which was not asked for", "retry", may_cost=True)
    parts, size = [], 0
    async for part in reply.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > limit and not cut:
            raise Refusal(f"the reply is longer than {limit:,} bytes", "retry", may_cost=True)
        if size > limit:
            break
    return b"".join(parts)[:limit]
