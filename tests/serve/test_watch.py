import asyncio
import time

import pytest
from fastapi import FastAPI

from shoestring.serve.backends.reply import Delta, Usage, Work, fold
from shoestring.serve.watch import NO_ROUTE, Watch, watched


async def reply():
    yield Delta(text="a", usage=Usage(completion_tokens=1))
    yield Delta(text="b", usage=Usage(completion_tokens=2))


async def start():
    return reply()


WORK = Work(model="m", prompt_tokens=3, max_tokens=9, start=start)


def course_of(endpoint, path="/items/7"):
    """The course of a GET for which `endpoint` answers."""
    app, courses = FastAPI(), []
    app.get("/items/{number}")(endpoint)

    async def main():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            pass

        headers = [(b"traceparent", b"00-1-2-01")]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
        await Watch(app, [courses.append])({**scope, "request_id": "req_1"}, receive, send)

    asyncio.run(main())
    return courses[0]


def test_a_request_has_its_times_in_order():
    async def answer(number: int):
        return (await fold(await watched(WORK).start(), 1)).choices[0].text

    before = time.time()
    course = course_of(answer)
    assert before <= course.begin_s <= course.work_s <= course.first_token_s <= course.end_s <= time.time()
    assert (course.route, course.status, course.model) == ("/items/{number}", 200, "m")
    assert (course.request_id, course.trace) == ("req_1", "00-1-2-01")
    assert course.usage.completion_tokens == 2


def test_a_path_that_nobody_has_is_not_kept():
    course = course_of(lambda number: number, path="/secret-path")
    assert (course.route, course.status, course.work_s) == (NO_ROUTE, 404, None)


def test_a_request_that_fails_is_seen():
    courses = []

    async def fail(scope, receive, send):
        raise ValueError("own")

    async def main():
        await Watch(fail, [courses.append])({"type": "http", "headers": []}, None, None)

    with pytest.raises(ValueError, match="own"):
        asyncio.run(main())
    assert courses[0].status == 499


@pytest.mark.parametrize("num_taken", [0, 1])
def test_closing_watched_deltas_closes_the_models(num_taken):
    closed = []

    async def endless():
        try:
            while True:
                yield Delta(text="a")
        finally:
            closed.append(True)

    async def begin():
        deltas = endless()
        await anext(deltas)
        return deltas

    async def answer(number: int):
        deltas = await watched(Work(model="m", prompt_tokens=1, max_tokens=1, start=begin)).start()
        for _ in range(num_taken):
            await anext(deltas)
        await deltas.aclose()

    course = course_of(answer)
    assert closed == [True]
    assert (course.first_token_s is None) == (num_taken == 0)


def test_work_outside_a_request_is_as_it_was():
    assert watched(WORK) is WORK
