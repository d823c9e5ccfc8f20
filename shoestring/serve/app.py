"""The app: routes, their callers, and one form of error for each dialect."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import Response

import shoestring
from shoestring.serve.access import CLIENT_CLOSED_REQUEST, MAX_BODY_BYTES, Entrance
from shoestring.serve.audience import audiences
from shoestring.serve.backends.errors import Kind, RequestError
from shoestring.serve.chats.answers import Answers
from shoestring.serve.chats.attachments import Attachments
from shoestring.serve.chats.store import ChatStore
from shoestring.serve.dialects.errors import error_body, error_status, validation_error
from shoestring.serve.guard import Guard
from shoestring.serve.hosting import Hosting
from shoestring.serve.live import ClientGone
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.pages.tally import Tally
from shoestring.serve.routes import (
    anthropic,
    deepseek,
    document,
    health,
    oidc,
    ollama,
    openai,
    payments,
    responses,
    sign_in,
    status,
    usage,
)
from shoestring.serve.routes.account import account, codes, email, keys, terms
from shoestring.serve.routes.admin import accounts, gate, links, operation
from shoestring.serve.routes.deepl import documents, glossaries, styles, texts
from shoestring.serve.routes.page import (
    answers,
    attachments,
    chats,
    files,
    inspect,
    memory,
    models,
    shares,
    training,
    translations,
)
from shoestring.serve.service import Service
from shoestring.serve.tracing import trace_observer
from shoestring.serve.traffic import Traffic
from shoestring.serve.training.runs import Runs
from shoestring.serve.translate.documents import Documents
from shoestring.serve.translate.translation import Translation
from shoestring.serve.watch import Watch

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
"""Work beside requests."""
ROUTERS = (
    openai.router,
    responses.router,
    anthropic.router,
    deepseek.router,
    ollama.router,
    texts.router,
    glossaries.router,
    styles.router,
    documents.router,
    health.router,
    status.router,
    document.router,
    sign_in.router,
    oidc.router,
    account.router,
    keys.router,
    codes.router,
    email.router,
    terms.router,
    usage.router,
    payments.router,
    accounts.router,
    links.router,
    gate.router,
    operation.router,
    files.router,
    chats.router,
    answers.router,
    training.router,
    translations.router,
    shares.router,
    memory.router,
    attachments.router,
    inspect.router,
    models.router,
)


def build_app(
    service: Service,
    hosting: Hosting | None = None,
    chat_store: ChatStore | None = None,
    *,
    local_models: LocalModels | None = None,
    runs: Runs | None = None,
    beside: Sequence[Work] = (),
) -> FastAPI:
    """The app of a service; without `hosting` nobody is asked who they are, and without `chat_store` no
    chats are kept.

    `local_models` are those of this process, `runs` the trainings that an admin sees; `beside`: work that
    goes on while the service does.

    Raises TypeError when a route does not say who may call it.
    """
    app = FastAPI(
        title="shoestring",
        version=shoestring.__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service, app.state.hosting, app.state.chats = service, hosting, chat_store
    app.state.translation = Translation(service, chat_store, service.translator)
    app.state.documents = Documents(app.state.translation)
    app.state.local_models, app.state.runs, app.state.beside = local_models, runs, beside
    audiences(ROUTERS)
    for router in ROUTERS:
        app.router.routes.extend(router.routes)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGone, _client_gone)
    guard = Guard(ROUTERS, service, hosting.accounts if hosting else None)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)  # also without a length
    app.add_middleware(Entrance, service=service, guard=guard)
    app.state.traffic, app.state.tally = Traffic(service.backends), Tally()
    all_observers = [app.state.traffic.observe, app.state.tally.observe, trace_observer()]
    observers = [observer for observer in all_observers if observer]
    app.add_middleware(Watch, observers=observers)
    app.state.answers, app.state.attachments = Answers(service, chat_store, observers), Attachments()
    return app


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {}
    if error.retry_after_s is not None:
        headers = {
            "Retry-After": str(max(round(error.retry_after_s), 1)),
            "Retry-After-Ms": str(round(error.retry_after_s * 1000)),
        }
    path = request.scope["path"]
    return JSONResponse(error_body(path, error), status_code=error_status(path, error), headers=headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    """A body of the wrong form: the first field that is wrong."""
    assert isinstance(error, RequestValidationError)
    return await _request_error(request, validation_error(error.errors(), error.body))


async def _http_error(request: Request, error: Exception) -> Response:
    """Errors of the router: no such path, no such method."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    kinds: dict[int, Kind] = {404: "not_found", 413: "too_large"}
    kind = kinds.get(error.status_code, "invalid")
    sentences = {
        404: f"there is no {path[:200]} here",
        405: f"{path[:200]} does not take {request.method}",
        413: f"the body is longer than {MAX_BODY_BYTES >> 20} MiB",
    }
    body = error_body(path, RequestError(kind, sentences.get(error.status_code, str(error.detail))))
    headers = {"Allow": ", ".join(_methods(path))} if error.status_code == 405 else error.headers
    return JSONResponse(body, status_code=error.status_code, headers=headers)


def _methods(path: str) -> list[str]:
    """The methods of all routes with this path; the router's own header has those of the first one."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return sorted(
        {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    )


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Measure energy while the service runs."""
    models: LocalModels | None = app.state.local_models
    with nullcontext() if models is None else models.settings.energy.meter:
        async with _service(app):
            yield


@asynccontextmanager
async def _service(app: FastAPI) -> AsyncGenerator[None]:
    """Start the service, and end it."""
    service: Service = app.state.service
    hosting: Hosting | None = app.state.hosting
    await service.start()
    if hosting is not None:
        await hosting.start()
    await app.state.answers.start()
    beside = [asyncio.create_task(_run(work)) for work in _beside(app)]
    yield
    await app.state.answers.close()
    await app.state.documents.close()
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    if app.state.runs is not None:
        await app.state.runs.control.close()
    if app.state.local_models is not None:
        await app.state.local_models.jobs.close()
    await service.close()
    if app.state.chats is not None:
        await app.state.chats.close()
    if hosting is not None:
        await hosting.stop()


def _beside(app: FastAPI) -> list[Work]:
    """The work that goes on while the service does."""
    return [*app.state.beside, *([app.state.runs.control.watch] if app.state.runs is not None else [])]


async def _run(work: Work) -> None:
    """Do work; its failure is a line in the log and nothing of the service's."""
    try:
        await work()
    except Exception:
        log.exception("work beside the service failed")
