"""`shoestring show, list, export`: what models are, where they are, and copies in Hugging Face layout."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.cli.options import Json, Model
from shoestring.cli.output import amount, print_fields, print_json


def show(
    model: Annotated[str, typer.Argument(help="A preset, a folder, or a hub name.")],
    *,
    seq_len: Annotated[int, typer.Option(min=1, help="Context length that FLOPs are counted at.")] = 4096,
    as_json: Json = False,
) -> None:
    """Print a model's shape and exact costs, from its config alone."""
    from shoestring.model import cost
    from shoestring.model.hf_config import load_config
    from shoestring.model.hub import resolve
    from shoestring.model.presets import PRESETS

    config = PRESETS.get(model) or load_config(resolve(model))
    count = cost.parameters(config)
    figures: dict[str, Any] = {
        "model": model,
        "model_type": config.model_type,
        "parameters_total": count.total,
        "parameters_active": count.active,
        "parameters_mtp": count.mtp,
        "cache_bytes_per_token": cost.cache_bytes_per_token(config),
        "train_flops_per_token": cost.train_flops_per_token(config, seq_len),
        "decode_flops_per_token": cost.decode_flops_per_token(config, seq_len),
        "seq_len": seq_len,
    }
    if as_json:
        print_json(figures | {"config": asdict(config)})
        return
    where = f"per token at context {seq_len:,}"
    print_fields(
        {
            "model": f"{model} ({config.model_type})",
            "parameters": f"{amount(count.total)} ({count.total:,}), {amount(count.active)} active per token",
            "MTP modules": f"{amount(count.mtp)} more" if count.mtp else "none",
            "layers": f"{config.num_hidden_layers} of width {config.hidden_size}",
            "heads": str(config.num_attention_heads),
            "attention": _described(config.attention),
            "experts": _described(config.moe) if config.moe else "none (dense)",
            "cache per token": f"{figures['cache_bytes_per_token']:,} bytes in bfloat16",
            "training": f"{amount(figures['train_flops_per_token'], 'G')}FLOP {where}",
            "decoding": f"{amount(figures['decode_flops_per_token'], 'G')}FLOP {where}",
        }
    )


def list_models(
    *,
    runs: Annotated[Path, typer.Option(help="Folder that holds runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List presets, models trained here, and models in the hub's cache."""
    from shoestring.model.presets import PRESETS

    trained = [str(path.parent) for path in sorted(runs.glob("*/model/config.json"))]
    found = {"presets": list(PRESETS), "trained": trained, "cached": _cached()}
    if as_json:
        print_json(found)
        return
    for title, names in found.items():
        print(f"{title}: {', '.join(names) if names else 'none'}")


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    *,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    as_json: Json = False,
) -> None:
    """Write a model as a Hugging Face folder that transformers and other engines open."""
    import torch

    from shoestring.errors import ConfigError
    from shoestring.model.folder import load_model, save_model
    from shoestring.model.hub import resolve

    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in precisions:
        raise ConfigError(f"no precision {dtype!r}; there are {', '.join(precisions)}")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; give a new folder")
    source = resolve(model)
    tokenizer_files = source if (source / "tokenizer.json").is_file() else None
    loaded = load_model(source, dtype=precisions[dtype])
    save_model(
        loaded,
        out,
        dtype=precisions[dtype],
        tokenizer_files=tokenizer_files,
        lineage=f"Exported from {source.name}.",
    )
    size = sum(path.stat().st_size for path in out.iterdir())
    report = {"out": str(out), "dtype": dtype, "bytes": size}
    if as_json:
        print_json(report)
    else:
        print_fields(report)


def _described(part: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(part).items() if value not in (None, False))


def _cached() -> list[str]:
    """Models in the hub's cache; none when huggingface_hub or the cache is not there."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        return sorted(repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model")
    except CacheNotFound:
        return []
