"""`shoestring run`: complete a prompt, from an argument, a pipe or the keyboard."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Device, Json, Model, Seed
from shoestring.cli.output import print_json

if TYPE_CHECKING:
    from shoestring.model.transformer import Transformer
    from shoestring.tokenizer.bpe import Tokenizer


def run(
    model: Model,
    prompt: Annotated[str | None, typer.Argument(help="Text to complete; `-` or a pipe reads stdin.")] = None,
    *,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens to add.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens only.")] = 1.0,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Complete a prompt; without one, ask for prompts until an empty line."""
    from shoestring.device import choose

    loaded, tokenizer = load(model, choose(device))
    settings = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        prompt = sys.stdin.read()
    if prompt is None:
        ask(loaded, tokenizer, settings)
        return
    answer = complete(loaded, tokenizer, prompt, settings, show=not as_json)
    if as_json:
        print_json(answer)


def load(name: str, runtime: Any) -> "tuple[Transformer, Tokenizer]":
    """A model and the tokenizer beside it, ready to compute."""
    from shoestring.model.folder import load_model
    from shoestring.model.hub import resolve
    from shoestring.tokenizer.bpe import Tokenizer

    folder = resolve(name)
    tokenizer = Tokenizer.load(folder)
    model = load_model(folder, compute_dtype=runtime.compute_dtype, device=runtime.device)
    tokenizer.check_fits(model.config.vocab_size)
    return model, tokenizer


def ask(model: "Transformer", tokenizer: "Tokenizer", settings: dict[str, Any]) -> None:
    """Complete what is typed, until an empty line or the end of input; Ctrl-C ends an answer only."""
    print("type a beginning, the model goes on; an empty line ends", file=sys.stderr)
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            print()
            return
        if not prompt:
            return
        try:
            complete(model, tokenizer, prompt, settings, show=True)
        except KeyboardInterrupt:
            print()


def complete(
    model: "Transformer", tokenizer: "Tokenizer", prompt: str, settings: dict[str, Any], *, show: bool
) -> dict[str, Any]:
    """The completion as a dict; with `show`, printed as it comes (prompt included, controls removed)."""
    from shoestring.model.generate import generate
    from shoestring.tokenizer.stream import TextStream

    ids = tokenizer.encode(prompt)
    start = [tokenizer.bos_id] if "bos_token" in tokenizer.roles else []
    stream, began, count, text = TextStream(tokenizer), time.perf_counter(), 0, ""
    if show:
        print(printable(prompt), end="", flush=True)
    for token in generate(model, start + ids, stop_ids=end_ids(model), **settings):
        count += 1
        for piece in stream.push([token]):
            text += piece.text
            if show:
                print(printable(piece.text), end="", flush=True)
    tail = "".join(piece.text for piece in stream.finish())
    seconds = time.perf_counter() - began
    if show:
        print(printable(tail))
        print(f"[{count} tokens, {count / seconds:.1f} tokens/s]", file=sys.stderr)
    return {"prompt": prompt, "completion": text + tail, "tokens": count, "seconds": seconds}


def end_ids(model: "Transformer") -> frozenset[int]:
    """The ids that end a text."""
    eos = model.config.eos_token_id
    return frozenset(() if eos is None else (eos,) if isinstance(eos, int) else eos)


def printable(text: str) -> str:
    """Model output without the control characters that could rewrite a terminal."""
    return "".join(c for c in text if c in "\n\t" or (c.isprintable() or ord(c) > 0x9F))
