"""The models of this process, more of which may be served while it runs."""

import asyncio

from shoestring.serve.backends.lazy import LazyBackend, ModelMemory
from shoestring.serve.models.opening import ModelSettings, loadable_model
from shoestring.serve.service import Service


class LocalModels:
    """The models of this process and the memory that they share. Use it on the service's event loop."""

    def __init__(self, memory: ModelMemory, settings: ModelSettings) -> None:
        self.memory, self.settings = memory, settings

    async def add(self, service: Service, name: str, place: str | None = None) -> LazyBackend:
        """Serve another model, which is loaded when it is asked for.

        Raises ConfigError, CheckpointError and others of its planning, and ConfigError for a name that is
        taken.
        """
        model = await asyncio.to_thread(loadable_model, name, self.settings, place)
        backend = LazyBackend(model, self.memory)
        service.add(backend, sampling=model.sampling, slots=self.settings.seqs)
        return backend
