"""The models of this process, more of which may be served while it runs."""

import asyncio
from collections.abc import Sequence

from shoestring.errors import ConfigError
from shoestring.serve.backends.adapter import AdapterBackend
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import LazyBackend, ModelMemory
from shoestring.serve.models.jobs import Jobs
from shoestring.serve.models.opening import ModelSettings, loadable_model
from shoestring.serve.models.places import Place, new_place, places, remove
from shoestring.serve.service import Service
from shoestring.serve.training.folder import RunsFolder

FORMS = {8: "int8", 4: "int4"}


class LocalModels:
    """The models of this process and the memory that they share. Use it on the service's event loop."""

    def __init__(
        self,
        memory: ModelMemory,
        settings: ModelSettings,
        runs: RunsFolder,
        adapters: Sequence[AdapterBackend] = (),
    ) -> None:
        """`runs`: the trainings whose models belong to those of this machine; `adapters`: of its models."""
        self.memory, self.settings, self.runs, self.adapters = memory, settings, runs, adapters
        self.jobs = Jobs()

    @property
    def backends(self) -> "list[LazyBackend | AdapterBackend]":
        """The models and their adapters, the default model first."""
        return [*self.memory.backends, *self.adapters]

    @property
    def slots(self) -> dict[str, int]:
        """Requests that each of them takes at the same time."""
        return dict.fromkeys((backend.card.id for backend in self.backends), self.settings.seqs)

    async def add(self, service: Service, name: str, place: str | None = None) -> LazyBackend:
        """Serve another model, which is loaded when it is asked for.

        Raises ConfigError, CheckpointError and others of its planning, and ConfigError for a name that is
        taken.
        """
        model = await asyncio.to_thread(loadable_model, name, self.settings, place)
        backend = LazyBackend(model, self.memory)
        try:
            service.add(backend, sampling=model.sampling, slots=self.settings.seqs)
        except ConfigError:
            self.memory.remove(backend)
            raise
        return backend

    async def load(self, service: Service, name: str) -> None:
        """Serve a model of this machine and begin to load it. Raises RequestError, ShoestringError."""
        backend = self._backend(service, name)
        if backend is None:
            backend = await self.add(service, name, str((await self.place(name)).folder))
        backend.ensure_loading()

    async def unload(self, service: Service, name: str) -> None:
        """Serve a model no more, nor its adapters, and free its memory.

        Raises RequestError for one that is answering, and for the last one.
        """
        backend = self._backend(service, name)
        if backend is None:
            raise RequestError("not_found", f"{name[:100]} is not loaded")
        own = [name, *(other for other, each in service.backends.items() if each.card.parent == name)]
        if len(service.backends) == len(own):
            raise RequestError("conflict", "this is the last model; load another one first")
        if not backend.resident.is_idle:
            raise RequestError("conflict", f"{name} is in use; try again when it has answered")
        self.memory.remove(backend)
        for each in own:
            await service.remove(each)

    async def erase(self, service: Service, name: str) -> None:
        """Erase a model that was fetched or quantized. Raises RequestError, ConfigError."""
        if name in service.backends:
            raise RequestError("conflict", f"{name} is served; unload it first")
        await asyncio.to_thread(remove, await self.place(name))

    async def quantize(self, name: str, bits: int) -> None:
        """Begin to make a model with 8-bit or 4-bit weights of another. Raises RequestError, ConfigError."""
        place = await self.place(name)
        new_name = f"{name.replace('/', '-')}-{FORMS[bits]}"
        target = new_place(new_name)
        self.jobs.start("quantize", new_name, str(place.folder), str(target), FORMS[bits])

    async def place(self, name: str) -> Place:
        """The place of a model of this machine. Raises RequestError when there is none of this name."""
        all_places = await asyncio.to_thread(places, self.runs)
        if name not in all_places:
            raise RequestError("not_found", f"there is no model {name[:100]!r} on this machine")
        return all_places[name]

    def _backend(self, service: Service, name: str) -> LazyBackend | None:
        """The backend of a model of this process that is served."""
        backend = service.backends.get(name)
        return backend if isinstance(backend, LazyBackend) else None
