"""`shoestring run`: chat with a model or complete a text, from the keyboard, an argument or a pipe."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.chat import Chat, enable_editing, stream_reply
from shoestring.cli.options import Device, Json, Model
from shoestring.cli.output import print_json
from shoestring.cli.start import modules_kept
from shoestring.cli.terminal import DIM, PLAIN, Reply, Screen, View, printable
from shoestring.cli.token_ids import complete_ids, prompt_ids
from shoestring.cli.weights import Sampling, Weights, open_model, read_choices
from shoestring.engine.offline.plan import default_form, find_checkpoint

if TYPE_CHECKING:
    from shoestring.engine.llm import LLM
    from shoestring.engine.request import SamplingParams
    from shoestring.tokenizer.stream import TextPiece

CHAT_SAMPLING = {"temperature": 0.6, "top_p": 0.95}
"""Defaults of a chat, if generation_config.json has none: the values recommended for DeepSeek-R1."""
COMPLETION_SAMPLING = {"temperature": 0.0, "max_tokens": 128}


def run(
    model: Model = "mini",
    prompt: Annotated[str | None, typer.Argument(help="A message; `-` or a pipe reads stdin.")] = None,
    *,
    weights: Weights = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="Complete the prompt as text, although the model has a chat template."
        ),
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest reply, in tokens.")] = None,
    settings: Sampling = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Chat with a model. With a prompt or a pipe it answers once; without one it asks for messages.

    `mini`, the default, is in the package: a tiny model that makes a target number from given numbers. On a
    CPU weights become int8 unless --quantization says otherwise: faster, and nearly exact.

    A model without a chat template completes text; one without a tokenizer completes token ids. Ctrl-C stops
    an answer, /help lists the commands.
    """
    from shoestring.errors import ConfigError
    from shoestring.model.hf.hub import EMBEDDED_MODEL

    with modules_kept():
        choices = read_choices(settings)
        if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
            prompt = read_stdin()
        if prompt is None and as_json:
            raise ConfigError("--json needs a prompt: an argument, or text on stdin")
        checkpoint = find_checkpoint(model)
        ids = None if checkpoint.has_tokenizer else prompt_ids(prompt, checkpoint)
        default = default_form(checkpoint, device) if weights is None else None
        llm = open_model(checkpoint, weights or default, choices.engine, device)
    complete = complete or not llm.has_template
    overrides = dict(choices.sampling) | ({} if max_tokens is None else {"max_tokens": max_tokens})
    params = sampling(llm, overrides, complete=complete)
    if ids is not None:
        completion = complete_ids(llm, ids, params)
        print_json({"model": model, **completion}) if as_json else print(*completion["token_ids"])
        return
    if prompt is None:
        _print_default(default)
        enable_editing()
        has_history = model != EMBEDDED_MODEL  # it answers single questions
        Chat(
            llm, params, Screen(), complete=complete, thinking=choices.thinking, has_history=has_history
        ).loop()
        return
    request: Any = prompt if complete else [{"role": "user", "content": prompt}]
    view = None if as_json else Plain(prompt if complete else "")
    reply = once(llm, request, params, view, thinking=choices.thinking)
    _print_default(default)
    if as_json:
        print_json({"model": model, "prompt": prompt, **report(reply)})
    else:
        print(f"[{reply.summary}]", file=sys.stderr)


def _print_default(form: str | None) -> None:
    """Say on stderr that weights were quantized without having been asked for."""
    if form is not None:
        print(
            f"weights {form}, the default on a CPU; --quantization none keeps them as stored", file=sys.stderr
        )


def read_stdin() -> str:
    """The whole of stdin; ConfigError when it is not text."""
    from shoestring.errors import ConfigError

    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise ConfigError("stdin is not UTF-8 text; convert it first") from None


def sampling(llm: "LLM", settings: dict[str, Any], *, complete: bool) -> "SamplingParams":
    """The sampling parameters: `settings`, else the checkpoint's defaults, else those of this verb."""
    from shoestring.config import build
    from shoestring.engine.request import SamplingParams

    defaults = COMPLETION_SAMPLING if complete else {**CHAT_SAMPLING, "max_tokens": None}
    return build(SamplingParams, {**defaults, **llm.default_sampling, **settings}, where="--set")


def once(
    llm: "LLM", prompt: Any, params: "SamplingParams", view: View | None, *, thinking: bool | None = None
) -> Reply:
    """One reply to a text or a conversation; raises KeyboardInterrupt, or ShoestringError if it failed."""
    from shoestring.errors import ShoestringError

    reply, is_interrupted = stream_reply(llm, prompt, params, view, thinking=thinking)
    if is_interrupted:
        raise KeyboardInterrupt
    if reply.error:
        raise ShoestringError(f"the request failed: {reply.error}")
    return reply


class Plain:
    """A reply that can be piped: the answer on stdout; thinking on stderr if that is a terminal, dimmed."""

    def __init__(self, before: str) -> None:
        self._before, self._last = before, "\n"
        self._thinks = False

    def show(self, pieces: "list[TextPiece]") -> None:
        """See Screen.show."""
        for piece in pieces:
            if piece.kind == "answer":
                self._say(printable(piece.text))
            elif sys.stderr.isatty():
                self._thinks = True
                print(f"{DIM}{printable(piece.text)}{PLAIN}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """See Screen.end."""
        self._say("" if self._last.endswith("\n") else "\n")

    def _say(self, text: str) -> None:
        if self._thinks:
            print(file=sys.stderr)
            self._thinks = False
        text, self._before = printable(self._before) + text, ""
        self._last = text[-1:] or self._last
        print(text, end="", flush=True)


def report(reply: Reply) -> dict[str, Any]:
    """A reply as JSON."""
    return {
        "thinking": reply.texts["thinking"],
        "completion": reply.texts["answer"],
        "finish_reason": reply.finish_reason,
        "tokens": reply.tokens,
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "seconds": reply.seconds,
        "first_token_s": reply.first_token_s,
        "tokens_per_s": reply.tokens_per_s,
    }
