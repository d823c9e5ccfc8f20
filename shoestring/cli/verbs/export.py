"""`shoestring export, import, merge`: write Hugging Face folders and GGUF files, and read GGUF files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from shoestring.cli.options import Json, Model
from shoestring.cli.output import print_fields, print_json

if TYPE_CHECKING:
    from shoestring.model.hf.checkpoint import Checkpoint

PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="A new folder, or a file that ends in .gguf.")],
    *,
    type: Annotated[
        str | None,
        typer.Option(
            help="f32, bf16 or f16; for GGUF f32, bf16, q8_0, q4_0, q4_k or q6_k.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model for transformers, vLLM or llama.cpp.

    A folder is for transformers and vLLM, a GGUF file for llama.cpp. Without --type, weights are bf16 in a
    folder and q8_0 in a GGUF file.
    """
    write = _export_gguf if out.suffix == ".gguf" else _export_folder
    _print(write(model, out, type), as_json)


def import_model(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    *,
    type: Annotated[str, typer.Option(help="f32, bf16 or f16.")] = "bf16",
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Leave out the tokenizer: the model takes token ids.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import a GGUF file as a Hugging Face folder.

    Quantized weights become numbers of --type again. A tokenizer that cannot be read is refused;
    --weights-only imports the model without it.
    """
    from shoestring.model.gguf.importer import import_gguf

    import_gguf(file, out, dtype=_precision(type), weights_only=weights_only)
    report = {"out": str(out), "type": type, "bytes": _bytes(out)}
    if not (out / "tokenizer.json").exists():
        reason = "left out" if weights_only else "there is none in the file"
        report["tokenizer"] = f"{reason}: the model takes token ids, as in `shoestring run {out} '1 2 3'`"
    _print(report, as_json)


def merge(
    names: Annotated[
        list[str],
        typer.Argument(metavar="MODEL+ADAPTER OUT", help="A model, adapters on it, and a new folder."),
    ],
    *,
    type: Annotated[
        str | None, typer.Option(help="f32, bf16 or f16; by default that of the model.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Merge LoRA adapters into the weights of their model: one model, which needs no PEFT.

    MODEL+ADAPTER OUT, or MODEL ADAPTER OUT; each is a folder or org/name on the hub. An adapter alone knows
    its model: ADAPTER OUT.
    """
    from shoestring.engine.offline.plan import find_checkpoint
    from shoestring.errors import ConfigError
    from shoestring.model.hf.folder import load_model
    from shoestring.model.hf.merge import save_merged
    from shoestring.model.packed.frozen import thaw
    from shoestring.model.packed.quantize import load_frozen

    *models, out = names
    if not models:
        raise ConfigError("merge takes a model with an adapter, and a new folder: MODEL+ADAPTER OUT")
    source, folder = find_checkpoint("+".join(models)), _new_folder(Path(out))
    if not source.adapters:
        raise ConfigError(
            f"{models[0]} has no adapter to merge; give one too: shoestring merge {models[0]}+ADAPTER {out}"
        )
    type = type or ("bf16" if source.is_bfloat16 else "f32")
    model = load_model(source) if source.quantization is None else thaw(load_frozen(source))
    save_merged(model, source, folder, dtype=_precision(type))
    _print({"out": out, "type": type, "bytes": _bytes(folder)}, as_json)


def _new_folder(out: Path) -> Path:
    """A folder that does not exist or is empty; ConfigError for any other."""
    from shoestring.errors import ConfigError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; give a new folder")
    return out


def _export_folder(model: str, out: Path, type: str | None) -> dict[str, Any]:
    from shoestring.model.hf.folder import load_model, save_model

    type = type or "bf16"
    dtype, source = _precision(type), _plain_checkpoint(model)
    _new_folder(out)
    source.check_vocabulary()
    tokenizer_files = source.tokenizer_folder if source.has_tokenizer else None
    lineage = f"Exported from {source.folder.name}."
    save_model(
        load_model(source, dtype=dtype),
        out,
        dtype=dtype,
        tokenizer_files=tokenizer_files,
        generation=source.generation,
        lineage=lineage,
    )
    return {"out": str(out), "type": type, "bytes": _bytes(out)}


def _export_gguf(model: str, out: Path, type: str | None) -> dict[str, Any]:
    from shoestring.errors import ConfigError
    from shoestring.model.gguf.exporter import WeightType, export_gguf

    if out.exists():
        raise ConfigError(f"{out} exists already; give another name or remove it first")
    type = type or "q8_0"
    if type not in get_args(WeightType):
        raise ConfigError(f"no GGUF type {type!r}; there are {', '.join(get_args(WeightType))}")
    export_gguf(_plain_checkpoint(model), out, type)  # type: ignore[arg-type]
    return {"out": str(out), "type": type, "bytes": out.stat().st_size}


def _plain_checkpoint(model: str) -> "Checkpoint":
    """The checkpoint of a model; ConfigError for one that is packed."""
    from shoestring.engine.offline.plan import find_checkpoint
    from shoestring.errors import ConfigError

    checkpoint = find_checkpoint(model)
    if checkpoint.quantization is not None:
        raise ConfigError(f"{model} is packed by `quantize`; export the checkpoint it was made from")
    return checkpoint


def _precision(type: str) -> Any:
    import torch

    from shoestring.errors import ConfigError

    if type not in PRECISIONS:
        raise ConfigError(f"no precision {type!r}; there are {', '.join(PRECISIONS)}")
    return getattr(torch, PRECISIONS[type])


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        print_fields(report)
