"""Routes of the translate page: what it offers, and a translation as it is made."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.errors import openai_error
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors, whole
from shoestring.serve.live import event_stream, sse
from shoestring.serve.routes.deepl.bodies import TheTranslation
from shoestring.serve.routes.parts import TheCaller
from shoestring.serve.translate.formats import FORMATS
from shoestring.serve.translate.languages import LISTED_TARGETS, SOURCES
from shoestring.serve.translate.live import Event, Live
from shoestring.serve.translate.request import MAX_REQUEST, TranslationFields

router = APIRouter(prefix="/translations", tags=["page"], responses=errors(OpenAIError))


class TargetFields(Schema):
    code: str
    has_formality: bool


class TranslationOffer(Schema):
    """Languages, and the model that translates unless another one is named."""

    model: str
    sources: list[str]
    targets: list[TargetFields]
    formats: list[str]
    max_characters: int


class LiveBody(TranslationFields):
    """A text to translate."""

    text: Annotated[str, Field(min_length=1)]


@router.get("", responses=whole(TranslationOffer))
@audience(Audience.KEY)
async def show_offer(caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """Show what can be translated."""
    targets = [{"code": each.code, "has_formality": each.has_formality} for each in LISTED_TARGETS]
    return {
        "model": translation.model,
        "sources": list(SOURCES),
        "targets": targets,
        "formats": list(FORMATS),
        "max_characters": MAX_REQUEST,
    }


@router.post(
    "",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Pieces as they grow."}},
)
@audience(Audience.KEY)
async def translate_live(body: LiveBody, caller: TheCaller, translation: TheTranslation) -> Response:
    """Translate a text, and show it as it grows."""
    events = Live(translation, caller, body.text).events(body)
    first = await anext(events)
    return event_stream(_stream(first, events))


async def _stream(first: Event, events: AsyncGenerator[Event]) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(events):
            yield sse(json.dumps(first))
            async for event in events:
                yield sse(json.dumps(event, ensure_ascii=False))
    except RequestError as error:
        yield sse(json.dumps(openai_error(error), ensure_ascii=False))
    yield sse("[DONE]")
