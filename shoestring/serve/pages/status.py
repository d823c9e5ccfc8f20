"""The status of the service, as everyone may know it: states, since when, figures and incidents."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from shoestring.serve.dialects.schema import Schema
from shoestring.serve.gate.gate import ACTOR, SENTENCES, Gate
from shoestring.serve.gate.records import Incident
from shoestring.serve.gate.states import State
from shoestring.serve.pages.tally import SPAN_S, Tally
from shoestring.serve.service import Service

BUSY_WAIT_S = 10.0
BUSY_SHARE = 0.01
"""Share of requests that found the service full, from which on it is busy."""

Condition = Literal["good", "busy", "defending", "failed", "ending"]
HEADLINES: dict[Condition, str] = {
    "good": "Everything works.",
    "busy": "Everything works, but there is more to do than usual.",
    "defending": "The service defends itself; users are served as usual.",
    "failed": "A model does not answer.",
    "ending": "The service is about to restart.",
}


class RegistrationStatus(Schema):
    """The state of registration."""

    state: State
    since: str
    sentence: str
    reason: str
    is_pinned: bool
    """Whether the operator holds this state."""


class ModelStatus(Schema):
    """The state of a model."""

    name: str
    is_healthy: bool
    running: int | None
    """Requests that it answers; null when they are not counted."""
    waiting: int | None
    """Requests that wait for their turn."""
    oldest_wait_s: float | None
    """Seconds that the first of them has waited."""


class RequestsStatus(Schema):
    """Requests that ended within the last minutes."""

    span_s: int
    replies: int
    failures: int
    """Replies with a 5xx status other than 503."""
    full: int
    """Requests that found the service full (503)."""
    refusals: int
    """Requests without a valid key, without balance or over their limits."""
    failure_share: float
    first_token_s: float | None
    """The median time to the first token."""


class NoteStatus(Schema):
    """A sentence about an incident."""

    time: str
    kind: Literal["begin", "update", "end"]
    text: str
    by: Literal["service", "operator"]


class IncidentStatus(Schema):
    """An incident, with its notes in order."""

    number: int
    begin: str
    end: str | None
    """Null while it lasts."""
    notes: list[NoteStatus]


class ServiceStatus(Schema):
    """The status of the service."""

    condition: Condition
    headline: str
    time: str
    registration: RegistrationStatus | None
    """Null where there are no accounts."""
    models: list[ModelStatus]
    requests: RequestsStatus
    incidents: list[IncidentStatus]
    """Those that last, and the last ones that ended; /incidents has more."""


def service_status(
    service: Service, gate: Gate | None, tally: Tally, incidents: Sequence[Incident], time_s: float
) -> ServiceStatus:
    """The status at a time, in seconds since 1970."""
    models = [model_status(service, name) for name in service.backends]
    requests = _requests(tally)
    condition = _condition(service, gate, models, requests)
    return ServiceStatus(
        condition=condition,
        headline=HEADLINES[condition],
        time=iso(time_s),
        registration=None if gate is None else _registration(gate),
        models=models,
        requests=requests,
        incidents=[incident_status(incident) for incident in incidents],
    )


def incident_status(incident: Incident) -> IncidentStatus:
    """An incident without the names of operators."""
    return IncidentStatus(
        number=incident.number,
        begin=iso(incident.begin_s),
        end=None if incident.end_s is None else iso(incident.end_s),
        notes=[
            NoteStatus(
                time=iso(note.time_s),
                kind=note.kind,
                text=note.text,
                by="service" if note.actor == ACTOR else "operator",
            )
            for note in incident.notes
        ],
    )


def iso(time_s: float) -> str:
    """A time as 2026-11-30T12:00:00Z."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(
    service: Service, gate: Gate | None, models: Sequence[ModelStatus], requests: RequestsStatus
) -> Condition:
    if service.is_draining:
        return "ending"
    if not all(model.is_healthy for model in models):
        return "failed"
    if gate is not None and not gate.now.is_pinned and gate.now.state is not State.OPEN:
        return "defending"
    waits_s = [model.oldest_wait_s or 0.0 for model in models]
    is_full = requests.full > BUSY_SHARE * max(requests.replies, 1)
    return "busy" if is_full or max(waits_s, default=0.0) > BUSY_WAIT_S else "good"


def _registration(gate: Gate) -> RegistrationStatus:
    now = gate.now
    return RegistrationStatus(
        state=now.state,
        since=iso(now.since_s),
        sentence=SENTENCES[now.state],
        reason=now.reason,
        is_pinned=now.is_pinned,
    )


def model_status(service: Service, name: str) -> ModelStatus:
    """The state of a model, by its name."""
    turns = None if service.admission is None else service.admission.turns.get(name)
    is_healthy = service.backends[name].is_healthy
    if turns is None:
        number = None if service.admission is None else 0
        return ModelStatus(
            name=name, is_healthy=is_healthy, running=number, waiting=number, oldest_wait_s=None
        )
    wait_s = turns.oldest_wait_s("interactive", "standard", "batch")
    return ModelStatus(
        name=name,
        is_healthy=is_healthy,
        running=turns.queue.num_running,
        waiting=turns.queue.num_waiting(),
        oldest_wait_s=round(wait_s, 2),
    )


def _requests(tally: Tally) -> RequestsStatus:
    replies, failures = tally.count("replies"), tally.count("failures")
    first_s = tally.first_token_s
    return RequestsStatus(
        span_s=SPAN_S,
        replies=replies,
        failures=failures,
        full=tally.count("full"),
        refusals=tally.count("refusals"),
        failure_share=round(failures / replies, 6) if replies else 0.0,
        first_token_s=None if first_s is None else round(first_s, 4),
    )
