"""Rewards for the form of a reply, for any task: the thinking format, and one language in the thinking."""

import re

from shoestring.errors import ConfigError
from shoestring.tasks.answers import ANSWER, ANSWER_END, THINK, THINK_END, split_reply

LATIN = r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
HAN = r"㐀-䶿一-鿿豈-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"(?P<latin>[{LATIN}]+)|(?P<han>[{HAN}])|(?:(?![{LATIN}{HAN}])[^\W\d_])+")
SCRIPTS = {"en": "latin", "zh": "han"}
"""The script of each language, by which its words are counted."""


def format_reward(text: str) -> float:
    """1.0 when the reply starts with its only think block and an answer without tags follows, else 0.0.

    The answer may be in one `<answer>...</answer>` (DeepSeek-R1, section 2.2.2); it is not empty.
    """
    reply = text.strip()
    if not reply.startswith(THINK):
        return 0.0
    thinking, _, answer = reply.removeprefix(THINK).partition(THINK_END)
    answer = answer.strip()
    if answer.startswith(ANSWER) and answer.endswith(ANSWER_END):
        answer = answer[len(ANSWER) : -len(ANSWER_END)].strip()
    tags = (THINK, THINK_END, ANSWER, ANSWER_END)
    return float(bool(answer) and not any(tag in part for tag in tags for part in (thinking, answer)))


def language_reward(text: str, language: str) -> float:
    """Share of the words in the thinking that are in the target language (DeepSeek-R1, section 2.3.2).

    A word is a run of Latin letters, one Chinese character, or a run of any other script's letters, which
    belongs to neither language. 1.0 without words or thinking. Raises ConfigError for an unknown language.
    """
    if language not in SCRIPTS:
        raise ConfigError(f"no language {language!r}; there are {', '.join(SCRIPTS)}")
    kinds = [match.lastgroup for match in WORD.finditer(split_reply(text).thinking or "")]
    return kinds.count(SCRIPTS[language]) / len(kinds) if kinds else 1.0
