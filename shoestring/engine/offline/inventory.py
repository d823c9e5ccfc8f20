"""Models on this machine: folders with checkpoints, GGUF files, the hub's cache, the package index's.

Libraries are imported inside the functions, so that the command line starts at once.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.model.gguf.file import GGUFFile
    from shoestring.model.hf.checkpoint import Checkpoint

MODEL_PATTERNS = ("config.json", "*/config.json", "*/model/config.json", "*.gguf", "*/*.gguf")
"""Places of models in a folder: the folder itself, its folders, its runs, GGUF files."""


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
        return {"model_type": "?", "weights": "unreadable", "bytes": size, "problem": str(error)}


def gguf_weights(file: "GGUFFile") -> dict[str, Any]:
    """The form of most weights of a GGUF file, such as Q4_0, and the file's bytes."""
    bytes_of: Counter[str] = Counter()
    for tensor in file.tensors.values():
        bytes_of[tensor.type.name] += tensor.num_rows * tensor.row_bytes
    return {"weights": _most(bytes_of), "bytes": file.num_bytes}


def stored_weights(checkpoint: "Checkpoint") -> dict[str, Any]:
    """The form of most weights of a checkpoint, such as int4 or BF16, and the bytes of all."""
    bytes_of: Counter[str] = Counter()
    for info in checkpoint.tensors.values():
        bytes_of[info.dtype] += info.end - info.start
    return {"weights": checkpoint.quantization or _most(bytes_of), "bytes": bytes_of.total()}


def _most(bytes_of: Counter[str]) -> str:
    return bytes_of.most_common(1)[0][0] if bytes_of else "none"


def wheel_models() -> dict[str, Path]:
    """The folders of models that came from the Python package index, by name."""
    from shoestring.model.hf.hub import WHEEL_MODELS, wheel_model_folder

    places = {name: wheel_model_folder(name) for name in WHEEL_MODELS}
    return {name: folder for name, folder in places.items() if folder.is_dir()}


def hub_models() -> dict[str, Path]:
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
