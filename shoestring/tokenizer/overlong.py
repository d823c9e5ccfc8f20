"""Prompts that do not fit into the context: left out and counted, shortened, or refused."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message
from shoestring.tokenizer.questions import Question, QuestionPrompt, last_text, with_last_text

log = logging.getLogger(__name__)

Overlong = Literal["filter", "truncate", "error"]
"""The fate of a prompt without room for an answer: left out, shortened to the end of its question, or
the command ends with an error."""
FATES = {
    "filter": ("left out", "truncate keeps their ends"),
    "truncate": ("shortened to their ends", "filter leaves them out"),
}
"""Words for the fate of prompts that do not fit, and another policy."""
OVERLONG = "the prompt does not fit into the context"
"""The reason why a teacher does not answer a problem."""
WARN_SHARE = 0.1
"""Share of prompts that do not fit, above which a warning says so."""
WARN_FROM = 10
"""Prompts from which on the share says something."""


@dataclass(kw_only=True)
class PromptMaker:
    """Makes the prompts of questions, none longer than the context, and counts those that do not fit."""

    make: Callable[..., QuestionPrompt]
    """`prompt_ids` of one tokenizer, template and style, or the like of it."""
    tokenizer: Tokenizer
    context: int
    """Tokens of a prompt and its answer at most."""
    max_tokens: int
    """The longest answer; a shortened prompt leaves room for it, or at least for half of the context."""
    overlong: Overlong = "filter"
    setting: str = "overlong"
    """The name of that policy in the recipe, for messages."""
    num_prompts: int = 0
    num_overlong: int = 0
    """Of these, those that did not fit."""
    _has_warned: bool = field(default=False, init=False, repr=False)

    def prompt(
        self, question: Question, name: str, *, tools: Sequence[Message] = ()
    ) -> QuestionPrompt | None:
        """The prompt for a question, or None for one to leave out; `name` tells people which it is.

        `tools` are definitions of what the model may call.
        Raises ConfigError for one that does not fit where the policy is "error", and as `prompt_ids` does.
        """
        make = partial(self.make, tools=tools) if tools else self.make
        prompt = make(question)
        self.num_prompts += 1
        if len(prompt.ids) < self.context:
            return prompt
        self.num_overlong += 1
        if self.overlong == "error":
            raise ConfigError(
                f"the prompt of {name} has {len(prompt.ids):,} tokens, and the context of {self.context:,} "
                f"must hold it and an answer; --set {self.setting}=filter leaves such problems out, "
                f"--set {self.setting}=truncate keeps the end of each question"
            )
        return self._shortened(question, prompt, make) if self.overlong == "truncate" else None

    @property
    def overlong_share(self) -> float:
        """Share of the prompts so far that did not fit."""
        return self.num_overlong / max(self.num_prompts, 1)

    def warn(self) -> None:
        """Warn, once, when more than a tenth of the prompts did not fit."""
        if self._has_warned or self.num_overlong <= WARN_SHARE * max(self.num_prompts, WARN_FROM):
            return
        self._has_warned = True
        fate, another = FATES[self.overlong]
        log.warning(
            "%s of %s prompts (%.0f%%) do not fit into the context of %s tokens and are %s; "
            "--set %s=%s, or take a model with a longer context",
            f"{self.num_overlong:,}",
            f"{self.num_prompts:,}",
            100 * self.overlong_share,
            f"{self.context:,}",
            fate,
            self.setting,
            another,
        )

    def _shortened(
        self, question: Question, prompt: QuestionPrompt, make: Callable[..., QuestionPrompt]
    ) -> QuestionPrompt | None:
        """The prompt with as much of the question's end as leaves room for an answer.

        None where all around the question is too long already.
        """
        room = self.context - min(self.max_tokens, self.context // 2)
        ids = self.tokenizer.encode(last_text(question), allow_special=False)
        while ids and (excess := len(prompt.ids) - room) > 0:
            ids = ids[excess:]
            # A character whose bytes are in several tokens may have lost its first ones.
            text = self.tokenizer.decode(ids).lstrip("\N{REPLACEMENT CHARACTER}")
            prompt = make(with_last_text(question, text))
        return prompt if ids and len(prompt.ids) < self.context else None
