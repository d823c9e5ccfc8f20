"""Routes of DeepL's API for style rules: rules and instructions that translations follow."""

import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.schema import Responses, Schema, whole
from shoestring.serve.routes.deepl.bodies import Fields, TheTranslation, text_field, time_text
from shoestring.serve.routes.deepl.schema import DEEPL_ERRORS, fields_body
from shoestring.serve.routes.parts import TheCaller
from shoestring.serve.translate import resources
from shoestring.serve.translate.languages import target_language
from shoestring.serve.translate.translation import Translation

router = APIRouter(prefix="/v3/style_rules", tags=["DeepL"], responses=DEEPL_ERRORS)

MAX_INSTRUCTIONS = 200
MAX_WORDS = 300
"""Characters of a rule or an instruction."""
Id = Annotated[str, Path(max_length=64)]
Rules = dict[str, dict[str, str]]


class Instruction(Schema):
    id: str
    label: str
    prompt: str
    source_language: str | None


class StyleRule(Schema):
    style_id: str
    name: str
    creation_time: str
    updated_time: str
    language: str
    version: int
    configured_rules: Rules | None = None
    custom_instructions: list[Instruction] | None = None


class StyleRules(Schema):
    style_rules: list[StyleRule]


NEW: Responses = {201: {"model": StyleRule, "description": "The style rule."}}
NEW_INSTRUCTION: Responses = {201: {"model": Instruction, "description": "The instruction."}}


@router.get("", responses=whole(StyleRules))
@audience(Audience.KEY)
async def list_styles(
    caller: TheCaller,
    translation: TheTranslation,
    page: Annotated[int, Query(ge=0)] = 0,
    page_size: Annotated[int, Query(ge=1, le=100)] = 25,
    is_detailed: Annotated[bool, Query(alias="detailed")] = False,
) -> dict[str, Any]:
    """List the style rules."""
    rows = await translation.store.read(resources.find_all, caller.account_id, "style")
    rows = rows[page * page_size : (page + 1) * page_size]
    return {"style_rules": [_fields(row, is_detailed=is_detailed) for row in rows]}


