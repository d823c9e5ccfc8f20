"""The way in: a request gets its id and caller before its body is read, and a line in the log at its end."""

import json
import logging
import re
import time
import traceback
from contextlib import AsyncExitStack
from dataclasses import replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import NOBODY, Caller, new_request_id
from shoestring.serve.dialects.errors import error_body, error_status
from shoestring.serve.guard import ALWAYS, Guard
from shoestring.serve.ledger.answers import Answers
from shoestring.serve.ledger.prices import decimal
from shoestring.serve.service import Service

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
COST, MOST_COST = "x-request-cost", "x-request-cost-at-most"
IDEMPOTENCY_KEY = "idempotency-key"
SHARE = re.compile("^(/shares?/)[^/]+")
"""The token in the path of a share: who reads the log may not read the chat."""
READERS = "/answers/"
"""Paths whose readers are not under way themselves: the answer that they read is."""
MAX_BODY_BYTES = 16 << 20
"""The longest body of a request; a conversation of a million tokens is a third of it."""
RETRY_S = 5
"""Seconds after which a client should try again when the service ends."""
CLIENT_CLOSED_REQUEST = 499
"""Status of a reply that nobody receives, for logs."""
FAILED = "the server failed; its log says why, under the x-request-id of this reply"

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers that keep browsers from using a reply for anything but what it is; a reply may have its own."""
HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}


class Entrance:
    """ASGI middleware around the app. The log has no prompt, no key and no query."""

    def __init__(self, app: ASGIApp, service: Service, guard: Guard) -> None:
        self._app, self._service, self._guard = app, service, guard
        self._answers = Answers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, start_s = new_request_id(), time.monotonic()
        status = CLIENT_CLOSED_REQUEST
        is_https = scope.get("scheme") == "https" or self._guard.is_https
        safe_headers = SAFE_HEADERS | (HTTPS_ONLY if is_https else {})

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in safe_headers.items():
                    headers.setdefault(name, value)
                headers.update(self._cost_headers(scope["caller"]))
                if self._service.admission is not None:
                    rates = self._service.admission.headers(scope["caller"], scope["path"])
                    headers.raw.extend(rates)
            await send(message)

        scope.update(caller=NOBODY, request_id=request_id)
        try:
            async with AsyncExitStack() as ending:
                try:
                    self._check(scope)
                    await self._enter(scope, ending)
                except RequestError as refusal:
                    await _refuse(scope["path"], refusal, send_with_id)
                    return
                await self._answer(scope, receive, send_with_id)
        except Exception as error:
            _log_failure(request_id, error)
            if status == CLIENT_CLOSED_REQUEST:  # nothing was sent; a reply that had begun breaks off here
                await _refuse(scope["path"], RequestError("failed", FAILED), send_with_id)
        finally:
            self._log(scope, status, time.monotonic() - start_s)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        """Write a request's line: who, from where, what, and how it ended."""
        if not log.isEnabledFor(logging.INFO):
            return
        caller: Caller = scope["caller"]
        entry = {
            "request_id": scope["request_id"],
            "address": self._guard.address(scope),
            "account": scope.get("account") or caller.account_id,
            "key": caller.key_id,
            "method": scope["method"],
            "path": SHARE.sub(r"\1...", scope["path"])[:200],
            "status": status,
            "seconds": round(seconds, 4),
        }
        log.info("%s", json.dumps(entry))

    async def _enter(self, scope: Scope, ending: AsyncExitStack) -> None:
        """Give the request its caller, who has one more under way until `ending`. Raises RequestError."""
        key = Headers(scope=scope).get(IDEMPOTENCY_KEY)
        caller = await self._guard.caller(scope)
        own = {"idempotency_key": key, "request_id": scope["request_id"], "costs": [], "ending": ending}
        caller = scope["caller"] = replace(caller, **own)
        is_somebody = caller.account_id != NOBODY.account_id
        if self._service.admission is None or not is_somebody or scope["path"] in ALWAYS:
            return
        if scope["method"] == "GET" and scope["path"].startswith(READERS):
            self._service.admission.check_rate(caller)
        else:
            self._service.admission.check_caller(caller)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, once for an Idempotency-Key of an account that pays."""
        caller: Caller = scope["caller"]
        if self._service.meter is None or not caller.idempotency_key or not caller.account_id:
            await self._app(scope, receive, send)
            return
        try:
            await self._answers.run(self._app, scope, receive, send)
        except RequestError as refusal:
            await _refuse(scope["path"], refusal, send)

    def _cost_headers(self, caller: Caller) -> dict[str, str]:
        """The cost of the request; of a stream, which is charged at its end, the most that it can be."""
        if self._service.meter is None or not caller.costs:
            return {}
        amounts = [cost.amount for cost in caller.costs if cost.amount is not None]
        is_known = len(amounts) == len(caller.costs)
        name = COST if is_known else MOST_COST
        total = sum(amounts) if is_known else sum(cost.most for cost in caller.costs)
        return {name: f"{decimal(total)} {self._service.meter.prices.currency}"}

    def _check(self, scope: Scope) -> None:
        """Raise RequestError for a request that goes no further, before anything of its body is read."""
        if self._service.is_draining and scope["path"] not in ALWAYS:
            sentence = "the service is ending; try again in a moment"
            raise RequestError("overloaded", sentence, retry_after_s=RETRY_S)
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise RequestError("too_large", f"the body is longer than {MAX_BODY_BYTES >> 20} MiB")


def _log_failure(request_id: str, error: Exception) -> None:
    """Log an error of our own by its kind and place: its text may hold a prompt."""
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("request %s failed: %s\n%s", request_id, type(error).__name__, place)


async def _refuse(path: str, error: RequestError, send: Send) -> None:
    """Answer with an error in the dialect of the path."""
    body = json.dumps(error_body(path, error)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(round(error.retry_after_s)).encode()))
    await send({"type": "http.response.start", "status": error_status(path, error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
