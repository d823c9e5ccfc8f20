"""Routes of DeepL's API for texts: translations, better words, languages and usage."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import Schema, whole
from shoestring.serve.live import unless_gone
from shoestring.serve.routes.deepl.bodies import Fields, TheTranslation, fields_of, read_body
from shoestring.serve.routes.deepl.schema import DEEPL_ERRORS, body_of
from shoestring.serve.routes.parts import TheCaller
from shoestring.serve.translate.languages import LISTED_TARGETS, SOURCES
from shoestring.serve.translate.request import RephraseBody, TranslateBody
from shoestring.serve.translate.usage import usage_of

router = APIRouter(tags=["DeepL"], responses=DEEPL_ERRORS)

NO_LIMIT = 10**12
"""The limit that DeepL's API shows where there is none."""


class TranslatedText(Schema):
    text: str
    detected_source_language: str
    billed_characters: int | None = None
    model_type_used: str | None = None


class Translations(Schema):
    translations: list[TranslatedText]


class Improvement(Schema):
    text: str
    detected_source_language: str
    target_language: str


class Improvements(Schema):
    improvements: list[Improvement]


class LanguageFields(Schema):
    language: str
    name: str
    supports_formality: bool | None = None


class CharacterUsage(Schema):
    """Characters and documents of this month; what they cost is in /v1/usage."""

    character_count: int
    character_limit: int
    document_count: int
    document_limit: int


@router.post("/v2/translate", responses=whole(Translations), openapi_extra=body_of(TranslateBody))
@audience(Audience.KEY)
async def translate_texts(
    request: Request, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> JSONResponse:
    """Translate texts."""
    body = read_body(TranslateBody, fields)
    work = translation.translate(caller, body, translation.chat(caller, body.model))
    results = await unless_gone(request, work)
    translations = []
    for result in results:
        entry = {"detected_source_language": result.source.code, "text": result.text}
        if body.show_billed_characters:
            entry["billed_characters"] = result.num_characters
        if body.model_type is not None:
            entry["model_type_used"] = body.model_type.removeprefix("prefer_")
        translations.append(entry)
    return JSONResponse({"translations": translations})


@router.post("/v2/write/rephrase", responses=whole(Improvements), openapi_extra=body_of(RephraseBody))
@audience(Audience.KEY)
async def rephrase_texts(
    request: Request, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> JSONResponse:
    """Give texts better words in their own language."""
    body = read_body(RephraseBody, fields)
    results = await unless_gone(request, translation.rephrase(caller, body))
    improvements = [
        {"text": result.text, "detected_source_language": result.source.code, "target_language": own.code}
        for result, own in results
    ]
    return JSONResponse({"improvements": improvements})


@router.get("/v2/languages", responses=whole(list[LanguageFields]))
@audience(Audience.KEY)
async def list_languages(request: Request, caller: TheCaller, type: str | None = None) -> JSONResponse:
    """List the languages to translate from, or with `type=target` those to translate into."""
    kind = type or (await fields_of(request)).get("type") or "source"  # DeepL's client sends a form with GET
    if kind == "source":
        return JSONResponse([{"language": each.code, "name": each.name} for each in SOURCES.values()])
    if kind != "target":
        raise RequestError("invalid", "Value for 'type' must be source or target", field="type")
    fields = [
        {"language": each.code, "name": each.name, "supports_formality": each.has_formality}
        for each in LISTED_TARGETS
    ]
    return JSONResponse(fields)


@router.get("/v2/usage", responses=whole(CharacterUsage))
@audience(Audience.KEY)
async def show_characters(caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """Show the characters and documents that were translated this month; there is no limit but money."""
    characters, documents = await translation.store.read(usage_of, caller.account_id)
    return {
        "character_count": characters,
        "character_limit": NO_LIMIT,
        "document_count": documents,
        "document_limit": NO_LIMIT,
    }
