"""`shoestring quantize`: write a packed checkpoint with 8-bit or 4-bit weights, which loads in seconds."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.cli.options import Json, Model
from shoestring.cli.output import amount, print_fields, print_json
from shoestring.cli.weights import print_to_stderr, progress_bar
from shoestring.engine.offline.plan import choose_form, find_checkpoint, read_weights


def quantize(
    model: Model,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    *,
    bits: Annotated[
        int | None, typer.Option(help="8 or 4; by default 4, or what --target-ram allows.")
    ] = None,
    target_ram: Annotated[
        str | None, typer.Option(help="A limit of memory, such as 12G: the most exact weights that fit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Quantize a model to 8 or 4 bits.

    The new folder is a packed checkpoint with its tokenizer, which `run`, `bench` and shoestring.LLM load at
    once, by memory mapping.
    """
    from shoestring.device import choose
    from shoestring.engine.load import fit
    from shoestring.engine.settings import EngineSettings
    from shoestring.errors import ConfigError
    from shoestring.model.memory import BITS
    from shoestring.model.packed.quantize import quantize_checkpoint

    forms = {number: name for name, number in BITS.items()}
    if bits is not None and (bits not in forms or target_ram is not None):
        raise ConfigError("--bits is 8 or 4, and --target-ram chooses it; give one of the two")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; give a new folder")
    target = None if target_ram is None else read_weights(target_ram)
    source, runtime, settings = find_checkpoint(model), choose("cpu"), EngineSettings(max_num_seqs=1)
    form = (
        forms[bits or 4]
        if target is None
        else choose_form(source, target, settings, runtime, print_to_stderr)
    )
    if form is None:
        raise ConfigError(
            f"{model} fits as it is, so nothing was written; give --bits 8 or 4 to quantize it anyway"
        )
    fit(source, form, settings, runtime)  # packed weights are in memory until they are written
    begin = time.perf_counter()
    with progress_bar(f"quantizing {source.folder.name}") as progress:
        quantize_checkpoint(source, out, form, progress=progress)
    report: dict[str, Any] = {
        "out": str(out),
        "weights": form,
        "bytes": stored_bytes(out),
        "source_bytes": stored_bytes(source.folder),
        "seconds": round(time.perf_counter() - begin, 2),
    }
    if as_json:
        print_json(report)
        return
    sizes = (amount(report[name], "G") + "B" for name in ("source_bytes", "bytes"))
    print_fields(
        {"out": report["out"], "weights": f"{form}, {' -> '.join(sizes)}", "seconds": report["seconds"]}
    )
    print(f"try: shoestring run {out}")


def stored_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
