"""LoRA adapters of an engine: each is a model that has its own changed matrices and shares the others."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shoestring.device import Runtime
from shoestring.engine.engine import Engine
from shoestring.engine.load import load_transformer
from shoestring.engine.paged_cache import available_bytes
from shoestring.errors import ConfigError
from shoestring.inputs import LoRARequest
from shoestring.model.cost import parameters
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.peft import updates_of
from shoestring.model.memory import Quantization

AdapterInput = LoRARequest | Sequence[LoRARequest | None] | None


class Adapters:
    """Loads the adapters that requests name into an engine, each when it is first named."""

    def __init__(
        self, engine: Engine, checkpoint: Checkpoint, runtime: Runtime, quantization: Quantization | None
    ) -> None:
        self._engine, self._checkpoint, self._runtime = engine, checkpoint, runtime
        self._quantization = quantization
        self._requests: dict[int, LoRARequest] = {}

    def name(self, request: LoRARequest) -> str:
        """The adapter's name in the engine, which has it now.

        Raises ConfigError, and CheckpointError for a damaged adapter or one of another model.
        """
        number = request.lora_int_id
        first = self._requests.setdefault(number, request)
        if first.lora_path != request.lora_path:
            raise ConfigError(
                f"lora_int_id = {number} is {first.lora_path}; give {request.lora_path} another number"
            )
        if str(number) not in self._engine.adapters:
            try:
                self.load(str(number), Path(resolve(request.lora_path)))
            except Exception:
                del self._requests[number]
                raise
        return str(number)

    def load(self, name: str, folder: Path) -> None:
        """Load the adapter in a folder for requests that give this name. Raises as `name` does."""
        checkpoint, device = self._checkpoint, self._runtime.device
        both = replace(checkpoint, adapters=(*checkpoint.adapters, folder))
        if checkpoint.quantization is not None:  # its pages are mapped, and so shared already
            self._engine.adapters[name] = load_transformer(both, self._runtime)
            return
        updates = updates_of(checkpoint.model_config, folder)
        need, free = checkpoint.weight_bytes(self._quantization), available_bytes(device)
        if free is not None and need > free:
            raise ConfigError(
                f"loading {folder} takes {need / 1e9:.1f} GB for a while and {free / 1e9:.1f} GB are free; "
                "free some, or merge it into its model with `shoestring merge`"
            )
        model = load_transformer(both, self._runtime, self._quantization)
        share(model, self._engine.model, updates.keys())
        self._engine.adapters[name] = model


def adapter_bytes(checkpoint: Checkpoint, folder: Path, quantization: Quantization | None) -> int:
    """Memory that an adapter takes beside its model: that of the matrices it changes.

    Raises CheckpointError for a damaged adapter or one of another model.
    """
    updates = updates_of(checkpoint.model_config, folder).values()
    entries = sum(update.lora_B.shape[0] * update.lora_A.shape[1] for update in updates)
    if checkpoint.quantization is not None:
        return sum(4 * (update.lora_A.numel() + update.lora_B.numel()) for update in updates)
    return checkpoint.weight_bytes(quantization) * entries // parameters(checkpoint.model_config).total


def adapter_names(adapters: Adapters | None, requests: AdapterInput, count: int) -> list[str]:
    """The name of the adapter of each of `count` prompts; empty without one.

    Raises ConfigError for another number of them, for other values, and without `adapters`.
    """
    each: Any = requests if isinstance(requests, (list, tuple)) else [requests] * count
    if len(each) != count:
        raise ConfigError(f"{len(each)} lora_requests for {count} prompts; give one, or one each")
    names = []
    for request in each:
        if request is not None and not isinstance(request, LoRARequest):
            raise ConfigError(f"lora_request is a {type(request).__name__}, not a LoRARequest")
        if request is not None and adapters is None:
            raise ConfigError("LLM.of has no checkpoint for an adapter; open the model with LLM(folder)")
        names.append(adapters.name(request) if adapters and request else "")
    return names


def share(model: nn.Module, original: nn.Module, own: Collection[str]) -> None:
    """Replace the parts of `model` that hold no matrix in `own` by those of `original`."""
    for name, module in list(model.named_modules()):
        if not any(True for _ in (*module.parameters(False), *module.buffers(False))):
            continue
        if any(matrix.startswith(f"{name}.") for matrix in own):
            module._apply(torch.clone)  # else its matrix keeps the memory of the whole model, loaded as one
        else:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, original.get_submodule(name))
