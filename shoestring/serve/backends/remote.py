"""A model on another server that speaks OpenAI's API: vLLM, SGLang, llama.cpp."""

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx2

from shoestring.remote.wire import read_refusal, retry_after_s
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.errors import Kind, RequestError
from shoestring.serve.backends.reply import Delta, FinishReason, TokenLogprob, ToolCallDelta, Usage, Work
from shoestring.serve.backends.request import BackendRequest, ChatRequest, TextRequest

MAX_LINE_BYTES = 1 << 20
MAX_ERROR_BYTES = 1 << 16
CONNECT_S = 3.0
KEEP_ALIVE_S = 2.0
"""Seconds that a connection waits for its next request: less than any server waits, which would close it."""
SILENCE_S = 300.0
"""Seconds between two events of a stream, comments included, after which the server counts as gone."""
TEMPLATE_TOKENS = 256
"""The most tokens that a server's chat template adds to a prompt."""
FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
KINDS: dict[int, Kind] = {
    400: "invalid",
    404: "not_found",
    413: "too_large",
    422: "invalid",
    429: "rate_limit",
}
"""Refusals that are the sender's fault, by status; any other is the server's."""


class ServerGone(RequestError):
    """A server that cannot be reached, broke off or fell silent; its sentence is for the request's sender."""

    def __init__(self, message: str) -> None:
        super().__init__("overloaded", message, retry_after_s=1)


