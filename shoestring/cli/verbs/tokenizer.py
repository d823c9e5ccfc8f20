"""`shoestring tokenizer`: train a tokenizer, or print the tokens of a text."""

from pathlib import Path
from typing import Annotated

import typer

from shoestring.cli.options import Json, Model, Out
from shoestring.cli.output import print_fields, print_json

app = typer.Typer(help="Train and inspect tokenizers.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def train(
    source: Annotated[list[str], typer.Argument(help="Folders, files, globs, dataset ids, or stdlib.")],
    *,
    vocab_size: Annotated[
        int, typer.Option(min=300, help="Size of the vocabulary, special tokens included.")
    ] = 4096,
    out: Out = Path("runs/tokenizer"),
    as_json: Json = False,
) -> None:
    """Train a byte-level BPE tokenizer on a corpus.

    It is trained on the training split: held-out documents are not read.
    """
    from shoestring.data.corpus import DataConfig
    from shoestring.data.textstore import prepare_corpus
    from shoestring.durable import cache_folder
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

    store = prepare_corpus(DataConfig(sources=tuple(source)), cache_folder("data"))
    tokenizer = Tokenizer.train(store.texts(), vocab_size)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    DeepSeekTemplate().save(out)
    sample = list(store.texts("heldout")) or list(store.texts())
    num_bytes = sum(len(text.encode()) for text in sample)
    tokens = sum(map(len, tokenizer.encode_batch(sample)))
    report = {
        "out": str(out),
        "vocab_size": tokenizer.vocab_size,
        "heldout_bytes_per_token": num_bytes / tokens,
    }
    if as_json:
        print_json(report)
    else:
        print_fields(report)


@app.command()
def encode(
    model: Model,
    text: Annotated[str, typer.Argument(help="The text to encode.")],
    *,
    special: Annotated[
        bool, typer.Option("--special", help="Encode special tokens in the text as such, not as plain text.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the tokens of a text: each id and its text."""
    from shoestring.model.hf.named import open_model

    tokenizer = open_model(model).tokenizer
    ids = tokenizer.encode(text, allow_special=special)
    pieces = [tokenizer.token_bytes(i).decode("utf-8", errors="replace") for i in ids]
    if as_json:
        print_json({"ids": ids, "pieces": pieces})
        return
    for token, piece in zip(ids, pieces, strict=True):
        print(f"{token:>8}  {piece!r}")
