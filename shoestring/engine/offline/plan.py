"""The plan for a model before its weights are read: where it is, in which form it fits, and its memory.

torch is imported inside the functions, so that the command line starts at once.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.device import Runtime
    from shoestring.engine.engine import Engine
    from shoestring.engine.settings import EngineSettings
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.memory import Quantization
    from shoestring.model.packed.quantize import Progress

log = logging.getLogger(__name__)

CONTEXT = 8192
"""Most tokens of context, unless `--set max_model_len=...` sets more: the cache takes memory."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_EXPONENT = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def read_weights(text: str | None) -> "Quantization | int | None":
    """A quantization, or a number of bytes; raises ConfigError for anything else."""
    from shoestring.errors import ConfigError

    if text is None or text == "int8" or text == "int4":
        return text  # type: ignore[return-value]
    size = read_size(text)
    if size is None:
        raise ConfigError(
            f"{text!r} is not a quantization; give int8, int4, or a limit of memory such as 12G"
        )
    return size


def read_size(text: str) -> int | None:
    """Bytes of a size such as 12G or 512MiB; None for anything else."""
    size = _SIZE.fullmatch(text.strip())
    if size is None or float(size[1]) <= 0:
        return None
    return int(float(size[1]) * (1024 if size[3] else 1000) ** _EXPONENT[size[2].upper()])


def find_checkpoint(model: str) -> "Checkpoint":
    """The checkpoint of MODEL or MODEL+ADAPTER; ConfigError for a GGUF file, which must be imported first."""
    from shoestring.errors import ConfigError
    from shoestring.model.hf.named import open_model

    if model.endswith(".gguf"):
        raise ConfigError(
            f"{model} is a GGUF file; make a folder of it with `shoestring import {model} FOLDER`"
        )
    return open_model(model)


def default_form(checkpoint: "Checkpoint", device: str) -> str | None:
    """The quantization if none is named: int8 for plain weights on a CPU that has kernels for it."""
    from shoestring.device import choose
    from shoestring.kernels.packed import available

    if checkpoint.quantization is not None or choose(device).device.type != "cpu" or not available():
        return None
    return "int8"


def choose_form(
    checkpoint: "Checkpoint",
    weights: "Quantization | int | None",
    settings: "EngineSettings",
    runtime: "Runtime",
    say: Callable[[str], None] = log.info,
) -> "Quantization | None":
    """The quantization. For a limit of memory one is chosen, and `say` says which and why."""
    if not isinstance(weights, int):
        return weights
    from shoestring.engine.load import choose, required_memory
    from shoestring.engine.measure import measure_reads
    from shoestring.model.memory import read_bytes_per_token

    form = choose(checkpoint, weights, settings, runtime)
    need = required_memory(checkpoint, form, settings, runtime.compute_dtype)
    speed, share = measure_reads(runtime), read_bytes_per_token(checkpoint.model_config, need.weights)
    say(
        f"{weights / 1e9:.1f} GB: weights {form or 'as they are stored'}, which needs {need}; "
        f"memory reads at {speed / 1e9:.1f} GB/s here and a token takes {share / 1e9:.3g} GB, "
        f"so up to {speed / share:,.1f} tokens/s"
    )
    return form


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """A checkpoint with all that is decided before its weights are read."""

    checkpoint: "Checkpoint"
    quantization: "Quantization | None"
    settings: "EngineSettings"
    runtime: "Runtime"

    @property
    def num_bytes(self) -> int:
        """Memory of weights and cache, as it fits now. Raises ConfigError when it does not."""
        from shoestring.engine.load import fit, required_memory

        settings = fit(self.checkpoint, self.quantization, self.settings, self.runtime)
        dtype = self.runtime.compute_dtype
        need = required_memory(self.checkpoint, self.quantization, settings, dtype)
        return need.weights + need.cache

    def load(self, progress: "Progress | None" = None) -> "Engine":
        """Read the weights; `progress` is called with the bytes so far and all bytes."""
        from shoestring.engine.load import load_engine

        return load_engine(
            self.checkpoint,
            self.runtime,
            quantization=self.quantization,
            settings=self.settings,
            progress=progress,
        )


def plan_model(
    checkpoint: "Checkpoint",
    weights: str | None,
    engine: Mapping[str, Any],
    device: str,
    *,
    seqs: int = 1,
    say: Callable[[str], None] = log.info,
) -> LoadPlan:
    """Decide how to load a model; `engine` are EngineSettings other than max_num_seqs, which is `seqs`."""
    from shoestring.config import build
    from shoestring.device import choose
    from shoestring.engine.settings import EngineSettings

    form, runtime = read_weights(None if weights == "none" else weights), choose(device)
    longest = checkpoint.config.max_position_embeddings
    values = {"max_model_len": min(CONTEXT, longest), "max_num_seqs": seqs, **engine}
    settings = build(EngineSettings, values, where="--set")
    quantization = choose_form(checkpoint, form, settings, runtime, say)
    return LoadPlan(checkpoint=checkpoint, quantization=quantization, settings=settings, runtime=runtime)
