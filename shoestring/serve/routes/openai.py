"""Routes of OpenAI's API: chat completions, completions, models, and vLLM's tokenize and detokenize."""

from typing import Any

from fastapi import APIRouter, Request, Response

from shoestring.sampling_params import SamplingParams
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.request import TextRequest
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest
from shoestring.serve.dialects.openai_completions import CompletionRequest
from shoestring.serve.dialects.openai_schema import (
    ChatCompletion,
    Model,
    ModelList,
    Text,
    TextCompletion,
    Tokens,
)
from shoestring.serve.dialects.schema import OpenAIError, errors, whole, whole_or_stream
from shoestring.serve.dialects.tokens import DetokenizeRequest, TokenizeRequest, drops_begin, token_request
from shoestring.serve.routes.chat_replies import answer_chat, answer_text
from shoestring.serve.routes.parts import TheCaller, TheService
from shoestring.serve.service import Service

router = APIRouter(tags=["OpenAI"], responses=errors(OpenAIError))


@router.post("/v1/chat/completions", responses=whole_or_stream(ChatCompletion))
@audience(Audience.KEY)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation."""
    return await answer_chat(body, request, caller, service)


@router.post("/v1/completions", responses=whole_or_stream(TextCompletion))
@audience(Audience.KEY)
async def create_completion(
    body: CompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Continue a text, or fill a gap in it."""
    return await answer_text(body, request, caller, service)


@router.get("/v1/models", responses=whole(ModelList))
@audience(Audience.KEY)
async def list_models(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [model_fields(service, name) for name in service.backends]}


@router.get("/v1/models/{model:path}", responses=whole(Model))
@audience(Audience.KEY)
async def retrieve_model(model: str, caller: TheCaller, service: TheService) -> dict[str, Any]:
    """Show one model; its name may have slashes."""
    return model_fields(service, model)


@router.post("/tokenize", responses=whole(Tokens))
@audience(Audience.KEY)
async def tokenize(body: TokenizeRequest, caller: TheCaller, service: TheService) -> dict[str, Any]:
    """Show the tokens of a text or a conversation."""
    backend = service.backend(body.model)
    ids = await backend.tokenize(token_request(body))
    if drops_begin(body):
        ids = ids[len(await backend.tokenize(TextRequest(prompt="", sampling=SamplingParams()))) :]
    return {"count": len(ids), "max_model_len": backend.card.max_model_len, "tokens": list(ids)}


@router.post("/detokenize", responses=whole(Text))
@audience(Audience.KEY)
async def detokenize(body: DetokenizeRequest, caller: TheCaller, service: TheService) -> dict[str, str]:
    """Show the text of tokens, under vLLM's name and llama.cpp's."""
    text = await service.backend(body.model).detokenize(body.tokens)
    return {"prompt": text, "content": text}


def model_fields(service: Service, name: str) -> dict[str, Any]:
    """A model as the list has it."""
    card = service.backend(name).card
    return {
        "id": card.id,
        "object": "model",
        "created": card.created_s,
        "owned_by": card.owned_by,
        "max_model_len": card.max_model_len,
        "parent": card.parent,
    }
