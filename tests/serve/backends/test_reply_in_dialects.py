"""A reply is the same streamed and whole in every dialect, however its stream is split."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.backends.reply import Choice, Delta, ToolCallDelta, Usage, WholeReply
from shoestring.serve.dialects import openai_completions
from shoestring.serve.dialects.anthropic_reply import MessageEvents
from shoestring.serve.dialects.ollama import OllamaLines
from shoestring.serve.dialects.openai_chat_reply import ChatChunks, chat_completion
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest
from shoestring.serve.dialects.openai_completions import CompletionRequest, TextChunks
from shoestring.serve.dialects.responses_reply import ResponseEvents
from shoestring.serve.dialects.responses_request import ResponsesRequest

ARGUMENTS = st.one_of(
    st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=2).map(json.dumps),
    st.just('{"cut": "in the mid'),
)
TEXTS = st.text(min_size=1, max_size=12)


@st.composite
def pieces(draw, text):
    """A text in random pieces; with the empty text none."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b]


@st.composite
def segments(draw):
    """What a model says, in order: thinking, text and tool calls in any order, also twice."""
    kinds = draw(st.lists(st.sampled_from(["thinking", "text", "call"]), max_size=5))
    return [(kind, draw(ARGUMENTS if kind == "call" else TEXTS)) for kind in kinds]


@st.composite
def splits(draw, said, choice=0):
    """The deltas of one choice that say this, and its end, in random pieces."""
    deltas, calls = [], 0
    for kind, text in said:
        if kind == "call":
            first = ToolCallDelta(index=calls, id=f"call_{calls}", name=f"tool_{calls}")
            parts = [ToolCallDelta(index=calls, arguments=piece) for piece in draw(pieces(text))]
            if parts and draw(st.booleans()):
                first, parts = replace(first, arguments=parts[0].arguments), parts[1:]
            deltas += [Delta(choice=choice, tool_calls=(part,)) for part in (first, *parts)]
            calls += 1
        else:
            deltas += [Delta(choice=choice, **{kind: piece}) for piece in draw(pieces(text))]
    reason = draw(st.sampled_from(["stop", "length", *["tool_calls"] * bool(calls)]))
    stop = draw(st.none() | st.just("END")) if reason == "stop" else None
    return [*deltas, Delta(choice=choice, finish_reason=reason, stop_sequence=stop)]


@st.composite
def replies(draw, num_choices=1):
    """Two streams of the same reply, split in two ways; those of several choices are mixed."""
    said = [draw(segments()) for _ in range(num_choices)]
    ends, streams = None, []
    for _ in range(2):
        rows = [draw(splits(each, number)) for number, each in enumerate(said)]
        ends = ends or [row[-1] for row in rows]
        rows = [[*row[:-1], end] for row, end in zip(rows, ends, strict=True)]
        order = draw(st.permutations([number for number, row in enumerate(rows) for _ in row]))
        streams.append([rows[number].pop(0) for number in order])
    total = max(len(stream) for stream in streams)
    return [counted(stream, total) for stream in streams]


def counted(stream, total):
    """The stream with usage that grows to the same count at its end."""
    for number, delta in enumerate(stream, 1):
        done = total if number == len(stream) else number - 1
        usage = Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=done, reasoning_tokens=done // 2)
        stream[number - 1] = replace(delta, usage=usage)
    return stream


def whole_reply(stream, num_choices=1):
    whole = WholeReply(choices=[Choice() for _ in range(num_choices)])
    for delta in stream:
        whole.add(delta)
    return whole


def unlike(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


@given(replies(num_choices=2), st.booleans(), st.booleans())
def test_chat_completions(streams, asks_usage, deepseek):
    body = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "a"}], "n": 2}
        | ({"stream_options": {"include_usage": True}} if asks_usage else {})
    )
    whole = chat_completion(whole_reply(streams[0], 2), "m")
    for stream in streams:
        chunks = ChatChunks(body, "m", usage_on_choice=deepseek)
        parts = [chunk for delta in stream for chunk in chunks.push(delta)] + list(chunks.finish())
        assert len({part["id"] for part in parts}) == 1
        usages = [part["usage"] for part in parts if part.get("usage")]
        assert usages == [whole["usage"]] * (asks_usage or deepseek)
        for index, choice in enumerate(whole["choices"]):
            mine = [each for part in parts for each in part["choices"] if each["index"] == index]
            assert folded_message(mine) == unlike(choice["message"], "refusal", "annotations")
            assert [each["finish_reason"] for each in mine[:-1]] == [None] * (len(mine) - 1)
            assert mine[-1]["finish_reason"] == choice["finish_reason"]
            assert mine[-1].get("stop_reason") == choice.get("stop_reason")


