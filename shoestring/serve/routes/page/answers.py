"""Routes of answers that go on without a reader: begin, read along, stop."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.chats.answers import Answers
from shoestring.serve.chats.schema import AnswerBody, AnswerList
from shoestring.serve.dialects.schema import EVENT, EVENTS, OpenAIError, errors, whole
from shoestring.serve.live import event_stream
from shoestring.serve.routes.page.stored import ERRORS, TheId
from shoestring.serve.routes.parts import TheCaller

router = APIRouter(prefix="/answers", tags=["chats"], responses=errors(OpenAIError, ERRORS))


async def answers_of(request: Request) -> Answers:
    """The answers of this process."""
    answers: Answers = request.app.state.answers
    return answers


TheAnswers = Annotated[Answers, Depends(answers_of)]


@router.post("", status_code=202)
@audience(Audience.ACCOUNT)
async def begin_answer(body: AnswerBody, caller: TheCaller, answers: TheAnswers) -> dict[str, str]:
    """Begin an answer, which goes on whether somebody reads it or not. One that was begun is left alone."""
    await answers.begin(caller, body)
    return {"id": body.id}


@router.get("", responses=whole(AnswerList))
@audience(Audience.ACCOUNT)
async def list_answers(caller: TheCaller, answers: TheAnswers) -> dict[str, Any]:
    """List the answers that are being written."""
    pairs = await answers.running(caller.account_id)
    return {"answers": [{"id": answer_id, "chat": chat_id} for answer_id, chat_id in pairs]}


@router.get(
    "/{answer_id}",
    response_class=Response,
    responses={200: {"content": {EVENTS: {"itemSchema": EVENT}}, "description": "The answer as it comes."}},
)
@audience(Audience.ACCOUNT)
async def read_answer(
    answer_id: TheId,
    caller: TheCaller,
    answers: TheAnswers,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """Read along: chunks as in OpenAI's API, those after the event with the id `after`."""
    return event_stream(await answers.follow(caller.account_id, answer_id, after))


@router.delete("/{answer_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def stop_answer(answer_id: TheId, caller: TheCaller, answers: TheAnswers) -> None:
    """End an answer early; what there is of it stays."""
    await answers.stop(caller.account_id, answer_id)