@router.post("", status_code=201, responses=NEW, openapi_extra=fields_body())
@audience(Audience.KEY)
async def create_style(fields: Fields, caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """Make a style rule."""
    language = text_field(fields, "language", 20)
    target_language(language)
    instructions = fields.get("custom_instructions") or []
    if not isinstance(instructions, list) or len(instructions) > MAX_INSTRUCTIONS:
        raise RequestError(
            "invalid", "Missing or invalid argument: custom_instructions", field="custom_instructions"
        )
    content = {
        "name": text_field(fields, "name"),
        "language": language.lower(),
        "version": 1,
        "configured_rules": _rules(fields.get("configured_rules") or {}),
        "custom_instructions": [_instruction(each) for each in instructions],
    }
    return _fields(await translation.store.write(resources.add, caller.account_id, "style", content))


@router.get("/{style_id}", responses=whole(StyleRule))
@audience(Audience.KEY)
async def show_style(style_id: Id, caller: TheCaller, translation: TheTranslation) -> dict[str, Any]:
    """Show a style rule."""
    return _fields(await translation.store.read(resources.find, caller.account_id, "style", style_id))


@router.patch("/{style_id}", responses=whole(StyleRule), openapi_extra=fields_body())
@audience(Audience.KEY)
async def rename_style(
    style_id: Id, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Rename a style rule."""
    name = text_field(fields, "name")
    return _fields(await _change(translation, caller, style_id, lambda row: row.update(name=name)))


@router.delete("/{style_id}", status_code=204)
@audience(Audience.KEY)
async def delete_style(style_id: Id, caller: TheCaller, translation: TheTranslation) -> None:
    """Delete a style rule."""
    await translation.store.write(resources.remove, caller.account_id, "style", style_id)


@router.put("/{style_id}/configured_rules", responses=whole(StyleRule), openapi_extra=fields_body())
@audience(Audience.KEY)
async def replace_rules(
    style_id: Id, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Replace the rules."""
    rules = _rules(fields)
    row = await _change(translation, caller, style_id, lambda row: row.update(configured_rules=rules))
    return _fields(row)


@router.post(
    "/{style_id}/custom_instructions",
    status_code=201,
    responses=NEW_INSTRUCTION,
    openapi_extra=fields_body(),
)
@audience(Audience.KEY)
async def add_instruction(
    style_id: Id, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Add an instruction."""
    new = _instruction(fields)

    def add(row: dict[str, Any]) -> None:
        if len(row["custom_instructions"]) >= MAX_INSTRUCTIONS:
            raise RequestError("invalid", f"a style rule has at most {MAX_INSTRUCTIONS} instructions")
        row["custom_instructions"].append(new)

    await _change(translation, caller, style_id, add)
    return new


@router.get("/{style_id}/custom_instructions/{instruction_id}", responses=whole(Instruction))
@audience(Audience.KEY)
async def show_instruction(
    style_id: Id, instruction_id: Id, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Show an instruction."""
    row = await translation.store.read(resources.find, caller.account_id, "style", style_id)
    return _find(row, instruction_id)


@router.put(
    "/{style_id}/custom_instructions/{instruction_id}",
    responses=whole(Instruction),
    openapi_extra=fields_body(),
)
@audience(Audience.KEY)
async def replace_instruction(
    style_id: Id, instruction_id: Id, fields: Fields, caller: TheCaller, translation: TheTranslation
) -> dict[str, Any]:
    """Replace an instruction."""
    new = {**_instruction(fields), "id": instruction_id}
    await _change(translation, caller, style_id, lambda row: _find(row, instruction_id).update(new))
    return new


@router.delete("/{style_id}/custom_instructions/{instruction_id}", status_code=204)
@audience(Audience.KEY)
async def delete_instruction(
    style_id: Id, instruction_id: Id, caller: TheCaller, translation: TheTranslation
) -> None:
    """Delete an instruction."""

    def remove(row: dict[str, Any]) -> None:
        row["custom_instructions"].remove(_find(row, instruction_id))

    await _change(translation, caller, style_id, remove)


async def _change(
    translation: Translation, caller: Caller, style_id: str, work: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    """The style rule after a change of its content."""

    def change(row: dict[str, Any]) -> None:
        work(row)
        row["version"] += 1

    row: dict[str, Any] = await translation.store.write(
        resources.change, caller.account_id, "style", style_id, change
    )
    return row


def _rules(rules: Any) -> Rules:
    """Rules by group and name. Raises RequestError."""
    if not isinstance(rules, Mapping):
        raise RequestError("invalid", "Missing or invalid argument: configured_rules")
    for group in rules.values():
        words = [*group, *group.values()] if isinstance(group, Mapping) else [None]
        if not all(isinstance(word, str) and len(word) <= MAX_WORDS for word in words):
            raise RequestError("invalid", "Missing or invalid argument: configured_rules")
    return {name: dict(group) for name, group in rules.items()}


def _instruction(fields: Any) -> dict[str, Any]:
    """A new instruction. Raises RequestError."""
    if not isinstance(fields, Mapping):
        raise RequestError("invalid", "Missing or invalid argument: custom_instructions")
    return {
        "id": str(uuid.uuid4()),
        "label": text_field(fields, "label", 100),
        "prompt": text_field(fields, "prompt", MAX_WORDS),
        "source_language": text_field(fields, "source_language", 20) if "source_language" in fields else None,
    }


def _find(row: dict[str, Any], instruction_id: str) -> dict[str, Any]:
    for each in row["custom_instructions"]:
        if each["id"] == instruction_id:
            instruction: dict[str, Any] = each
            return instruction
    raise RequestError("not_found", "the style rule has no such instruction")


def _fields(row: dict[str, Any], *, is_detailed: bool = True) -> dict[str, Any]:
    """A style rule as the API shows it."""
    fields = {
        "style_id": row["id"],
        "name": row["name"],
        "creation_time": time_text(row["created_ms"]),
        "updated_time": time_text(row["changed_ms"]),
        "language": row["language"],
        "version": row["version"],
    }
    details = {name: row[name] for name in ("configured_rules", "custom_instructions")}
    return {**fields, **details} if is_detailed else fields