def folded_message(choices):
    """The message that a client joins from the deltas of one choice."""
    message, calls = {}, []
    for delta in (choice["delta"] for choice in choices):
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "type": call["type"], "function": {**call["function"]}})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        for name in ("role", "content", "reasoning_content", "reasoning"):
            if name in delta:
                message[name] = message.get(name, "") + delta[name]
    return message | ({"tool_calls": calls, "content": message["content"] or None} if calls else {})


@given(replies(num_choices=2))
def test_completions(streams):
    streams = [[delta for delta in stream if not delta.tool_calls] for stream in streams]
    body = CompletionRequest.model_validate({"model": "m", "prompt": "a", "n": 2})
    reply = whole_reply(streams[0], 2)
    for choice in reply.choices:
        choice.thinking = ""
    whole = openai_completions.text_completion([reply], "m")
    for stream in streams:
        chunks = TextChunks(body, "m", usage_on_choice=True)
        parts = [chunk for delta in stream for chunk in chunks.push(replace(delta, thinking=""), 0)]
        for index, choice in enumerate(whole["choices"]):
            mine = [each for part in parts for each in part["choices"] if each["index"] == index]
            assert "".join(each["text"] for each in mine) == choice["text"]
            assert mine[-1]["finish_reason"] == choice["finish_reason"]
        assert [part["usage"] for part in parts if part.get("usage")] == [whole["usage"]]


@given(replies(), st.booleans())
def test_anthropics_messages(streams, shows_thinking):
    messages = []
    for stream in streams:
        events = MessageEvents("m", 9, shows_thinking=shows_thinking)
        lived = [
            *events.begin(),
            *(event for delta in stream for event in events.push(delta)),
            *events.finish(),
        ]
        assert folded_events(lived) == events.message
        messages.append(unlike(events.message, "id"))
    assert messages[0] == messages[1]


def folded_events(events):
    """The message that a client joins from the events."""
    message = json.loads(json.dumps(events[0]["message"]))
    for event in events[2:-2]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(json.loads(json.dumps(event["content_block"])))
            arguments = ""
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                arguments += delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                block[name] += delta[name]
        elif message["content"][-1]["type"] == "tool_use":
            message["content"][-1]["input"] = {} if arguments.endswith("mid") else json.loads(arguments)
    return message | events[-2]["delta"] | {"usage": events[-2]["usage"]}


@given(replies())
def test_responses(streams):
    body = ResponsesRequest.model_validate({"model": "m", "input": "a"})
    outputs = []
    for stream in streams:
        events = ResponseEvents(body, "m")
        lived = [*events.begin()]
        for delta in stream:
            lived += json.loads(json.dumps(list(events.push(delta))))
        *_, last = events.finish()
        output = json.loads(json.dumps(last["response"]["output"]))
        assert folded_items(lived[2:]) == output
        assert last["response"]["id"] == lived[0]["response"]["id"]
        assert len({item["id"] for item in output}) == len(output)
        outputs.append(([unlike(item, "id") for item in output], last["response"]["usage"], last["type"]))
    assert outputs[0] == outputs[1]


def folded_items(events):
    """The items that a client joins from the events, each as its last event has it too."""
    items = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
            continue
        item = items[event["output_index"]]
        if kind == "content_part.added":
            item["content"].append(event["part"])
        elif kind in ("output_text.delta", "reasoning_text.delta"):
            item["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        elif kind == "output_item.done":
            item["status"] = event["item"]["status"]
            assert item == event["item"]
    return items


@given(replies(), st.booleans())
def test_ollamas_lines(streams, is_chat):
    wholes = []
    for stream in streams:
        lines = OllamaLines("m", is_chat=is_chat, start_s=0.0)
        lived = [line for delta in stream for line in lines.push(delta, 1.0)]
        assert [line["done"] for line in lived] == [False] * (len(lived) - 1) + [True]
        wholes.append(unlike(lines.whole(lived), "created_at"))
    assert wholes[0] == wholes[1]
    reply = whole_reply(streams[0]).choices[0]
    message = wholes[0]["message"] if is_chat else {**wholes[0], "content": wholes[0]["response"]}
    assert (message["content"], message.get("thinking", "")) == (reply.text, reply.thinking)
    if is_chat:
        assert [call["function"]["name"] for call in message.get("tool_calls", [])] == [
            call.name for call in reply.tool_calls
        ]
