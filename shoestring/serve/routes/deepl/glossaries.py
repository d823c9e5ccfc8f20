"""Routes of DeepL's API for glossaries: v2 has one pair of languages in each, v3 has several."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.schema import Responses, Schema, whole
from shoestring.serve.routes.deepl.bodies import Fields, TheTranslation, text_field, time_text
from shoestring.serve.routes.deepl.schema import DEEPL_ERRORS, fields_body
from shoestring.serve.routes.parts import TheCaller
from shoestring.serve.translate import resources
from shoestring.serve.translate.entries import language_pair, read_dictionary, write_tsv
from shoestring.serve.translate.languages import SOURCES
from shoestring.serve.translate.translation import Translation

router = APIRouter(tags=["DeepL"], responses=DEEPL_ERRORS)

TSV = "text/tab-separated-values"
MAX_DICTIONARIES = 200
GlossaryId = Annotated[str, Path(max_length=64)]
Code = Annotated[str, Query(max_length=20)]


class LanguagePair(Schema):
    source_lang: str
    target_lang: str


class LanguagePairs(Schema):
    supported_languages: list[LanguagePair]


class Glossary(Schema):
    """A glossary of v2."""

    glossary_id: str
    name: str
    ready: bool
    source_lang: str
    target_lang: str
    creation_time: str
    entry_count: int


class Glossaries(Schema):
    glossaries: list[Glossary]


class DictionaryInfo(LanguagePair):
    entry_count: int


class MultilingualGlossary(Schema):
    """A glossary of v3."""

    glossary_id: str
    name: str
    creation_time: str
    dictionaries: list[DictionaryInfo]


class MultilingualGlossaries(Schema):
    glossaries: list[MultilingualGlossary]


class DictionaryEntries(LanguagePair):
    entries: str
    entries_format: str


class GlossaryEntries(Schema):
    dictionaries: list[DictionaryEntries]


@router.get("/v2/glossary-language-pairs", responses=whole(LanguagePairs))
@audience(Audience.KEY)
async def list_pairs(caller: TheCaller) -> dict[str, Any]:
    """List the pairs of languages that a glossary can have: all."""
    codes = [code.lower() for code in SOURCES]
    pairs = [(one, other) for one in codes for other in codes if one != other]
    return {"supported_languages": [{"source_lang": one, "target_lang": other} for one, other in pairs]}


NEW: Responses = {201: {"model": Glossary, "description": "The glossary."}}


@router.post("/v2/glossaries", status_code=201, responses=NEW, openapi_extra=fields_body())
@audience(Audience.KEY)
async def create_glossary(fields: Fields, caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """Make a glossary."""
    content = {"name": text_field(fields, "name"), "dictionaries": [read_dictionary(fields)]}
    return _single(await translation.store.write(resources.add, caller.account_id, "glossary", content))


@router.get("/v2/glossaries", responses=whole(Glossaries))
@audience(Audience.KEY)
async def list_glossaries(caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """List the glossaries with one pair of languages."""
    rows = await translation.store.read(resources.find_all, caller.account_id, "glossary")
    return {"glossaries": [_single(row) for row in rows if len(row["dictionaries"]) == 1]}


@router.get("/v2/glossaries/{glossary_id}", responses=whole(Glossary))
@audience(Audience.KEY)
async def show_glossary(
    glossary_id: GlossaryId, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Show a glossary."""
    return _single(await _find(translation, caller, glossary_id))


@router.get(
    "/v2/glossaries/{glossary_id}/entries",
    response_class=Response,
    responses={200: {"content": {TSV: {"schema": {"type": "string"}}}, "description": "The entries."}},
)
@audience(Audience.KEY)
async def show_entries(glossary_id: GlossaryId, caller: TheCaller, translation: TheTranslation) -> Response:
    """Show the entries of a glossary, as tab-separated lines."""
    row = await _find(translation, caller, glossary_id)
    _single(row)
    return Response(write_tsv(row["dictionaries"][0]["entries"]), media_type=TSV)


@router.delete("/v2/glossaries/{glossary_id}", status_code=204)
@router.delete("/v3/glossaries/{glossary_id}", status_code=204)
@audience(Audience.KEY)
async def delete_glossary(glossary_id: GlossaryId, caller: TheCaller, translation: TheTranslation) -> None:
    """Delete a glossary."""
    await translation.store.write(resources.remove, caller.account_id, "glossary", glossary_id)


NEW_MULTILINGUAL: Responses = {201: {"model": MultilingualGlossary, "description": "The glossary."}}


