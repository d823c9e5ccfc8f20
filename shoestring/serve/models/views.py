"""The models of a service as its operator sees them."""

from typing import Literal

from shoestring.engine.load import required_memory
from shoestring.engine.offline.inventory import describe
from shoestring.engine.offline.plan import find_checkpoint
from shoestring.errors import ShoestringError
from shoestring.model.cost import parameters
from shoestring.serve.backends.adapter import AdapterBackend
from shoestring.serve.backends.backend import Backend
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.dialects.schema import Schema
from shoestring.serve.models.jobs import Kind
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.models.opening import ModelSettings, plan_of
from shoestring.serve.models.places import Place, Source, changed_ns, places
from shoestring.serve.service import Service


class ModelFacts(Schema):
    """Facts of a model's files. None is unknown."""

    parameters: int | None = None
    active_parameters: int | None = None
    """Those that a token uses."""
    form: str = ""
    """The form of most weights, such as BF16 or int4."""
    disk_bytes: int | None = None
    memory_bytes: int | None = None
    """The memory that it takes when it is loaded: weights and cache."""
    max_model_len: int | None = None
    problem: str = ""
    """The reason why it cannot be loaded."""


class LocalModel(ModelFacts):
    """A model of this machine, or one that is served from another."""

    name: str
    source: Source | Literal["server", "other"]
    state: Literal["here", "served", "loading", "loaded"]
    """`served` is loaded when it is asked for."""


class JobView(Schema):
    """Work on a model. None is unknown."""

    id: int
    kind: Kind
    name: str
    bytes: int | None
    total: int | None
    failure: str


class ModelsView(Schema):
    """The models, work on models, and the memory that is free for more."""

    models: list[LocalModel]
    jobs: list[JobView]
    free_bytes: int


class Facts:
    """Facts of models, each read once as long as its files are the same."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._facts: dict[tuple[str, int], ModelFacts] = {}

    def of(self, place: Place) -> ModelFacts:
        """The facts of a model."""
        key = (str(place.folder), changed_ns(place))
        if key not in self._facts:
            self._facts[key] = _read(place, self._settings)
        return self._facts[key]


def models_view(service: Service, local: LocalModels, facts: Facts) -> ModelsView:
    """The models of a service: those that it serves first, then others of this machine."""
    elsewhere = places(local.runs)
    rows = []
    for name, backend in list(service.backends.items()):  # this is another thread
        place = elsewhere.pop(name, None)
        source: Source | Literal["server", "other"] = place.source if place else _source(backend)
        fields = facts.of(place).model_dump() if place else {}
        fields["max_model_len"] = backend.card.max_model_len
        if isinstance(backend, LazyBackend):
            fields |= {"memory_bytes": backend.model.num_bytes, "problem": ""}
        rows.append(LocalModel(name=name, source=source, state=_state(backend), **fields))
    for name, place in elsewhere.items():
        rows.append(LocalModel(name=name, source=place.source, state="here", **facts.of(place).model_dump()))
    jobs = [JobView(**vars(job)) for job in local.jobs.jobs.values()]
    return ModelsView(models=rows, jobs=jobs, free_bytes=max(local.memory.free_bytes, 0))


def _read(place: Place, settings: ModelSettings) -> ModelFacts:
    description = describe(place.folder)
    facts = ModelFacts(form=description["weights"], disk_bytes=description["bytes"])
    if "problem" in description:
        return facts.model_copy(update={"problem": description["problem"]})
    try:
        checkpoint = find_checkpoint(str(place.folder))
        count = parameters(checkpoint.config)
        plan = plan_of(checkpoint, settings)
        need = required_memory(checkpoint, plan.quantization, plan.settings, plan.runtime.compute_dtype)
    except ShoestringError as error:
        return facts.model_copy(update={"problem": str(error)})
    figures = {
        "parameters": count.total,
        "active_parameters": count.active,
        "memory_bytes": need.weights + need.cache,
        "max_model_len": plan.settings.max_model_len,
    }
    return facts.model_copy(update=figures)


def _source(backend: Backend) -> Literal["server", "other"]:
    return "other" if isinstance(backend, LazyBackend | AdapterBackend) else "server"


def _state(backend: Backend) -> Literal["served", "loading", "loaded"]:
    backend = backend.base if isinstance(backend, AdapterBackend) else backend
    if not isinstance(backend, LazyBackend) or backend.local is not None:
        return "loaded"
    return "loading" if backend.is_loaded else "served"
