"""Routes of DeepSeek's API, at the root, under /beta and under /anthropic."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from shoestring.serve.audience import Audience, audience
from shoestring.serve.dialects.anthropic_request import CountTokensRequest, MessagesRequest
from shoestring.serve.dialects.anthropic_schema import AnthropicMessage, TokenCount
from shoestring.serve.dialects.deepseek import claude_model, deepseek_chat, deepseek_completion
from shoestring.serve.dialects.errors import out_of_range
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest
from shoestring.serve.dialects.openai_completions import CompletionRequest
from shoestring.serve.dialects.openai_schema import ChatCompletion, ModelList, TextCompletion
from shoestring.serve.dialects.responses_request import ResponsesRequest
from shoestring.serve.dialects.responses_schema import OpenAIResponse
from shoestring.serve.dialects.schema import AnthropicError, OpenAIError, errors, whole, whole_or_stream
from shoestring.serve.routes import anthropic, responses
from shoestring.serve.routes.chat_replies import answer_chat, answer_text
from shoestring.serve.routes.openai import model_fields
from shoestring.serve.routes.parts import TheCaller, TheService
from shoestring.serve.service import Service


class DeepSeekRoute(APIRoute):
    """A route that answers 422 for a parameter out of its range, and 400 for a body of the wrong form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_range(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                if wrong := out_of_range(error.errors(), error.body):
                    raise wrong from None
                raise

        return handle_range


Body = TypeVar("Body", bound=CountTokensRequest)

PARAMETER = {422: "A parameter is out of its range."}

router = APIRouter(tags=["DeepSeek"], route_class=DeepSeekRoute, responses=errors(OpenAIError, PARAMETER))
messages_errors = errors(AnthropicError, PARAMETER)


@router.post("/chat/completions", responses=whole_or_stream(ChatCompletion))
@router.post("/beta/chat/completions", responses=whole_or_stream(ChatCompletion))
@audience(Audience.KEY)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation by DeepSeek's rules; the usage of a stream is on its last choice."""
    body = deepseek_chat(body, service.deepseek_era)
    return await answer_chat(body, request, caller, service, deepseek=True)


@router.post("/completions", responses=whole_or_stream(TextCompletion))
@router.post("/beta/completions", responses=whole_or_stream(TextCompletion))
@audience(Audience.KEY)
async def create_completion(
    body: CompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Continue a text, or fill a gap in it."""
    body = deepseek_completion(body, service.deepseek_era)
    return await answer_text(body, request, caller, service, deepseek=True)


@router.post("/responses", responses=whole_or_stream(OpenAIResponse))
@audience(Audience.KEY)
async def create_response(
    body: ResponsesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation in OpenAI's responses."""
    return await responses.answer(body, request, caller, service)


@router.get("/models", responses=whole(ModelList))
@audience(Audience.KEY)
async def list_models(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [model_fields(service, name) for name in service.backends]}


@router.post("/anthropic/v1/messages", responses=messages_errors | whole_or_stream(AnthropicMessage))
@audience(Audience.KEY)
async def create_message(
    body: MessagesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation in Anthropic's messages; names of Anthropic's models are names of ours."""
    return await anthropic.answer(_with_our_model(body, service), request, caller, service)


@router.post("/anthropic/v1/messages/count_tokens", responses=messages_errors | whole(TokenCount))
@audience(Audience.KEY)
async def count_tokens(body: CountTokensRequest, caller: TheCaller, service: TheService) -> dict[str, int]:
    """Count the tokens of a conversation."""
    return await anthropic.count(_with_our_model(body, service), service)


def _with_our_model(body: Body, service: Service) -> Body:
    names = [*service.backends, *service.aliases]
    return body.model_copy(update={"model": claude_model(body.model, names)})
