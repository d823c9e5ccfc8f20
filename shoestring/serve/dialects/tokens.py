"""vLLM's tokenize and detokenize: the requests."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import BackendRequest, ChatRequest, TextRequest
from shoestring.serve.dialects.openai_chat_request import ChatMessage

MAX_TOKENS = 1 << 20


class TokenizeRequest(BaseModel):
    """Body of POST /tokenize: a prompt, or messages. `content` is llama.cpp's name for a prompt."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)]
    prompt: Annotated[str | None, Field(validation_alias=AliasChoices("prompt", "content"))] = None
    messages: list[ChatMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeRequest(BaseModel):
    """Body of POST /detokenize."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)]
    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 32)]], Field(max_length=MAX_TOKENS)]


def token_request(body: TokenizeRequest) -> BackendRequest:
    """The backend's request whose prompt is counted. Raises RequestError unless it has one form."""
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("invalid", "tokenize takes either prompt or messages", field="prompt")
    if body.messages is None:
        return TextRequest(prompt=body.prompt or "", sampling=SamplingParams())
    return ChatRequest(
        messages=tuple(message.model_dump(exclude_unset=True) for message in body.messages),
        sampling=SamplingParams(),
        tools=tuple(body.tools or ()),
        template_variables=body.chat_template_kwargs or {},
    )
