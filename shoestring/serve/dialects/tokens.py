"""vLLM's tokenize and detokenize: the requests."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import BackendRequest, ChatRequest, TextRequest
from shoestring.serve.dialects.openai_chat_request import ChatMessage

MAX_TOKENS = 1 << 20


class TokenizeRequest(BaseModel):
    """Body of POST /tokenize: a prompt, or messages; or llama.cpp's, where a prompt is called content."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)]
    prompt: str | None = None
    add_special_tokens: bool | None = None
    """Begin the prompt with the begin token, as is the default."""
    content: str | None = None
    add_special: bool | None = None
    """Begin the content with the begin token, as is not the default."""
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
    texts = [text for text in (body.prompt, body.content) if text is not None]
    if len(texts) + (body.messages is not None) != 1:
        raise RequestError("invalid", "tokenize takes either prompt or messages", field="prompt")
    if body.messages is None:
        return TextRequest(prompt=texts[0], sampling=SamplingParams())
    return ChatRequest(
        messages=tuple(message.model_dump(exclude_unset=True) for message in body.messages),
        sampling=SamplingParams(),
        tools=tuple(body.tools or ()),
        template_variables=body.chat_template_kwargs or {},
    )


def drops_begin(body: TokenizeRequest) -> bool:
    """Return whether the begin token is left out."""
    return not body.add_special if body.content is not None else body.add_special_tokens is False
