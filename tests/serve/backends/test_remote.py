import asyncio
import json
import socket
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.backends.remote import RemoteBackend, ServerGone, StreamReader
from shoestring.serve.backends.reply import fold
from shoestring.serve.backends.request import ChatRequest, TextRequest

CARD = ModelCard(id="far", max_model_len=512, created_s=0)
SUM = ({"role": "user", "content": "Use 3, 5, 7 to make 22."},)
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


def chat(**fields):
    sampling = {"temperature": 0, "max_tokens": 60, **fields.pop("sampling", {})}
    return ChatRequest(messages=SUM, sampling=SamplingParams(**sampling), **fields)


def run(address, work, **options):
    async def main():
        host, port = address[:2]
        backend = RemoteBackend(CARD, f"http://{host}:{port}/v1", model="mini", **options)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(main())


REQUESTS = [
    chat(),
    chat(thinking=True),
    chat(sampling={"n": 2, "stop": ["="]}),
    chat(sampling={"max_tokens": 3, "logprobs": 2}),
    chat(tools=(LOOK,), tool_choice="look"),
    chat(sampling={"structured_outputs": StructuredOutputsParams(json={"enum": ["yes", "no"]})}),
    TextRequest(prompt="2+3=", sampling=SamplingParams(temperature=0, max_tokens=8)),
]


def without_id(entry):
    """A token without its id, which a server does not tell."""
    return replace(entry, token_id=None, top=tuple(replace(other, token_id=None) for other in entry.top))


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_far_model_answers_as_the_same_model_here(served, new_engine, request_):
    async def ask(backend):
        work = await backend.prepare(request_)
        whole = await fold(await work.start(), request_.sampling.n)
        assert whole.usage.prompt_tokens <= work.prompt_tokens
        assert whole.usage.completion_tokens <= work.max_tokens
        return whole

    async def ask_here():
        backend = LocalBackend("mini", new_engine(), Checkpoint.open(resolve("mini")).template)
        backend.start()
        try:
            return await ask(backend)
        finally:
            await backend.close()

    def comparable(whole):
        choices = [
            replace(
                choice,
                tool_calls=[(c.name, c.arguments) for c in choice.tool_calls],
                logprobs=[without_id(entry) for entry in choice.logprobs],
            )
            for choice in whole.choices
        ]
        return choices, replace(whole.usage, cached_tokens=0)

    assert comparable(run(served[0], ask)) == comparable(asyncio.run(ask_here()))


def test_refusals_keep_their_meaning_and_hide_the_key(served):
    address, _ = served

    async def too_long(backend):
        messages = ({"role": "user", "content": "1 " * 600},)
        work = await backend.prepare(ChatRequest(messages=messages, sampling=SamplingParams()))
        await work.start()

    with pytest.raises(RequestError, match="maximum context length") as caught:
        run(address, too_long, key="secret-key")
    assert caught.value.kind == "invalid"
    assert "secret-key" not in str(caught.value)


def test_a_server_that_is_gone_is_overload():
    async def ask(backend):
        with pytest.raises(ServerGone) as caught:
            await (await backend.prepare(chat())).start()
        assert caught.value.kind == "overloaded"

    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    run(address, ask)


def answering(reply: bytes):
    """A server that sends `reply` to its first request and then hangs up: its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        with suppress(ConnectionError):  # a client that has read enough leaves
            connection.sendall(reply)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        connection.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n', "ended before"),
        (b'data: {"error": {"message": "secret"}}\n\ndata: [DONE]\n\n', "failed on the way"),
        (b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1}]}}]}\n\n', "not in order"),
        (b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": -1}]}}]}\n\n', "not in order"),
        (b"data: {nonsense\n\n", "no JSON"),
        (b"data: " + b"x" * (1 << 21), "without end"),
    ],
)
def test_a_reply_that_breaks_off_is_an_error(body, words):
    async def ask(backend):
        work = await backend.prepare(chat())
        await fold(await work.start(), 1)

    with pytest.raises(RequestError, match=words):
        run(answering(HEAD + body), ask)


@pytest.mark.parametrize(
    "chunks",
    [
        [
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 8},
                },
            }
        ],
        [
            {
                "choices": [],
                "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 8},
            }
        ],
    ],
)
def test_usage_is_read_from_any_chunk(chunks):
    """As OpenAI sends it, on a chunk without a choice; as DeepSeek does, on the last choice."""
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    text = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]}
    for stream in ([text, end, *chunks], [text, {**end, "usage": chunks[0]["usage"]}]):
        reader = StreamReader(1)
        deltas = [delta for chunk in json.loads(json.dumps(stream)) for delta in reader.push(chunk)]
        (last,) = reader.finish()
        assert [delta.text for delta in deltas] == ["hi"]
        assert (last.finish_reason, last.text) == ("stop", "")
        assert (last.usage.prompt_tokens, last.usage.cached_tokens, last.usage.completion_tokens) == (9, 8, 4)
