"""The tokenizer with the methods and defaults of transformers, as scripts for vLLM use it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.functions import tool_definitions
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.prompts import ChatOptions, RenderedPrompt, is_conversation, read_chat


class ScriptTokenizer(Tokenizer):
    """A Tokenizer whose `encode` and `decode` take transformers' arguments, with its other common methods.

    As in transformers, `encode` adds the begin token by default and reads special tokens in the text. A text
    from `apply_chat_template(tokenize=False)` carries its token ids, so `generate` takes it for what it is.
    """

    def __init__(self, tokenizer: Tokenizer, template: Callable[[str | None], Template]) -> None:
        """`template` returns the chat template, or that of a given text; TokenizerError without one."""
        self.__dict__.update(vars(tokenizer))  # the same compiled tokenizer
        self._template = template

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(self, text: str | Sequence[str], add_special_tokens: bool = True) -> dict[str, Any]:
        """Ids of one text or of each of several, and masks of the same shape."""
        if isinstance(text, str):
            ids = self.encode(text, add_special_tokens)
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        rows = [self.encode(one, add_special_tokens) for one in text]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}

    def encode(
        self, text: str, add_special_tokens: bool = True, *, allow_special: bool | None = None
    ) -> list[int]:
        """Ids of `text`. With `allow_special` it is the method of Tokenizer, which adds no token."""
        _check_text(text)
        if allow_special is not None:
            return super().encode(text, allow_special=allow_special)
        begin = self.begin_ids if add_special_tokens else ()
        return [*begin, *super().encode(text, allow_special=True)]

    def decode(
        self,
        ids: int | Iterable[int],
        skip_special_tokens: bool = False,
        *,
        skip_special: bool | None = None,
        **_: Any,
    ) -> str:
        """Text of one id or of several; `skip_special` is the argument's name in Tokenizer."""
        ids = [ids] if isinstance(ids, int) else [int(token_id) for token_id in ids]
        return super().decode(ids, skip_special=skip_special_tokens if skip_special is None else skip_special)

    def batch_decode(
        self, sequences: Iterable[int | Iterable[int]], skip_special_tokens: bool = False, **_: Any
    ) -> list[str]:
        """The text of each of several lists of ids."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = False,
        **template_kwargs: Any,
    ) -> Any:
        """A conversation, or each of several, as ids, as a dictionary with ids, or as text (tokenize=False).

        Other arguments are variables of the template, such as enable_thinking.
        """
        source = template_kwargs.pop("chat_template", None)
        unsupported = ("padding", "truncation", "max_length", "return_tensors")
        kwargs = {name: value for name, value in template_kwargs.items() if name not in unsupported}
        wrong = [name for name in unsupported if template_kwargs.get(name)]
        if wrong:
            raise ConfigError(f"apply_chat_template: {wrong[0]} is not possible here; leave it out")
        options = ChatOptions(
            tools=tool_definitions(tools),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            chat_template_kwargs=kwargs,
        )
        is_one = is_conversation(conversation) or not conversation
        template = self._template(source)
        conversations = [conversation] if is_one else conversation
        prompts = [read_chat(one, self, template, options) for one in conversations]
        if not tokenize:
            texts = [RenderedPrompt(prompt.text or "", prompt.token_ids) for prompt in prompts]
            return texts[0] if is_one else texts
        rows = [list(prompt.token_ids) for prompt in prompts]
        if return_dict:
            masks = [[1] * len(row) for row in rows]
            return {"input_ids": rows[0] if is_one else rows, "attention_mask": masks[0] if is_one else masks}
        return rows[0] if is_one else rows

    def get_vocab(self) -> dict[str, int]:
        """The id of each token's spelling in tokenizer.json."""
        return dict(self._full.get_vocab(with_added_tokens=True))

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token's spelling, or of each; None for a spelling that is not in the vocabulary."""
        if isinstance(tokens, str):
            return self._full.token_to_id(tokens)
        return [self._full.token_to_id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The spelling of an id, or of each."""
        if isinstance(ids, int):
            return self._full.id_to_token(ids)
        return [self._full.id_to_token(token_id) for token_id in ids]

    def tokenize(self, text: str) -> list[str]:
        """The spellings of a text's tokens."""
        _check_text(text)
        return [self._full.id_to_token(token_id) for token_id in self.encode(text, add_special_tokens=False)]

    @property
    def bos_token(self) -> str | None:
        return self.roles.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.roles.get("eos_token")

    @property
    def pad_token(self) -> str | None:
        return self.roles.get("pad_token")

    @property
    def bos_token_id(self) -> int | None:
        return self.bos_id if "bos_token" in self.roles else None

    @property
    def eos_token_id(self) -> int | None:
        return self.eos_id if "eos_token" in self.roles else None

    @property
    def pad_token_id(self) -> int | None:
        return self.pad_id if "pad_token" in self.roles else None

    @property
    def all_special_tokens(self) -> list[str]:
        return list(self.specials)

    @property
    def all_special_ids(self) -> list[int]:
        return list(self.specials.values())


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"encode takes text, not a {type(text).__name__}")
