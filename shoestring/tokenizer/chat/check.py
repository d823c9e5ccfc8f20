"""Checks of a chat template for training: end token in the loss, prefixes preserved, user text safe."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shoestring.errors import TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message
from shoestring.tokenizer.chat.template import (
    ChatIds,
    Template,
    encode_chat,
    encode_pieces,
    encode_prompt,
    pieces_text,
    prefix_break,
)
from shoestring.tokenizer.special import THINK, THINK_END

TWO_TURNS = (
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And 3 + 3?"},
    {"role": "assistant", "content": "Six."},
)
THINKING_TURNS = tuple(
    {**message, "content": f"{THINK}\nI add them.\n{THINK_END}\n\n{message['content']}"}
    if message["role"] == "assistant"
    else message
    for message in TWO_TURNS
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check: whether it passed, and one sentence about it."""

    name: str
    ok: bool
    text: str


def check_template(tokenizer: Tokenizer, template: Template) -> list[Finding]:
    """Run all checks; a template is safe for training when every finding is `ok`."""
    checks: dict[str, Callable[[Tokenizer, Template], str]] = {
        "renders": _renders,
        "one begin token": _one_begin_token,
        "prefix-preserving": lambda k, t: _preserves_prefixes(t, TWO_TURNS),
        "prefix-preserving with thinking": lambda k, t: _preserves_prefixes(t, THINKING_TURNS),
        "assistant turns in the loss": _turns_in_loss,
        "end token in the loss": _end_in_loss,
        "user text stays text": _user_text_stays,
    }
    return [_finding(name, check, tokenizer, template) for name, check in checks.items()]


class _CheckFailed(Exception):
    """Failure of a check; its text is the sentence of the finding."""


def _finding(
    name: str, check: Callable[[Tokenizer, Template], str], tokenizer: Tokenizer, template: Template
) -> Finding:
    try:
        return Finding(name=name, ok=True, text=check(tokenizer, template))
    except (_CheckFailed, TokenizerError) as failure:
        return Finding(name=name, ok=False, text=str(failure))


def _renders(tokenizer: Tokenizer, template: Template) -> str:
    count = len(encode_prompt(TWO_TURNS[:1], tokenizer, template))
    if count == 0:
        raise _CheckFailed("the prompt of one user message has no tokens")
    return f"the prompt of one short user message has {count} tokens"


def _one_begin_token(tokenizer: Tokenizer, template: Template) -> str:
    if "bos_token" not in tokenizer.roles:
        return "the tokenizer has no begin token"
    begin = tokenizer.bos_id
    once, twice = (_ids(turns, tokenizer, template) for turns in (TWO_TURNS[:2], TWO_TURNS))
    count, more = twice.count(begin), twice.count(begin) - once.count(begin)
    is_doubled = any(pair == (begin, begin) for pair in pairwise(twice))
    if count > 1 and (is_doubled or more not in (1, 2)):
        raise _CheckFailed(
            f"the begin token {tokenizer.roles['bos_token']!r} occurs {count} times in one conversation"
        )
    if count > 1:
        return f"the begin token opens every {'turn' if more == 2 else 'exchange'}"
    return "the begin token occurs once" if count else "the template writes no begin token"


def _ids(messages: Sequence[Message], tokenizer: Tokenizer, template: Template) -> list[int]:
    return encode_pieces(template.render(messages, with_loss=False), tokenizer).ids


def _preserves_prefixes(template: Template, messages: Sequence[Message]) -> str:
    """Check that each prompt begins its complete turn, and each turn the longer conversation."""
    full = pieces_text(template.render(messages, with_loss=False))
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = pieces_text(template.render(messages[:number], add_generation_prompt=True, with_loss=False))
        turn = pieces_text(template.render(messages[: number + 1], with_loss=False))
        _require_prefix(prompt, turn, f"the prompt before message {number}", "the complete turn")
        _require_prefix(turn, full, f"the conversation up to message {number}", "the longer conversation")
    return "every prompt is the beginning of its complete turn, and every turn of the longer conversation"


def _require_prefix(earlier: str, later: str, earlier_name: str, later_name: str) -> None:
    difference = prefix_break(earlier, later)
    if difference is None:
        return
    raise _CheckFailed(
        f"{earlier_name} is not the beginning of {later_name}: {difference}; "
        "prompts would differ from the training data"
    )


def _turns_in_loss(tokenizer: Tokenizer, template: Template) -> str:
    chat = encode_chat(TWO_TURNS, tokenizer, template)
    loss_texts = [tokenizer.decode(ids) for ids in _spans(chat)]
    for answer in ("Four.", "Six."):
        if not any(answer in text for text in loss_texts):
            raise _CheckFailed(f"the assistant's {answer!r} is not in the loss; the loss has {loss_texts}")
    for question in ("What is", "And 3"):
        if any(question in text for text in loss_texts):
            raise _CheckFailed(
                f"the user's {question!r} is in the loss, so the model would learn to write the user's text"
            )
    return f"the loss has {len(loss_texts)} of 2 assistant turns and no text of the user"


def _end_in_loss(tokenizer: Tokenizer, template: Template) -> str:
    end = tokenizer.eos_id
    spans = list(_spans(encode_chat(TWO_TURNS, tokenizer, template)))
    if not spans:
        raise _CheckFailed("no token is in the loss")
    for number, ids in enumerate(spans):
        if end not in ids:
            raise _CheckFailed(
                f"turn {number} ends in {tokenizer.decode(ids[-1:])!r} without an end token in its loss "
                f"({tokenizer.roles['eos_token']!r}): the model would never learn to stop"
            )
    return f"every assistant turn ends in {tokenizer.roles['eos_token']!r}, which is in the loss"


def _user_text_stays(tokenizer: Tokenizer, template: Template) -> str:
    """Check that special tokens in a user's text do not become special ids."""
    control = set(tokenizer.specials.values())
    # Full stops between them, so that a template that trims or splits finds ordinary text around each.
    hostile = " . ".join(["Hello", *tokenizer.specials, "bye"])
    special_ids = []
    for text in ("Hello", hostile):
        ids = encode_prompt(({"role": "user", "content": text},), tokenizer, template)
        special_ids.append([i for i in ids if i in control])
    without, with_specials = special_ids
    if without != with_specials:
        extra = next((i for i in with_specials if with_specials.count(i) > without.count(i)), None)
        name = tokenizer.decode([extra]) if extra is not None else "fewer than without"
        raise _CheckFailed(f"text of a user became special tokens: {name!r}")
    return f"none of {len(control)} special tokens in a user's text became one"


def _spans(chat: ChatIds) -> Iterator[list[int]]:
    """Runs of ids in the loss."""
    run: list[int] = []
    for token_id, in_loss in zip(chat.ids, chat.loss_mask, strict=True):
        if in_loss:
            run.append(token_id)
        elif run:
            yield run
            run = []
    if run:
        yield run
