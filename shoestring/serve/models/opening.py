"""A model of this process before its weights are read: its memory, tokenizer and sampling."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from shoestring.device import choose
from shoestring.engine.load import default_sampling
from shoestring.engine.offline.adapters import Adapters, adapter_bytes
from shoestring.engine.offline.plan import LoadPlan, default_form, find_checkpoint, plan_model
from shoestring.engine.paged_cache import available_bytes
from shoestring.errors import ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.named import split_name
from shoestring.model.memory import RESERVE_BYTES
from shoestring.model.packed.quantize import Progress
from shoestring.serve.backends.energy import EnergyShares
from shoestring.serve.backends.lazy import LoadableModel
from shoestring.serve.backends.local import LocalBackend
from shoestring.train.report.energy import EnergyMeter

STREAM_INTERVAL_S = 0.04
"""Tokens that come faster are sent together: 25 events a second look smooth, and an event costs as much as a
token of a small model."""
PROMPT_SHARE = 0.5
"""A prompt that comes in makes the steps of running streams twice as long, and no longer."""


@contextmanager
def no_progress(title: str) -> Iterator[Progress | None]:
    """Show nothing while weights are read."""
    yield None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Settings that all models of this process share."""

    weights: str | None = None
    """int8, int4, none, or a limit of memory such as 12G; None is what fits the device best."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """EngineSettings other than max_num_seqs."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling of requests that leave it out, before the model's own."""
    device: str = "auto"
    seqs: int = 16
    """Replies that a model writes at the same time."""
    energy: EnergyShares = field(default_factory=lambda: EnergyShares(EnergyMeter()))
    """The machine's energy, shared by all answers."""
    progress: Callable[[str], AbstractContextManager[Progress | None]] = no_progress
    """Shows a title and the bytes that were read."""


def loadable_model(
    name: str,
    settings: ModelSettings,
    place: str | None = None,
    adapters: Mapping[str, str] | None = None,
) -> LoadableModel:
    """A model that is not loaded yet, by its name, or by its folder `place`, with LoRA adapters by name.

    Raises ConfigError for one that this machine has no memory for, CheckpointError for one that is none, and
    for an adapter of another model.
    """
    checkpoint = find_checkpoint(place or name)
    plan = plan_of(checkpoint, settings)
    folders = {own_name: resolve(folder) for own_name, folder in (adapters or {}).items()}
    more_bytes = sum(adapter_bytes(checkpoint, folder, plan.quantization) for folder in folders.values())
    template = checkpoint.template if checkpoint.has_tokenizer and checkpoint.has_template else None
    sampling = {**default_sampling(checkpoint), **settings.sampling}
    sampling.pop("max_tokens", None)  # the limit is the context

    def load() -> LocalBackend:
        with settings.progress(f"loading {name}") as progress:
            engine = plan.load(progress)
        loader = Adapters(engine, checkpoint, plan.runtime, plan.quantization)
        for own_name, folder in folders.items():
            loader.load(own_name, folder)
        return LocalBackend(name, engine, template, energy=settings.energy)

    return LoadableModel(
        name=name,
        num_bytes=plan.num_bytes + more_bytes,
        max_model_len=plan.settings.max_model_len or checkpoint.config.max_position_embeddings,
        tokenizer=checkpoint.tokenizer if checkpoint.has_tokenizer else None,
        template=template,
        sampling=sampling,
        load=load,
    )


def split_adapters(
    names: Sequence[str], adapters: Mapping[str, str]
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The models among `names`, and each one's adapters by the names under which they are served.

    MODEL+ADAPTER beside MODEL shares its engine; alone it is a model of its own. `adapters` are the first
    model's. Raises ConfigError for a name that is given twice, and for adapters without a model.
    """
    models, own = [], dict[str, dict[str, str]]()
    for name in names:
        base, *others = split_name(name)
        if len(others) == 1 and base in names:
            own.setdefault(base, {})[name] = others[0]
        else:
            models.append(name)
    if adapters and not models:
        raise ConfigError("adapters are those of a model of this process; name one to serve it with them")
    if adapters:
        own.setdefault(models[0], {}).update(adapters)
    ids = [*names, *adapters]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise ConfigError(f"{twice[0]} is the name of two models; give one of them another name")
    return models, own


def plan_of(checkpoint: Checkpoint, settings: ModelSettings) -> LoadPlan:
    """The plan for a checkpoint under these settings. Raises ConfigError."""
    default = default_form(checkpoint, settings.device) if settings.weights is None else None
    engine = {"stream_interval_s": STREAM_INTERVAL_S, "prompt_share": PROMPT_SHARE, **settings.engine}
    return plan_model(checkpoint, settings.weights or default, engine, settings.device, seqs=settings.seqs)


def energy_meter(watts: float | None, device: str) -> EnergyMeter:
    """The meter of this machine with the GPU that its models use."""
    place = choose(device).device
    if place.type != "cuda":
        return EnergyMeter(watts=watts)
    return EnergyMeter(watts=watts, gpus=(f"GPU-{torch.cuda.get_device_properties(place).uuid}",))


def free_bytes(limit: int | None, device: str) -> Callable[[int], int]:
    """A function that says how much memory is left for models, given the bytes of those that are loaded."""
    if limit is not None:
        return lambda loaded_bytes: limit - loaded_bytes
    place = choose(device).device
    return lambda _: (available_bytes(place) or 1 << 62) - RESERVE_BYTES // 2  # the load itself counts it all
