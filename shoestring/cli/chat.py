"""The conversation of `shoestring run` in a terminal: input lines, commands, Ctrl-C, and its history."""

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.cli.terminal import Reply, Screen, View
from shoestring.errors import ConfigError, ShoestringError

if TYPE_CHECKING:
    from shoestring.engine.llm import LLM
    from shoestring.engine.request import SamplingParams

PROMPT = "> "


class Chat:
    """A conversation with one model; with `complete`, for models without a template, it continues texts."""

    def __init__(
        self,
        llm: "LLM",
        params: "SamplingParams",
        screen: Screen,
        *,
        complete: bool = False,
        thinking: bool | None = None,
        has_history: bool = True,
    ) -> None:
        """Without `has_history` each message starts a new conversation, for models that know single ones."""
        self.llm, self.params, self.screen = llm, params, screen
        self.complete, self.thinking, self.has_history = complete, thinking, has_history
        self.messages: list[dict[str, str]] = []
        self.last_thinking = ""
        self.commands: dict[str, tuple[str, Callable[[str], Any]]] = {
            "/help": ("this list", self._help),
            "/think": ("show the thinking before the last answer", self._think),
            "/clear": ("forget the conversation", self._clear),
            "/system": ("TEXT: how the model should behave; alone, show it", self._system),
            "/set": ("NAME=VALUE: temperature, top_p, seed, max_tokens, thinking ...", self._set),
            "/save": ("FILE: write the conversation as JSON", self._save),
            "/exit": ("leave; /quit and Ctrl-D too, and Ctrl-C at an empty line", self._help),
        }

    def loop(self) -> None:
        """Answer lines until /exit, the end of input, or Ctrl-C at an empty line; errors are shown."""
        noun = "a text to continue" if self.complete else "a message"
        self.screen.note(f"type {noun}; /help lists commands, Ctrl-C stops an answer")
        while True:
            line = read_line()
            if line is None or line.split()[:1] in (["/exit"], ["/quit"]):
                return
            try:
                self._process(line)
            except (ShoestringError, OSError) as error:
                self.screen.note(str(error))
            except KeyboardInterrupt:
                self.screen.end()

    def _process(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if name in self.commands:
            self.commands[name][1](rest.strip())
        elif name.startswith("/") and not self.complete:
            self.screen.note(f"no command {name}; /help lists them")
        elif line.strip():
            self._answer(line)

    def _answer(self, text: str) -> None:
        """Show one reply as it comes; after Ctrl-C its beginning stays in the conversation."""
        question = {"role": "user", "content": text}
        prompt: Any = text if self.complete else [*self.messages, question]
        reply, is_interrupted = stream_reply(
            self.llm, prompt, self.params, self.screen, thinking=self.thinking
        )
        self.last_thinking = reply.texts["thinking"]
        self.screen.note(f"[{'stopped; ' * is_interrupted}{reply.summary}]")
        if reply.error:
            raise ShoestringError(f"the request failed: {reply.error}")
        if reply.finish_reason == "length":
            self.screen.note(f"cut at {reply.tokens} tokens; /set max_tokens=... or /clear make room")
        if not self.complete and self.has_history and reply.tokens:
            answer = {"role": "assistant", "content": reply.texts["answer"]}
            if self.last_thinking:
                answer["reasoning_content"] = self.last_thinking
            self.messages += [question, answer]

    def _help(self, _: str) -> None:
        for name, (text, _call) in self.commands.items():
            self.screen.note(f"{name:<8} {text}")
        self.screen.note("a line that ends in \\ continues in the next")

    def _think(self, _: str) -> None:
        self.screen.note(self.last_thinking.strip() or "the last answer came without thinking")

    def _clear(self, _: str) -> None:
        self.messages = [message for message in self.messages if message["role"] == "system"]
        self.last_thinking = ""
        self.screen.note(
            "the conversation is forgotten" + ("; the system text stays" if self.messages else "")
        )

    def _system(self, text: str) -> None:
        others = [message for message in self.messages if message["role"] != "system"]
        if text:
            self.messages = [{"role": "system", "content": text}, *others]
        texts = [message["content"] for message in self.messages if message["role"] == "system"]
        self.screen.note(f"system: {texts[0]}" if texts else "there is no system text; /system TEXT sets one")

    def _set(self, setting: str) -> None:
        from shoestring.cli.weights import read_choices
        from shoestring.config import build
        from shoestring.engine.request import SamplingParams

        choices = read_choices([setting], "/set")
        if choices.engine:
            raise ConfigError(
                f"{next(iter(choices.engine))} is set when the model is loaded: leave, and start with --set"
            )
        if choices.sampling:
            values = {field.name: getattr(self.params, field.name) for field in fields(SamplingParams)}
            self.params = build(SamplingParams, {**values, **choices.sampling}, where="/set")
        else:
            self.thinking = choices.thinking
        self.screen.note(f"set {setting}")

    def _save(self, name: str) -> None:
        import json

        from shoestring.durable import write_atomic

        path = Path(name).expanduser()
        if not name or path.exists():
            raise ConfigError(
                f"{name} exists already; give another name" if name else "/save needs a file name"
            )
        write_atomic(path, json.dumps({"messages": self.messages}, ensure_ascii=False, indent=2) + "\n")
        self.screen.note(f"saved {len(self.messages)} messages to {path}")


def stream_reply(
    llm: "LLM", prompt: Any, params: "SamplingParams", screen: View | None, *, thinking: bool | None = None
) -> tuple[Reply, bool]:
    """The reply to a text or a conversation, shown on `screen`; and whether Ctrl-C interrupted it."""
    from shoestring.tokenizer.prompts import is_conversation
    from shoestring.tokenizer.thinking import ends_in_thinking

    options = {"thinking": thinking} if thinking is not None and is_conversation(prompt) else None
    tokenizer, reply, is_interrupted = llm.get_tokenizer(), None, False
    goes_on = isinstance(prompt, str)
    try:
        with llm.stream(prompt, params, chat_template_kwargs=options) as outputs:
            for output in outputs:
                if reply is None:
                    thinking = ends_in_thinking(output.prompt_token_ids, tokenizer)
                    reply = Reply(tokenizer, thinking=thinking, continues=goes_on)
                pieces = reply.push(output)
                if screen is not None:
                    screen.show(pieces)
    except KeyboardInterrupt:
        if screen is None:
            raise
        is_interrupted = True
    reply = reply or Reply(tokenizer, thinking=False)
    pieces = reply.finish()
    if screen is not None:
        screen.show(pieces)
        screen.end()
    return reply, is_interrupted


def read_line() -> str | None:
    """A line from the keyboard, joined with the next ones while it ends in a backslash; None to leave."""
    lines: list[str] = []
    while True:
        try:
            line = input(PROMPT if not lines else "  ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            if not lines and not _input_buffer():
                return None
            lines = []
            continue
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def _input_buffer() -> str:
    """The text typed so far on the current line, if Python has readline."""
    readline = sys.modules.get("readline")
    return str(readline.get_line_buffer()) if readline is not None else ""


def enable_editing() -> None:
    """Enable arrow keys and history on the input line, if Python has readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
