"""The service below all dialects: models by name, and a reply for a caller."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from shoestring.errors import ConfigError
from shoestring.serve.admission.admission import Admission
from shoestring.serve.admission.turns import Start
from shoestring.serve.backends.backend import Backend
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, Reply, Work
from shoestring.serve.backends.request import BackendRequest
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.deepseek import Era
from shoestring.serve.gate.gate import Gate
from shoestring.serve.ledger.meter import Meter, metered
from shoestring.serve.watch import watched


class Service:
    """The models that are served, and their use by callers."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        aliases: Mapping[str, str] | None = None,
        sampling: Mapping[str, Mapping[str, Any]] | None = None,
        meter: Meter | None = None,
        admission: Admission | None = None,
        gate: Gate | None = None,
        deepseek_era: Era = Era.ANY,
    ) -> None:
        """`backends` by the names of their models, the default one first; `sampling`: each one's defaults;
        `deepseek_era`: the time whose rules hold on DeepSeek's paths. Without a `meter` all is free,
        without `admission` nobody is refused, and without a `gate` there is no registration."""
        self.meter, self.admission, self.gate = meter, admission, gate
        self.backends = dict(backends)
        self.aliases = dict(aliases or {})
        self._sampling = dict(sampling or {})
        self._is_started = False
        self.deepseek_era = deepseek_era
        self.translator: str | None = None
        """The model that translates; None is the first one."""
        self.is_draining = False
        """New requests are refused: the service ends when those under way have ended."""
        self.drain_end_s = 0.0
        """The time, by time.monotonic, until which those under way may go on when the service ends."""

    def backend(self, model: str) -> Backend:
        """The backend of a model or alias. Raises RequestError for an unknown one."""
        name = self.aliases.get(model, model)
        if name not in self.backends:
            names = ", ".join(self.backends)
            raise RequestError(
                "not_found", f"the model {model[:100]!r} does not exist; there are {names}", field="model"
            )
        return self.backends[name]

    def add(self, backend: Backend, *, sampling: Mapping[str, Any], slots: int) -> None:
        """Serve another model from now on; `slots`: requests that it takes at the same time.

        Raises ConfigError for a name that is taken.
        """
        name = backend.card.id
        if name in self.backends or name in self.aliases:
            raise ConfigError(f"{name} is the name of a model already")
        if self.admission is not None:
            self.admission.set_slots(name, slots)
        self._sampling[name] = sampling
        self.backends[name] = backend
        if self._is_started:
            backend.start()

    async def remove(self, model: str) -> None:
        """Serve a model no more: its replies end with an error. Raises RequestError for an unknown one."""
        name = self.backend(model).card.id
        self._sampling.pop(name, None)
        await self.backends.pop(name).close()

    def sampling(self, model: str) -> Mapping[str, Any]:
        """The sampling of requests to a model that leave it out."""
        return self._sampling.get(self.backend(model).card.id, {})

    async def open(self, caller: Caller, model: str, request: BackendRequest) -> Reply:
        """Begin a reply for a caller, in its turn; money is held and charged for it when there is a meter.

        Raises RequestError.
        """
        work = watched(await self.backend(model).prepare(request))
        turn = None if self.admission is None else self.admission.turn(caller, work)
        start = work.start if self.meter is None else await self._metered(self.meter, caller, work)
        deltas = await (start() if turn is None else turn.deltas(start))
        caller.ending.push_async_callback(deltas.aclose)
        reply = Reply(model=work.model, prompt_tokens=work.prompt_tokens, deltas=deltas)
        return reply if turn is None else replace(reply, place=lambda: turn.position)

    async def _metered(self, meter: Meter, caller: Caller, work: Work) -> Start:
        """The start of work that is paid for. Raises RequestError when the caller cannot pay."""
        charge = await meter.hold(caller, work)
        caller.costs.append(charge)
        caller.ending.push_async_callback(charge.settle)

        async def start() -> AsyncGenerator[Delta]:
            return metered(await work.start(), charge)

        return start

    async def start(self) -> None:
        """Start the models, the meter, admission and the gate."""
        for backend in self.backends.values():
            backend.start()
        self._is_started = True
        if self.meter is not None:
            await self.meter.start()
        if self.admission is not None:
            await self.admission.start()
        if self.gate is not None:
            await self.gate.start()

    async def close(self) -> None:
        """End all models, the meter, the gate and admission."""
        for backend in self.backends.values():
            await backend.close()
        if self.meter is not None:
            await self.meter.stop()
        if self.gate is not None:
            await self.gate.stop()
        if self.admission is not None:
            await self.admission.stop()
