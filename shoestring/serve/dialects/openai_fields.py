"""Fields that OpenAI's chat completions, completions and DeepSeek's dialect share, and their translation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from shoestring.errors import ConfigError
from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.numbers import AnyInt, Count, TopP, Whole

MAX_STOPS = 16
MAX_CHOICES = 16
"""The most choices of one request; each takes the room of a request of its own."""
MAX_USER_ID_BYTES = 512
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
"""Names of the effort in the APIs of OpenAI, Anthropic and DeepSeek."""
DEEPSEEK_EFFORTS = {"minimal": "low", "medium": "high", "xhigh": "high", "ultra": "max"}
"""Names with DeepSeek's word for them; low, high and max are its own."""


def _check_user_id(name: str) -> str:
    if len(name.encode(errors="replace")) > MAX_USER_ID_BYTES:
        raise PydanticCustomError("string_too_long", f"must be at most {MAX_USER_ID_BYTES} bytes long")
    return name


UserId = Annotated[str, Field(max_length=MAX_USER_ID_BYTES), AfterValidator(_check_user_id)]


class StreamOptions(BaseModel):
    """Options of a streamed reply."""

    model_config = ConfigDict(extra="allow", strict=True)
    include_usage: bool | None = None
    """End with a chunk that has the usage and no choice."""


class SamplingFields(BaseModel):
    """Sampling, and how the reply is sent. Fields that are not known are ignored."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[str, Field(max_length=512)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: TopP | None = None
    n: Whole[Annotated[int, Field(ge=1, le=MAX_CHOICES)]] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    seed: Whole[Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]] | None = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    top_k: AnyInt | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: AnyInt | None = None
    ignore_eos: bool | None = None
    structured_outputs: dict[str, Any] | None = None
    """vLLM's: one of json, json_object, regex, choice, grammar."""
    user_id: UserId | None = None
    """DeepSeek's: requests of one user share no cached prefix with those of another."""


class Thinking(BaseModel):
    """The switch of thinking; adaptive is the model's default."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: Literal["enabled", "disabled", "adaptive"]
    display: str | None = None
    """Anthropic's: omitted leaves the text of the thinking out of the reply."""

    @property
    def is_on(self) -> bool | None:
        return None if self.type == "adaptive" else self.type == "enabled"


Defaults = Mapping[str, Any]
"""The sampling that a model has for requests which leave it out, by the names of SamplingParams."""


def sampling_params(
    fields: SamplingFields,
    defaults: Defaults,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    form: StructuredOutputsParams | None,
) -> SamplingParams:
    """The sampling of a request. Raises RequestError naming the field that is wrong."""
    names = (
        *("temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty"),
        *("logit_bias", "top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos"),
    )
    values = {name: getattr(fields, name) for name in names if getattr(fields, name) is not None}
    if fields.structured_outputs is not None:
        form = _structured_outputs(fields.structured_outputs, form)
    try:
        return SamplingParams(
            **{**defaults, **values}, max_tokens=max_tokens, logprobs=logprobs, structured_outputs=form
        )
    except ConfigError as error:
        raise RequestError("invalid", str(error), field=str(error).split()[0]) from None


def schema_form(holder: Any, field: str) -> StructuredOutputsParams:
    """The form of a JSON schema, in `holder["schema"]`. Raises RequestError naming `field`."""
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if not isinstance(schema, Mapping):
        raise RequestError("invalid", f"{field} has no schema", field=field)
    return StructuredOutputsParams(json=schema)


def effort_variable(effort: str | None) -> dict[str, str]:
    """The effort of thinking for templates that know one, by DeepSeek's three names."""
    if effort is None or effort == "none":
        return {}
    return {"reasoning_effort": DEEPSEEK_EFFORTS.get(effort, effort)}


def refuse_fields(fields: BaseModel, neutral_values: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise RequestError for a field that would change the reply and cannot be honored.

    `neutral_values` has the values of each that change nothing; so do None and False.
    """
    for name, value in (fields.model_extra or {}).items():
        if name in neutral_values and value not in (None, False, *neutral_values[name]):
            raise RequestError("invalid", f"{name} is not supported; leave it out", field=name)


def ignored_fields(fields: BaseModel, names: tuple[str, ...] = ()) -> list[str]:
    """Names of the fields that nobody knows, for a header of the reply."""
    return sorted(name for name in fields.model_extra or {} if name not in names)


def chosen_function(value: Mapping[str, Any]) -> str:
    """The name in `{"type": "function", "function": {"name": ...}}`, or in Responses' flat form of it."""
    inner = value.get("function", value)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str):
        raise RequestError("invalid", "tool_choice has no function with a name", field="tool_choice")
    return name


def _structured_outputs(
    value: Mapping[str, Any], form: StructuredOutputsParams | None
) -> StructuredOutputsParams:
    kinds = ("json", "json_object", "regex", "choice", "grammar")
    if form is not None or any(name not in kinds for name in value):
        message = f"structured_outputs takes one of {', '.join(kinds)}, without response_format"
        raise RequestError("invalid", message, field="structured_outputs")
    try:
        return StructuredOutputsParams(**value)
    except ConfigError as error:
        raise RequestError("invalid", str(error), field="structured_outputs") from None
