"""Routes of the memory: facts that its owner keeps, sees and erases."""

from typing import Any

from fastapi import APIRouter

from shoestring.serve.audience import Audience, audience
from shoestring.serve.chats.memory import add_fact, erase_facts, memory_of, switch
from shoestring.serve.chats.schema import Fact, FactBody, Memory, Switch
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.routes.page.stored import ERRORS, TheId, TheStore
from shoestring.serve.routes.parts import TheCaller

router = APIRouter(prefix="/memory", tags=["chats"], responses=errors(OpenAIError, ERRORS))


@router.get("", responses=whole(Memory))
@audience(Audience.ACCOUNT)
async def show_memory(caller: TheCaller, store: TheStore) -> dict[str, Any]:
    """Show the memory, the oldest fact first; it is off until its owner switches it on."""
    return await store.read(memory_of, caller.account_id)


@router.put("", status_code=204)
@audience(Audience.ACCOUNT)
async def switch_memory(body: Switch, caller: TheCaller, store: TheStore) -> None:
    """Switch the memory on or off; its facts stay until they are erased."""
    await store.write(switch, caller.account_id, is_on=body.is_on)


@router.post("/facts", status_code=201, responses={201: {"model": Fact}})
@audience(Audience.ACCOUNT)
async def keep_fact(body: FactBody, caller: TheCaller, store: TheStore) -> dict[str, Any]:
    """Keep a fact."""
    return await store.write(add_fact, caller.account_id, body.text, store.now_ms())


@router.delete("/facts/{fact_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def erase_fact(fact_id: TheId, caller: TheCaller, store: TheStore) -> None:
    """Erase a fact."""
    await store.write(erase_facts, caller.account_id, fact_id)


@router.delete("", status_code=204)
@audience(Audience.ACCOUNT)
async def erase_memory(caller: TheCaller, store: TheStore) -> None:
    """Erase all facts."""
    await store.write(erase_facts, caller.account_id)
