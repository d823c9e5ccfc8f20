"""Preferences from a row: a prompt with a chosen and a rejected reply, or with one reply and its label.

| columns | form |
|---|---|
| prompt, chosen, rejected: text or messages | TRL's with an explicit prompt |
| chosen, rejected: whole conversations | TRL's with an implicit prompt, the messages that both begin with |
| chosen, rejected: whole texts | the same in text; `Human:` and `Assistant:` in them become messages |
| instruction, input, chosen, rejected | LLaMA-Factory's Alpaca |
| conversations or messages, chosen, rejected: a message each | LLaMA-Factory's ShareGPT, axolotl's |
| prompt, completion, label | unpaired, as KTO takes it |
| messages, or instruction, input, output; with label or kto_tag | LLaMA-Factory's unpaired |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoestring.data.forms.conversation import alpaca_prompt, prompt_messages, read_tools, reply_messages
from shoestring.data.forms.fields import Fields
from shoestring.data.forms.marks import without_marks
from shoestring.data.forms.messages import Message, assistant, to_messages, user

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prompt, the reply that was preferred and the one that was not, in OpenAI's messages."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[Any] | None
    unread: tuple[str, ...]
    """Columns that were not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A prompt and one reply, which is desirable or not, in OpenAI's messages."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    tools: list[Any] | None
    unread: tuple[str, ...]


def preference_pair(values: Mapping[str, Any], columns: Mapping[str, str]) -> Pair:
    """The pair of a row. Raises ValueError with the reason where it holds none or both replies are equal."""
    fields = Fields(values, columns)
    if not ("chosen" in fields and "rejected" in fields):
        names = ", ".join(str(name)[:40] for name in list(values)[:8]) or "none"
        raise ValueError(
            f"it has no chosen and rejected, but {names}; name its columns with --set columns.chosen=COLUMN "
            "and --set columns.rejected=COLUMN"
        )
    texts = [fields.get(name) for name in ("chosen", "rejected")]
    is_whole_text = all(isinstance(text, str) for text in texts) and not _has_prompt(fields)
    if is_whole_text and all(_SPEAKER.match(text) for text in texts):
        chosen, rejected = (_dialogue(text) for text in texts)
    elif is_whole_text:
        chosen, rejected = _split_texts(*texts)
    else:
        chosen, rejected = reply_messages(fields, "chosen"), reply_messages(fields, "rejected")
    chosen, rejected = ([without_marks(message) for message in reply] for reply in (chosen, rejected))
    prompt = _prompt(fields)
    has_whole = len(chosen) > 1 and len(rejected) > 1 and chosen[0] == rejected[0]
    if has_whole and (not prompt or isinstance(fields.get("prompt"), str)):
        prompt = _system(fields)  # the conversations hold the prompt, which the text only repeats
        count = _shared_count(chosen, rejected)
        prompt, chosen, rejected = [*prompt, *chosen[:count]], chosen[count:], rejected[count:]
    elif prompt and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if not prompt:
        raise ValueError("it has no prompt, and chosen and rejected do not begin alike")
    if chosen == rejected:
        raise ValueError("its chosen and rejected replies are the same")
    for name, reply in (("chosen", chosen), ("rejected", rejected)):
        if not reply or reply[-1]["role"] != "assistant":
            raise ValueError(f"its {name} reply does not end with a message of the assistant")
    return Pair(
        prompt=prompt, chosen=chosen, rejected=rejected, tools=read_tools(fields), unread=(*fields.unread(),)
    )


def labelled_completion(values: Mapping[str, Any], columns: Mapping[str, str]) -> Labelled:
    """The reply of a row with its label (true or false, 1 or 0). Raises ValueError with the reason."""
    fields = Fields(values, columns)
    label = fields.get("label")
    spellings = {"true": True, "false": False, "1": True, "0": False}
    if label is not None and str(label).lower() not in spellings:
        raise ValueError(f"its label {label!r} is neither true nor false")
    prompt, completion = _prompt(fields), _completion(fields)
    if "messages" in fields and prompt[-1:] and prompt[-1]["role"] == "assistant":
        prompt, completion = prompt[:-1], prompt[-1:]
    if label is None or not prompt or not completion:
        names = ", ".join(str(name)[:40] for name in list(values)[:8]) or "none"
        raise ValueError(f"it has no prompt, completion and label, but {names}")
    return Labelled(
        prompt=prompt,
        completion=[without_marks(message) for message in completion],
        label=spellings[str(label).lower()],
        tools=read_tools(fields),
        unread=(*fields.unread(),),
    )


def _completion(fields: Fields) -> list[Message]:
    """The reply of an unpaired row; empty where there is none."""
    if "instruction" in fields and "output" in fields:
        return [assistant(fields.text("output"))]
    return reply_messages(fields, "completion") if "completion" in fields else []


def _has_prompt(fields: Fields) -> bool:
    return any(name in fields for name in ("prompt", "messages", "instruction"))


def _prompt(fields: Fields) -> list[Message]:
    """The explicit prompt of a row, with its system message; empty where there is none."""
    if "messages" in fields:
        messages = to_messages(fields.items("messages") or [], fields.columns)
        return [*_system(fields), *map(without_marks, messages)]
    if "prompt" in fields:
        return [*_system(fields), *map(without_marks, prompt_messages(fields))]
    if "instruction" in fields:
        return [*_system(fields), *alpaca_prompt(fields)]
    return []


def _system(fields: Fields) -> list[Message]:
    text = fields.text("system")
    return [{"role": "system", "content": text}] if text else []


def _shared_count(chosen: list[Message], rejected: list[Message]) -> int:
    """Number of messages with which both begin; of equal conversations all but the last."""
    pairs = zip(chosen, rejected, strict=False)
    return next(
        (number for number, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)) - 1
    )


def _split_texts(chosen: str, rejected: str) -> tuple[list[Message], list[Message]]:
    """Two texts as conversations of one question: what both begin with, up to a word, is the question."""
    pairs = zip(chosen, rejected, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    while place and not chosen[place - 1].isspace():
        place -= 1
    question = chosen[:place].rstrip()
    if not question:
        return [], []
    replies = (assistant(text[len(question) :].lstrip()) for text in (chosen, rejected))
    first, second = replies
    return [user(question), first], [user(question), second]


def _dialogue(text: str) -> list[Message]:
    """Messages of `\\n\\nHuman: ...\\n\\nAssistant: ...`, as in Anthropic's HH-RLHF."""
    _, *parts = _SPEAKER.split(text)
    speakers = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": speakers[speaker], "content": words.strip()}
        for speaker, words in zip(parts[::2], parts[1::2], strict=True)
    ]