@router.post("/v3/glossaries", status_code=201, responses=NEW_MULTILINGUAL, openapi_extra=fields_body())
@audience(Audience.KEY)
async def create_multilingual(
    fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Make a glossary with dictionaries of several pairs of languages."""
    content = {"name": text_field(fields, "name"), "dictionaries": _merged([], _dictionaries(fields))}
    return _multilingual(await translation.store.write(resources.add, caller.account_id, "glossary", content))


@router.get("/v3/glossaries", responses=whole(MultilingualGlossaries))
@audience(Audience.KEY)
async def list_multilingual(caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """List all glossaries."""
    rows = await translation.store.read(resources.find_all, caller.account_id, "glossary")
    return {"glossaries": [_multilingual(row) for row in rows]}


@router.get("/v3/glossaries/{glossary_id}", responses=whole(MultilingualGlossary))
@audience(Audience.KEY)
async def show_multilingual(
    glossary_id: GlossaryId, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Show a glossary."""
    return _multilingual(await _find(translation, caller, glossary_id))


@router.patch(
    "/v3/glossaries/{glossary_id}", responses=whole(MultilingualGlossary), openapi_extra=fields_body()
)
@audience(Audience.KEY)
async def change_multilingual(
    glossary_id: GlossaryId, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Rename a glossary, or add entries; those with the same term are replaced."""
    name = {"name": text_field(fields, "name")} if "name" in fields else {}
    new = _dictionaries(fields) if "dictionaries" in fields else []

    def change(row: dict[str, Any]) -> None:
        row.update(name, dictionaries=_merged(row["dictionaries"], new))

    return await _change(translation, caller, glossary_id, change)


@router.get("/v3/glossaries/{glossary_id}/entries", responses=whole(GlossaryEntries))
@audience(Audience.KEY)
async def show_dictionary(
    glossary_id: GlossaryId,
    caller: TheCaller,
    translation: TheTranslation,
    source_lang: Code,
    target_lang: Code,
) -> dict[str, Any]:
    """Show the entries of a dictionary."""
    row = await _find(translation, caller, glossary_id)
    dictionary = row["dictionaries"][_place(row, source_lang, target_lang)]
    text = {"entries": write_tsv(dictionary["entries"]), "entries_format": "tsv"}
    return {"dictionaries": [{**_pair(dictionary), **text}]}


@router.put(
    "/v3/glossaries/{glossary_id}/dictionaries",
    responses=whole(DictionaryInfo),
    openapi_extra=fields_body(),
)
@audience(Audience.KEY)
async def replace_dictionary(
    glossary_id: GlossaryId, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Replace a dictionary of a glossary, or add one."""
    new = read_dictionary(fields)

    def change(row: dict[str, Any]) -> None:
        others = [each for each in row["dictionaries"] if _pair(each) != _pair(new)]
        row["dictionaries"] = [*others, new]

    await _change(translation, caller, glossary_id, change)
    return _info(new)


@router.delete("/v3/glossaries/{glossary_id}/dictionaries", status_code=204)
@audience(Audience.KEY)
async def delete_dictionary(
    glossary_id: GlossaryId,
    caller: TheCaller,
    translation: TheTranslation,
    source_lang: Code,
    target_lang: Code,
) -> None:
    """Delete a dictionary of a glossary."""
    await _change(
        translation,
        caller,
        glossary_id,
        lambda row: row["dictionaries"].pop(_place(row, source_lang, target_lang)),
    )


async def _find(translation: Translation, caller: Caller, glossary_id: str) -> dict[str, Any]:
    row: dict[str, Any] = await translation.store.read(
        resources.find, caller.account_id, "glossary", glossary_id
    )
    return row


async def _change(
    translation: Translation, caller: Caller, glossary_id: str, work: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """The glossary after a change of its content."""
    return _multilingual(
        await translation.store.write(resources.change, caller.account_id, "glossary", glossary_id, work)
    )


def _dictionaries(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The dictionaries of a request. Raises RequestError."""
    dictionaries = fields.get("dictionaries")
    if not isinstance(dictionaries, list) or not 0 < len(dictionaries) <= MAX_DICTIONARIES:
        raise RequestError("invalid", "Missing or invalid argument: dictionaries", field="dictionaries")
    return [read_dictionary(each) for each in dictionaries]


def _merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Dictionaries with the entries of others, one for each pair of languages."""
    result = {tuple(_pair(each).values()): each for each in old}
    for each in new:
        key = tuple(_pair(each).values())
        before = result[key]["entries"] if key in result else {}
        result[key] = {**each, "entries": {**before, **each["entries"]}}
    return list(result.values())


def _place(row: dict[str, Any], source_lang: str, target_lang: str) -> int:
    """The number of a glossary's dictionary. Raises RequestError."""
    source, target = language_pair(source_lang, target_lang)
    for number, each in enumerate(row["dictionaries"]):
        if (each["source_lang"], each["target_lang"]) == (source, target):
            return number
    raise RequestError("not_found", f"the glossary has no dictionary from {source} to {target}")


def _pair(dictionary: dict[str, Any]) -> dict[str, str]:
    return {name: dictionary[name].lower() for name in ("source_lang", "target_lang")}


def _info(dictionary: dict[str, Any]) -> dict[str, Any]:
    return {**_pair(dictionary), "entry_count": len(dictionary["entries"])}


def _single(row: dict[str, Any]) -> dict[str, Any]:
    """A glossary as v2 shows it. Raises RequestError for one with several dictionaries."""
    if len(row["dictionaries"]) != 1:
        raise RequestError("not_found", "this glossary has several dictionaries; ask /v3/glossaries")
    head = {"glossary_id": row["id"], "name": row["name"], "ready": True}
    return {**head, **_info(row["dictionaries"][0]), "creation_time": time_text(row["created_ms"])}


def _multilingual(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "glossary_id": row["id"],
        "name": row["name"],
        "creation_time": time_text(row["created_ms"]),
        "dictionaries": [_info(each) for each in row["dictionaries"]],
    }