class RemoteBackend:
    """A model on one other server. Use it on one event loop."""

    def __init__(
        self,
        card: ModelCard,
        url: str,
        *,
        model: str,
        key: str = "",
    ) -> None:
        """`url` ends before `/chat/completions`; `model` is the name there; `card` is the name here."""
        self._card, self._url, self._model, self._key = card, url.rstrip("/"), model, key
        timeout = httpx2.Timeout(connect=CONNECT_S, read=SILENCE_S, write=SILENCE_S, pool=CONNECT_S)
        limits = httpx2.Limits(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEEP_ALIVE_S
        )
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    @property
    def card(self) -> ModelCard:
        return self._card

    async def close(self) -> None:
        await self._client.aclose()

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        body = self._body(request)
        names = ("model", "messages", "prompt", "tools")
        fields: dict[str, Any] = {name: body[name] for name in names if name in body}
        reply = await self._post("/tokenize", fields)
        return tuple(int(token_id) for token_id in reply.get("tokens", ()))

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        reply = await self._post("/detokenize", {"model": self._model, "tokens": list(token_ids)})
        return str(reply.get("prompt", reply.get("content", "")))

    async def prepare(self, request: BackendRequest) -> Work:
        body = {**self._body(request), "stream": True, "stream_options": {"include_usage": True}}
        path = "/chat/completions" if isinstance(request, ChatRequest) else "/completions"
        sent = self._client.build_request("POST", self._url + path, json=body, headers=self._headers)
        n = request.sampling.n

        async def start() -> AsyncGenerator[Delta]:
            response = await self._send(sent)
            if response.status_code != 200:
                raise await self._refusal(response)
            deltas = self._deltas(response, n)
            await anext(deltas)  # closing one that has not begun would leave the connection open
            return deltas

        return Work(
            model=self._card.id,
            prompt_tokens=min(len(sent.content) + TEMPLATE_TOKENS, self._card.max_model_len),
            max_tokens=n * (request.sampling.max_tokens or self._card.max_model_len),
            start=start,
        )

    async def _deltas(self, response: httpx2.Response, n: int) -> AsyncGenerator[Delta]:
        """An empty delta, and those of a stream; one with a finish reason stands alone, usage at the end."""
        reader = StreamReader(n)
        try:
            yield Delta()
            async for data in _events(response):
                for delta in reader.push(data):
                    yield delta
            for delta in reader.finish():
                yield delta
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise ServerGone(f"the model's server broke off ({type(error).__name__})") from None
        finally:
            await response.aclose()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._client.send(request, stream=True)
        except (httpx2.HTTPError, OSError) as error:
            raise ServerGone(f"the model's server does not answer ({type(error).__name__})") from None

    async def _post(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A whole reply of an endpoint beside the base URL."""
        url = self._url.removesuffix("/v1") + path
        request = self._client.build_request("POST", url, json=dict(fields), headers=self._headers)
        response = await self._send(request)
        if response.status_code != 200:
            raise await self._refusal(response)
        try:
            reply = json.loads(await response.aread())
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise RequestError("failed", "the model's server sent no JSON object")
        return reply

    async def _refusal(self, response: httpx2.Response) -> RequestError:
        """The error for a status other than 200. Faults of our own key are not the sender's to know."""
        async with aclosing(response.aiter_bytes()) as parts:
            content = b""
            async for part in parts:
                content += part
                if len(content) > MAX_ERROR_BYTES:
                    break
        await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        kind = KINDS.get(response.status_code, "overloaded")
        if kind == "overloaded":
            return RequestError(kind, "the model's server refused", retry_after_s=retry_after_s(headers) or 1)
        message = str(read_refusal(response.status_code, headers, content)).partition(": ")[2]
        if self._key:
            message = message.replace(self._key, "***")
        return RequestError(kind, message, retry_after_s=retry_after_s(headers) or None)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _body(self, request: BackendRequest) -> dict[str, Any]:
        fields = {"model": self._model, **sampling_fields(request.sampling)}
        if isinstance(request, TextRequest):
            prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
            if "logprobs" in fields:
                fields["logprobs"] = fields.pop("top_logprobs")
            gap = {"suffix": request.suffix} if request.suffix else {}
            echo = {"echo": True} if request.echo else {}
            return {**fields, "prompt": prompt, **gap, **echo}
        return {**fields, **chat_fields(request)}


class StreamReader:
    """The chunks of a stream as deltas."""

    def __init__(self, n: int) -> None:
        self._usage = Usage()
        self._ends: dict[int, tuple[FinishReason, str | None]] = {}
        self._num_calls = [0] * n

    def push(self, chunk: Mapping[str, Any]) -> list[Delta]:
        """The deltas of a chunk. Raises RequestError for an error that the server sends as an event."""
        if isinstance(chunk.get("error"), Mapping):
            raise RequestError("overloaded", "the model's server failed on the way")
        if isinstance(chunk.get("usage"), Mapping):
            self._usage = read_usage(chunk["usage"])
        deltas = []
        for choice in chunk.get("choices") or ():
            index = choice.get("index", 0)
            if not 0 <= index < len(self._num_calls):
                continue
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                stop = choice.get("stop_reason")  # vLLM's name for the stop string
                end = FINISH_REASONS.get(reason, "stop"), stop if isinstance(stop, str) else None
                self._ends[index] = end
            delta = self._delta(index, choice)
            if delta.text or delta.thinking or delta.tool_calls:
                deltas.append(delta)
        return deltas

    def finish(self) -> list[Delta]:
        """The ends of the choices. Raises RequestError when the stream ended before them."""
        if len(self._ends) < len(self._num_calls):
            raise ServerGone("the model's server ended before its reply did")
        return [
            Delta(choice=index, finish_reason=reason, stop_sequence=stop, usage=self._usage)
            for index, (reason, stop) in sorted(self._ends.items())
        ]

    def _delta(self, index: int, choice: Mapping[str, Any]) -> Delta:
        fields = choice.get("delta") or choice
        thinking = fields.get("reasoning_content") or fields.get("reasoning") or ""
        text = fields.get("content") or fields.get("text") or ""
        calls = tuple(self._call(index, call) for call in fields.get("tool_calls") or ())
        if text or thinking or calls:  # counted until the server says what it was
            tokens = self._usage.completion_tokens + 1
            self._usage = replace(self._usage, completion_tokens=tokens)
        return Delta(
            choice=index,
            thinking=str(thinking),
            text=str(text),
            tool_calls=calls,
            logprobs=tuple(_logprobs(choice.get("logprobs"))),
            usage=self._usage,
        )

    def _call(self, choice: int, call: Mapping[str, Any]) -> ToolCallDelta:
        function, index = call.get("function") or {}, int(call.get("index", 0))
        num_calls = self._num_calls[choice]
        if index < 0 or index not in (num_calls - 1, num_calls):
            raise RequestError("failed", "the server's tool calls are not in order")
        is_new = index == num_calls
        self._num_calls[choice] += is_new
        return ToolCallDelta(
            index=index,
            id=str(call.get("id") or f"call_{secrets.token_hex(12)}") if is_new else "",
            name=str(function.get("name") or "") if is_new else "",
            arguments=str(function.get("arguments") or ""),
        )


def read_usage(fields: Mapping[str, Any]) -> Usage:
    """A server's usage; cached tokens in OpenAI's field or in DeepSeek's."""

    def number(value: Any) -> int:
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0

    prompt = fields.get("prompt_tokens_details") or {}
    completion = fields.get("completion_tokens_details") or {}
    hit = prompt.get("cached_tokens", fields.get("prompt_cache_hit_tokens"))
    total = number(fields.get("prompt_tokens"))
    return Usage(
        prompt_tokens=total,
        cached_tokens=min(number(hit), total),
        completion_tokens=number(fields.get("completion_tokens")),
        reasoning_tokens=number(completion.get("reasoning_tokens")),
    )


def sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    """Sampling in the fields of OpenAI's API and vLLM's; what is at its default is left out."""
    default = SamplingParams(max_tokens=None)
    names = (
        *("n", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed"),
        *("repetition_penalty", "max_tokens", "min_tokens", "stop", "logit_bias", "ignore_eos"),
    )
    values = {name: getattr(sampling, name) for name in names}
    fields = {name: value for name, value in values.items() if value != getattr(default, name)}
    if sampling.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return fields


def chat_fields(request: ChatRequest) -> dict[str, Any]:
    """A conversation in the fields of chat completions."""
    fields: dict[str, Any] = {"messages": [dict(message) for message in request.messages]}
    if request.tools:
        fields |= {"tools": [dict(tool) for tool in request.tools], "tool_choice": _choice(request)}
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    variables = dict(request.template_variables)
    if request.thinking is not None:
        variables |= {"thinking": request.thinking, "enable_thinking": request.thinking}
    if variables:
        fields["chat_template_kwargs"] = variables
    if request.continue_final_message:
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    form = request.sampling.structured_outputs
    if form is not None and form.json_object:
        fields["response_format"] = {"type": "json_object"}
    elif form is not None and form.json is not None:
        schema = json.loads(form.json) if isinstance(form.json, str) else dict(form.json)
        json_schema = {"name": "reply", "schema": schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return fields


def _logprobs(fields: Any) -> Iterator[TokenLogprob]:
    """Logprobs of a chunk, as chat completions have them; those of completions have too little to be read."""
    for name in ("reasoning_content", "content"):
        for entry in (fields or {}).get(name) or ():
            top = tuple(_logprob(other) for other in entry.get("top_logprobs") or ())
            yield replace(_logprob(entry), top=top, is_thinking=name != "content")


def _logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    token = str(entry.get("token", ""))
    data = bytes(entry["bytes"]) if entry.get("bytes") else token.encode()
    return TokenLogprob(token=token, token_bytes=data, logprob=float(entry.get("logprob", 0.0)))


def _choice(request: ChatRequest) -> Any:
    if request.tool_choice in ("auto", "none", "required"):
        return request.tool_choice
    return {"type": "function", "function": {"name": request.tool_choice}}


async def _events(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """The data of a stream's events up to [DONE]. Raises RequestError for a line without end."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise RequestError("failed", "the model's server sends a line without end")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or not data:
                continue
            if data == b"[DONE]":
                return
            try:
                event = json.loads(data)
            except ValueError:
                raise RequestError("failed", "the model's server sent an event that is no JSON") from None
            if isinstance(event, dict):
                yield event
