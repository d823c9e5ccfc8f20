"""Requests of DeepL's API: the fields of a translation, as JSON or as a form."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_TEXTS = 50
MAX_REQUEST = 128 << 10
"""Characters of all texts of a request."""


def _list(value: Any) -> Any:
    """A list; a form has one as text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Tags = Annotated[list[Annotated[str, Field(max_length=200)]], BeforeValidator(_list), Field(max_length=200)]
Formality = Annotated[
    Literal["default", "more", "less", "prefer_more", "prefer_less"], BeforeValidator(_lower)
]
ModelType = Literal["quality_optimized", "prefer_quality_optimized", "latency_optimized"]
Instruction = Annotated[str, Field(max_length=300)]
Code = Annotated[str, Field(max_length=20)]


class TranslationFields(BaseModel):
    """Fields that texts and documents share."""

    model_config = ConfigDict(extra="ignore")
    target_lang: Code
    source_lang: Code | None = None
    formality: Formality = "default"
    glossary_id: Annotated[str, Field(max_length=64)] | None = None
    style_id: Annotated[str, Field(max_length=64)] | None = None
    translation_memory_id: str | None = None
    """Not supported: a request with one is refused."""
    custom_instructions: Annotated[list[Instruction], BeforeValidator(_texts), Field(max_length=10)] = []
    context: Annotated[str, Field(max_length=4000)] = ""
    model: Annotated[str, Field(max_length=512)] | None = None
    """A model of this service that is to translate; not in DeepL's API."""


class TranslateBody(TranslationFields):
    """Body of POST /v2/translate."""

    text: Annotated[list[str], BeforeValidator(_texts), Field(min_length=1, max_length=MAX_TEXTS)]
    split_sentences: Literal["0", "1", "nonewlines"] | None = None
    preserve_formatting: bool = False
    tag_handling: Literal["xml", "html"] | None = None
    tag_handling_version: Literal["v1", "v2"] | None = None
    """Both are handled alike."""
    outline_detection: bool = True
    splitting_tags: Tags = []
    non_splitting_tags: Tags = []
    ignore_tags: Tags = []
    model_type: ModelType | None = None
    """All types are the one model that translates here."""
    show_billed_characters: bool = False


class RephraseBody(BaseModel):
    """Body of POST /v2/write/rephrase."""

    model_config = ConfigDict(extra="ignore")
    text: Annotated[list[str], BeforeValidator(_texts), Field(min_length=1, max_length=MAX_TEXTS)]
    target_lang: Code | None = None
    writing_style: Annotated[str, Field(max_length=40)] | None = None
    tone: Annotated[str, Field(max_length=40)] | None = None


class DocumentFields(TranslationFields):
    """Fields of POST /v2/document beside its file."""

    output_format: Annotated[str, Field(max_length=10)] | None = None
    filename: Annotated[str, Field(max_length=300)] | None = None
