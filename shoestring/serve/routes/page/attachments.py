"""The route of attachments: a file goes in, its text comes out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.attachments import MAX_FILE_BYTES, Attachments
from shoestring.serve.chats.schema import AttachmentText, storable
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.routes.parts import TheCaller

router = APIRouter(tags=["chats"], responses=errors(OpenAIError))

FILE = {"required": True, "content": {"application/octet-stream": {"schema": {"format": "binary"}}}}


@router.post("/attachments", responses=whole(AttachmentText), openapi_extra={"requestBody": FILE})
@audience(Audience.ACCOUNT)
async def read_file(
    request: Request, caller: TheCaller, name: Annotated[str, Query(min_length=1, max_length=200)]
) -> AttachmentText:
    """Give the text of a file, which is the body: of text or code, or of a PDF. Nothing is kept."""
    attachments: Attachments = request.app.state.attachments
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_FILE_BYTES:
            sentence = f"the file is longer than {MAX_FILE_BYTES >> 20} MiB; send it in parts"
            raise RequestError("too_large", sentence)
    if not data:
        raise RequestError("invalid", "the file is empty")
    return await attachments.read(caller.account_id, storable(name), bytes(data))
