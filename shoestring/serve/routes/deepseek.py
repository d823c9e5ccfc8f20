"""Routes of DeepSeek's API, at the root, under /beta and under /anthropic."""

from typing import Any

from fastapi import APIRouter, Request, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.dialects.anthropic_request import CountTokensRequest, MessagesRequest
from shoestring.serve.dialects.openai_chat import ChatCompletionRequest
from shoestring.serve.dialects.openai_completions import CompletionRequest
from shoestring.serve.dialects.responses_request import ResponsesRequest
from shoestring.serve.routes import anthropic, responses
from shoestring.serve.routes.chat_replies import answer_chat, answer_text
from shoestring.serve.routes.openai import model_fields
from shoestring.serve.routes.parts import TheCaller, TheService

router = APIRouter(tags=["DeepSeek"])


@router.post("/chat/completions")
@router.post("/beta/chat/completions")
@audience(Audience.KEY)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation; the usage of a stream is on its last choice."""
    return await answer_chat(body, request, caller, service, deepseek=True)


@router.post("/completions")
@router.post("/beta/completions")
@audience(Audience.KEY)
async def create_completion(
    body: CompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Continue a text, or fill a gap in it."""
    return await answer_text(body, request, caller, service, deepseek=True)


@router.post("/responses")
@audience(Audience.KEY)
async def create_response(
    body: ResponsesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation in OpenAI's responses."""
    return await responses.answer(body, request, caller, service)


@router.get("/models")
@audience(Audience.KEY)
async def list_models(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [model_fields(service, name) for name in service.backends]}


@router.post("/anthropic/v1/messages")
@audience(Audience.KEY)
async def create_message(
    body: MessagesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation in Anthropic's messages."""
    return await anthropic.answer(body, request, caller, service)


@router.post("/anthropic/v1/messages/count_tokens")
@audience(Audience.KEY)
async def count_tokens(body: CountTokensRequest, caller: TheCaller, service: TheService) -> dict[str, int]:
    """Count the tokens of a conversation."""
    return await anthropic.count(body, service)
