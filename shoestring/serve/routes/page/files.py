"""The chat page: files that were built from ui/, served as they lie in the package."""

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, errors

router = APIRouter(tags=["page"], responses=errors(OpenAIError))

FOLDER = Path(__file__).parents[2] / "pages" / "app"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
WORKER = "worker.js"
"""The service worker, which may keep the page at / though it lies below /app."""
NAMES = frozenset(path.name for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES)
"""The files of the page; no other name is looked for."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types default dompurify svelte-trusted-html worker",
    )
)
"""Nothing runs, and nothing is fetched, but what comes from this service."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",  # asked anew each time, and answered by 304
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/", response_class=Response, responses={200: {"content": {"text/html": {}}}})
@audience(Audience.ANYONE)
async def show_page(request: Request) -> Response:
    """Show the chat page."""
    return page_file(request, "index.html")


@router.get("/app/{name}", response_class=Response, responses={200: {"content": {"text/javascript": {}}}})
@audience(Audience.ANYONE)
async def show_file(name: str, request: Request) -> Response:
    """Give a file of the chat page."""
    if name not in NAMES:
        raise RequestError("not_found", "the page has no such file")
    return page_file(request, name)


def page_file(request: Request, name: str) -> Response:
    """The reply with a file of the page, or 304 for a browser that has it."""
    content, tag = _file(name)
    headers = {**HEADERS, "ETag": tag}
    if name == WORKER:
        headers["Service-Worker-Allowed"] = "/"
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


@cache
def _file(name: str) -> tuple[bytes, str]:
    """The content of a file and its tag."""
    content = (FOLDER / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
