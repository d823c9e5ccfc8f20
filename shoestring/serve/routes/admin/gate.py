"""Routes for admins about registration and incidents."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from shoestring.serve.audience import Audience, audience
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.gate.records import Note
from shoestring.serve.gate.states import State
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheGate

router = APIRouter(
    prefix="/admin", tags=["admin"], responses=errors(OpenAIError, {409: "Not now; the message says why."})
)

Line = Annotated[str, Field(min_length=1, max_length=200)]


class GateBody(Schema):
    """A state of registration to hold whatever is measured; null lets go."""

    state: State | None
    reason: Line


class IncidentBody(Schema):
    """An incident, or a further note on one."""

    text: Annotated[str, Field(min_length=1, max_length=2000)]
    number: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """The incident that the note is on; without it a new one begins."""
    is_end: bool = False


@router.get("/gate")
@audience(Audience.ADMIN)
async def show_gate(caller: TheCaller, gate: TheGate) -> dict[str, Any]:
    """Show the state of registration and its last changes."""
    now = gate.now
    changes = await gate.records.changes(100)
    fields = {"state": now.state, "pin": now.pin, "since": now.since_s, "reason": now.reason}
    return {**fields, "changes": [vars(change) for change in changes]}


@router.post("/gate")
@audience(Audience.ADMIN)
async def pin_gate(body: GateBody, caller: TheCaller, gate: TheGate, accounts: TheAccounts) -> dict[str, Any]:
    """Hold registration in a state, or let go."""
    await gate.pin(body.state, body.reason, caller.account_id)
    await accounts.note(caller.account_id, "pin_gate", detail=f"{body.state or 'auto'}: {body.reason}")
    return {"state": gate.now.state, "pin": gate.now.pin}


@router.post("/incidents", status_code=201)
@audience(Audience.ADMIN)
async def write_incident(
    body: IncidentBody, caller: TheCaller, gate: TheGate, accounts: TheAccounts
) -> dict[str, int]:
    """Begin an incident on the status page, add a note to one, or end it."""
    now_s, number = gate.now_s(), body.number
    if number is None:
        number = await gate.records.begin_incident(now_s, body.text, caller.account_id)
        await accounts.note(caller.account_id, "begin_incident", detail=f"{number}: {body.text}")
        return {"number": number}
    kind: Literal["end", "update"] = "end" if body.is_end else "update"
    note = Note(incident=number, time_s=now_s, kind=kind, text=body.text, actor=caller.account_id)
    await gate.records.add_note(note)
    await accounts.note(caller.account_id, f"{kind}_incident", detail=f"{number}: {body.text}")
    return {"number": number}
