"""Route of the view "how it thinks": one answer, token by token."""

from typing import Any

from fastapi import APIRouter, Request

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.inspection import answer_tokens, inspection
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest, chat_request
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors, whole
from shoestring.serve.live import unless_gone
from shoestring.serve.routes.parts import TheCaller, TheService

router = APIRouter(tags=["page"], responses=errors(OpenAIError))


class InspectedToken(Schema):
    id: int
    text: str
    """Bytes that are no whole character are shown as �."""
    is_special: bool


class Alternative(Schema):
    id: int | None
    text: str
    logprob: float


class InspectedAnswerToken(InspectedToken):
    logprob: float
    alternatives: list[Alternative]
    """The likeliest tokens in its place."""


class ModelShape(Schema):
    layers: int
    hidden_size: int
    vocab_size: int
    moe_layers: list[int]
    experts: int
    active_experts: int
    shared_experts: int


class EngineFigures(Schema):
    """Totals since the model was loaded."""

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    drafted_tokens: int
    accepted_tokens: int


class Inspection(Schema):
    """One answer as the model sees it."""

    object: str
    model: str
    prompt: list[InspectedToken]
    answer: list[InspectedAnswerToken]
    is_cut: bool
    """The answer is longer than what is shown."""
    experts: list[list[list[int]]] | None
    """The experts of each token of the answer in each of `moe_layers`; null for a dense model."""
    shape: ModelShape
    engine: EngineFigures
    prompt_tokens: int
    """Tokens that this request is charged for, beside one of completion."""


@router.post("/inspect", responses=whole(Inspection))
@audience(Audience.KEY)
async def inspect_answer(
    body: ChatCompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> dict[str, Any]:
    """Look into an answer, which is the last message: one pass of the conversation through the model."""
    salt = caller.cache_salt(body.user_id)
    backend = service.backend(body.model)
    chat = chat_request(body, service.sampling(body.model), cache_salt=salt)

    async def work() -> dict[str, Any]:
        tokens = await answer_tokens(backend, chat)
        reply = await service.open(caller, body.model, tokens.request(salt))
        return await inspection(backend, tokens, reply.deltas)

    result: dict[str, Any] = await unless_gone(request, work())
    return result
