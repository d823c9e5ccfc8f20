"""`shoestring eval`: bits per byte of a model on held-out text, beside gzip and xz."""

from typing import Annotated, Any

import typer

from shoestring.cli.options import Device, Json, Model
from shoestring.cli.output import print_fields, print_json


def evaluate(
    model: Model,
    *,
    source: Annotated[
        list[str], typer.Option(help="Text to score: folder, file, glob, dataset id or stdlib; repeatable.")
    ] = ["stdlib"],  # noqa: B006 (typer copies it)
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens of context at most.")] = 512,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to score at most.")] = 65_536,
    below: Annotated[
        float | None, typer.Option(help="Exit with 3 unless bits per byte are below this.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a model on the documents that pretraining holds out of the same source."""
    from shoestring.cli.run import load
    from shoestring.data.corpus import DataConfig
    from shoestring.data.dataset import prepare
    from shoestring.device import choose
    from shoestring.train.run import cache_folder

    loaded, tokenizer = load(model, choose(device))
    config = DataConfig(sources=tuple(source), fim_rate=0.0)
    dataset = prepare(config, tokenizer, cache_folder())
    report = {"model": model, "sources": source} | heldout_report(loaded, dataset, seq_len, max_tokens)
    if as_json:
        print_json(report)
    else:
        print_fields(report)
    require_below(report["bits_per_byte"], below)


def heldout_report(model: Any, dataset: Any, seq_len: int, max_tokens: int) -> dict[str, Any]:
    """Bits per byte of the model and of gzip and xz, on the very same documents."""
    from shoestring.data.dataset import evaluation_rows
    from shoestring.evals.perplexity import compressed_bits_per_byte, score

    rows = evaluation_rows(dataset.heldout, seq_len=seq_len, max_tokens=max_tokens)
    result = score(model, rows)
    heldout = list(dataset.store.texts("heldout"))
    compressed = compressed_bits_per_byte([heldout[number] for number in rows.documents])
    return {
        "bits_per_byte": result.bits_per_byte,
        **compressed,
        "tokens": result.tokens,
        "utf8_bytes": result.utf8_bytes,
        "documents": result.documents,
    }


def require_below(bits_per_byte: float, limit: float | None) -> None:
    """Raise ThresholdError when a figure that was asked for is not met."""
    from shoestring.errors import ThresholdError

    if limit is not None and not bits_per_byte < limit:
        raise ThresholdError(f"{bits_per_byte:.4f} bits per byte are not below {limit}; train longer")
