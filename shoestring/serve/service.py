"""The service below all dialects: models by name, and a reply for a caller."""

from collections.abc import Mapping
from typing import Any

from shoestring.serve.backends.backend import Backend
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Reply
from shoestring.serve.backends.request import BackendRequest
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.deepseek import Era


class Service:
    """The models that are served, and their use by callers."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        aliases: Mapping[str, str] | None = None,
        sampling: Mapping[str, Mapping[str, Any]] | None = None,
        deepseek_era: Era = Era.ANY,
    ) -> None:
        """`backends` by the names of their models, the default one first; `sampling`: each one's defaults;
        `deepseek_era`: the time whose rules hold on DeepSeek's paths."""
        self.backends = dict(backends)
        self.aliases = dict(aliases or {})
        self._sampling = sampling or {}
        self.deepseek_era = deepseek_era
        self.is_draining = False
        """New requests are refused: the service ends when those under way have ended."""

    def backend(self, model: str) -> Backend:
        """The backend of a model or alias. Raises RequestError for an unknown one."""
        name = self.aliases.get(model, model)
        if name not in self.backends:
            names = ", ".join(self.backends)
            raise RequestError(
                "not_found", f"the model {model[:100]!r} does not exist; there are {names}", field="model"
            )
        return self.backends[name]

    def sampling(self, model: str) -> Mapping[str, Any]:
        """The sampling of requests to a model that leave it out."""
        return self._sampling.get(self.backend(model).card.id, {})

    async def open(self, caller: Caller, model: str, request: BackendRequest) -> Reply:
        """Begin a reply for a caller. Raises RequestError."""
        work = await self.backend(model).prepare(request)
        return Reply(model=work.model, prompt_tokens=work.prompt_tokens, deltas=await work.start())

    async def close(self) -> None:
        """End all models."""
        for backend in self.backends.values():
            await backend.close()
