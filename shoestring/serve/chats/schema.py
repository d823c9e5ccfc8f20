"""Forms of chats and messages, as the page sends them and as they are given back."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest
from shoestring.serve.dialects.schema import Schema

MAX_MESSAGES = 5000
"""Messages of a chat."""
MAX_FACT_CHARS = 1000
"""Characters of a fact of the memory."""
MAX_ATTACHMENTS = 20
"""Attachments of a message."""


def storable(text: Any) -> Any:
    """A text without what no database keeps: NUL, and halves of characters."""
    if not isinstance(text, str):
        return text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


Text = Annotated[str, BeforeValidator(storable)]
Id = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{8,40}$")]
"""An id that the client makes."""
Name = Annotated[Text, Field(max_length=200)]
TimeMs = Annotated[int, Field(ge=0, le=2**53)]
"""Milliseconds since 1970."""
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=2**53)]


class ChatSettings(Schema):
    """The settings of a chat's requests."""

    model: Name = ""
    models: Annotated[list[Name], Field(max_length=8)] | None = None
    """Models that answer side by side."""
    system: Annotated[Text, Field(max_length=100_000)] = ""
    thinking: Literal["auto", "on", "off"] = "auto"
    effort: Annotated[Text, Field(max_length=20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**53)] | None = None


class Figures(Schema):
    """Times, tokens and cost of an answer."""

    first_s: Seconds | None = None
    """Seconds to the first token."""
    thinking_s: Seconds | None = None
    total_s: Seconds | None = None
    prompt_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    cost: Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?$")] | None = None
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    joules: Annotated[float, Field(ge=0, le=1e12)] | None = None
    """Its share of the machine's energy, as serve/backends/energy.py has it."""


class Attachment(Schema):
    """A file whose text belongs to a message."""

    name: Name
    text: Text = ""


class Message(Schema):
    """A message of a chat."""

    id: Id
    parent: Id | None = None
    """The message before it; None for the first one of a branch."""
    role: Literal["user", "assistant"]
    content: Text = ""
    reasoning_content: Text = ""
    model: Name | None = None
    attachments: Annotated[list[Attachment], Field(default_factory=list, max_length=MAX_ATTACHMENTS)]
    created_ms: TimeMs = 0
    finish_reason: Annotated[Text, Field(max_length=20)] | None = None
    """As in OpenAI's API, or cancelled, or interrupted when the service ended."""
    error: Annotated[Text, Field(max_length=2000)] | None = None
    is_running: bool = False
    """The service writes it now. In a request: the client saw it so, and leaves a message that exists."""
    figures: Figures = Field(default_factory=Figures)


class ChatHead(Schema):
    """A chat without its messages."""

    id: Id
    title: Annotated[Text, Field(max_length=300)] = ""
    folder: Annotated[Text, Field(max_length=100)] | None = None
    is_pinned: bool = False
    created_ms: TimeMs = 0
    changed_ms: TimeMs = 0
    leaf: Id | None = None
    """The message at the end of the branch that is shown."""
    settings: ChatSettings = Field(default_factory=ChatSettings)


class ChatBody(ChatHead):
    """A chat to be kept, perhaps with messages: those that it has besides stay."""

    messages: Annotated[list[Message], Field(max_length=MAX_MESSAGES)] | None = None


class Chat(ChatHead):
    """A chat with its messages, the oldest first."""

    messages: list[Message]


class ChatList(Schema):
    """Chats, the one that was changed last first."""

    chats: list[ChatHead]


class Beginning(Schema):
    """The text that an answer goes on from."""

    content: Text = ""
    reasoning_content: Text = ""


class AnswerBody(Schema):
    """An answer that is to be written, with or without a reader."""

    id: Id
    """The message that it is."""
    chat: Id | None = None
    """The chat that has the message; None for an answer that is not kept."""
    beginning: Beginning = Field(default_factory=Beginning)
    """For a request with continue_final_message: the answer begins with it."""
    request: ChatCompletionRequest


class AnswerPlace(Schema):
    """An answer, and the chat that it is for."""

    id: Id
    chat: Id | None = None


class AnswerList(Schema):
    """Answers that are being written."""

    answers: list[AnswerPlace]


class ShareBody(Schema):
    """A branch of a chat that is to be shared."""

    leaf: Id
    """The message at its end."""


class ShareLink(Schema):
    """A new share: whoever has the path reads it, on the page of this service."""

    token: str
    path: str


class Share(Schema):
    """A share, as its owner sees it."""

    token: str
    chat: str
    title: str
    created_ms: TimeMs


class ShareList(Schema):
    """Shares, the newest first."""

    shares: list[Share]


class ShareContent(Schema):
    """A share, as its readers see it: messages without texts of attachments, errors and costs."""

    title: str
    created_ms: TimeMs
    messages: list[Message]


class Switch(Schema):
    """The memory, on or off."""

    is_on: bool


class FactBody(Schema):
    """A new fact."""

    text: Annotated[Text, Field(min_length=1, max_length=MAX_FACT_CHARS)]


class Fact(Schema):
    """A fact that models may be told."""

    id: str
    text: str
    created_ms: TimeMs


class Memory(Schema):
    """The memory of an account, the oldest fact first."""

    is_on: bool
    facts: list[Fact]


class AttachmentText(Schema):
    """The text of a file."""

    name: Name
    text: str
    num_pages: int | None
    """The pages of a PDF; None for text."""
    is_cut: bool
    """The file has more text than a message may have."""
