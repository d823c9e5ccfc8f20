"""ConversationConfig: the conversations that a model is trained on, and which of them is learned."""

from dataclasses import dataclass, field

from shoestring.data.chat.encoding import BadRows, Encoding
from shoestring.data.chat.mixture import DataSource, sources
from shoestring.data.conversation_files import load_conversations
from shoestring.data.conversations import Conversations
from shoestring.data.forms.fields import check_columns
from shoestring.data.forms.rendering import Learn, Thinking
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.overlong import Overlong

CHOICES = {
    "learn": ("assistant", "last", "all"),
    "thinking": ("template", "inline"),
    "overlong": ("filter", "truncate", "error"),
    "bad_rows": ("error", "filter"),
}


DEFAULT_SEQ_LEN = 4096


@dataclass(frozen=True, kw_only=True)
class ConversationConfig:
    """Conversations of any form (data/forms), from files, folders and data sets of the hub."""

    data: tuple[str | DataSource, ...]
    """Files, folders, or org/name, in any form of conversations; or tables with path, weight and columns."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column for each of our names, where a source has none of its own: columns.prompt = "question"."""
    learn: Learn = "assistant"
    """The assistant's turns with their end tokens, its last turn, or every token but the first."""
    thinking: Thinking = "template"
    """reasoning_content is where the template writes it; inline: in the content, between think tags."""
    seq_len: int = 0
    """The longest conversation, in tokens. 0: 4096, or the model's context where that is shorter."""
    overlong: Overlong = "filter"
    """Longer ones are left out and counted, cut at their end (truncate), or an error."""
    bad_rows: BadRows = "error"
    """A row without a conversation is an error, or is left out and counted (filter)."""
    tokenizer: str = ""
    """A folder with tokenizer.json; empty: that of `model`, which a preset does not have."""
    template: str = ""
    """A chat template's folder or file; empty: that of `model`, or DeepSeek's where it has none."""
    heldout: tuple[str | DataSource, ...] = ()
    """Conversations that are scored and not learned from, as `data`."""
    heldout_fraction: float = 0.0
    """Share of `data` that is scored and not learned from."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data is empty; name one file of conversations or more")
        check_columns(self.columns)
        if self.seq_len < 0:
            raise ConfigError(f"seq_len = {self.seq_len} must be at least 0")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(choices)}")
        if not 0.0 <= self.heldout_fraction < 1.0:
            raise ConfigError(f"heldout_fraction = {self.heldout_fraction} is not at least 0 and under 1")
        if self.heldout and self.heldout_fraction:
            raise ConfigError("heldout names its own files; leave out heldout_fraction")

    def load(
        self, tokenizer: Tokenizer, template: Template, data: tuple[str | DataSource, ...] = ()
    ) -> Conversations:
        """The conversations of `data` (empty: the recipe's); raises DataError as `load_conversations`."""
        return load_conversations(
            sources(data or self.data, self.columns),
            tokenizer,
            template,
            seq_len=self.seq_len or DEFAULT_SEQ_LEN,
            learn=self.learn,
            thinking=self.thinking,
            overlong=self.overlong,
            bad_rows=self.bad_rows,
        )

    def encoding(self, tokenizer: Tokenizer, template: Template) -> Encoding:
        """The settings of one file's encoding."""
        return Encoding(
            tokenizer=tokenizer,
            template=template,
            seq_len=self.seq_len,
            learn=self.learn,
            thinking=self.thinking,
            overlong=self.overlong,
            bad_rows=self.bad_rows,
        )
