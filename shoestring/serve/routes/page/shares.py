"""Routes of shares: a branch of a chat for whoever has the link. Its readers are asked for no cookie."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.chats.schema import ShareBody, ShareContent, ShareLink, ShareList
from shoestring.serve.chats.shares import share_branch, share_content, shares_of, take_back
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.routes.page.files import page_file
from shoestring.serve.routes.page.stored import ERRORS, TheId, TheStore
from shoestring.serve.routes.parts import TheCaller

router = APIRouter(tags=["chats"], responses=errors(OpenAIError, ERRORS))

TheToken = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{20,40}$")]
FOR_NOBODY_ELSE = {"X-Robots-Tag": "noindex, nofollow", "Referrer-Policy": "no-referrer"}
"""No search engine keeps what is shared, and no other site hears of its address."""


@router.post("/chats/{chat_id}/share", status_code=201, responses={201: {"model": ShareLink}})
@audience(Audience.ACCOUNT)
async def share(chat_id: TheId, body: ShareBody, caller: TheCaller, store: TheStore) -> dict[str, str]:
    """Share the branch that ends with a message, as it is now."""
    token = await store.write(share_branch, caller.account_id, chat_id, body.leaf, store.now_ms())
    return {"token": token, "path": f"/share/{token}"}


@router.get("/shares", responses=whole(ShareList))
@audience(Audience.ACCOUNT)
async def list_shares(caller: TheCaller, store: TheStore) -> dict[str, Any]:
    """List what is shared, the newest first."""
    return {"shares": await store.read(shares_of, caller.account_id)}


@router.delete("/shares/{token}", status_code=204)
@audience(Audience.ACCOUNT)
async def unshare(token: TheToken, caller: TheCaller, store: TheStore) -> None:
    """Take a share back, for good."""
    await store.write(take_back, caller.account_id, token)


@router.get("/shares/{token}/content", response_class=Response, responses=whole(ShareContent))
@audience(Audience.ANYONE)
async def read_share(token: TheToken, store: TheStore) -> Response:
    """Show what is shared."""
    fields = await store.read(share_content, token)
    content = fields.pop("content")  # JSON already
    text = f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "messages": {content}}}'
    return Response(text, media_type="application/json", headers=FOR_NOBODY_ELSE)


@router.get("/share/{token}", response_class=Response, responses={200: {"content": {"text/html": {}}}})
@audience(Audience.ANYONE)
async def show_share(token: TheToken, request: Request) -> Response:
    """Show the page of a share, which reads its content."""
    reply = page_file(request, "share.html")
    reply.headers.update(FOR_NOBODY_ELSE)
    return reply
