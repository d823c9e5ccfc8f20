"""Thinking of a reply: between `<think>` and `</think>`, in text and in token ids."""

import re
from collections.abc import Iterable, Sequence

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK, THINK_END, THINK_TAGS

MAX_TAG_TOKENS = 64
"""More tokens than a tag and the white space after it have."""
_OPEN_END = re.compile(rf"{THINK}\s*\Z")
_OPENING = re.compile(rf"{THINK}\s*(?:{THINK_END}\s*)?\Z")


def split_thinking(content: str) -> tuple[str | None, str]:
    """Split `<think>a</think>b` into ("a", "b"); content of another form is all answer: (None, content)."""
    if content.startswith(THINK) and THINK_END in content:
        reasoning, _, answer = content.removeprefix(THINK).partition(THINK_END)
        return reasoning, answer
    return None, content


def ends_in_thinking(token_ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Return whether a reply to this prompt begins inside its thinking: the last of both tags is `<think>`.

    Without tokens for the tags, the prompt's text must end in `<think>`.
    """
    if not has_tags(tokenizer):
        return _OPEN_END.search(tokenizer.decode(token_ids[-MAX_TAG_TOKENS:])) is not None
    begin, end = tokenizer.specials.get(THINK), tokenizer.specials.get(THINK_END)
    last = next((token_id for token_id in reversed(token_ids) if token_id in (begin, end)), None)
    return last is not None and last == begin


def has_tags(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer has tokens for the thinking tags; otherwise they are plain text."""
    return all(tag in tokenizer.specials for tag in THINK_TAGS)


def forced_opening(prompt: str, question: str) -> str:
    """`<think>` (or empty thinking) at the end of a prompt, which begins the reply; else the empty text.

    Only what stands after the question counts, so a question cannot contain the opening itself.
    """
    match = _OPENING.search(prompt)
    if match is None or match.start() < prompt.find(question) + len(question):
        return ""
    return match.group()


def thinking_tokens(opening: str, token_ids: Iterable[int], tokenizer: Tokenizer) -> int:
    """Number of tokens of a completion before its last `</think>`; all of them if thinking never ends.

    0 for a turn that does not begin with `<think>`. A tag counts however the tokens spell it, as it does for
    rewards; the closing tag itself is not counted.
    """
    pieces = [tokenizer.token_bytes(token_id) for token_id in token_ids]
    text = b"".join(pieces)
    if not (opening.encode() + text).lstrip().startswith(THINK.encode()):
        return 0
    end = text.rfind(THINK_END.encode())
    if end < 0:
        return len(pieces) if THINK_END not in opening else 0
    count = position = 0
    for piece in pieces:
        if position >= end:
            break
        position += len(piece)
        count += 1
    return count
