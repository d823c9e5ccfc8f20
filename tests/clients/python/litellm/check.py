"""LiteLLM against the server whose root URL is the argument."""

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would look for prices on the internet

import litellm

ROOT = sys.argv[1]
OPENAI = {"model": "openai/mini", "api_base": f"{ROOT}/v1", "api_key": "none"}
DEEPSEEK = {"model": "deepseek/deepseek-reasoner", "api_base": f"{ROOT}/beta", "api_key": "none"}
ANTHROPIC = {"model": "anthropic/claude-sonnet-4-5", "api_base": ROOT, "api_key": "none"}
SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
LOOK = {
    "type": "object",
    "properties": {"x": {"type": "string", "enum": ["left", "right"]}},
    "required": ["x"],
    "additionalProperties": False,
}
TOOLS = {
    "tools": [{"type": "function", "function": {"name": "look", "parameters": LOOK}}],
    "tool_choice": "required",
}

for name, way in (("openai", OPENAI), ("deepseek", DEEPSEEK), ("anthropic", ANTHROPIC)):
    ask = {**way, "messages": SUM, "max_tokens": 200, "num_retries": 0}
    whole = litellm.completion(**ask)
    assert whole.choices[0].finish_reason == "stop", whole
    chunks = list(litellm.completion(**ask, stream=True, stream_options={"include_usage": True}))
    rebuilt = litellm.stream_chunk_builder(chunks, messages=SUM)
    assert rebuilt.choices[0].message.content, rebuilt
    assert rebuilt.usage.completion_tokens > 0
    assert rebuilt.usage.prompt_tokens == whole.usage.prompt_tokens, (rebuilt.usage, whole.usage)
    call = litellm.completion(**ask, **TOOLS).choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments)["x"] in ("left", "right")
    try:
        litellm.completion(**{**ask, "messages": [{"role": "user", "content": "1 " * 20_000}]})
    except litellm.ContextWindowExceededError:
        pass
    else:
        raise AssertionError("a prompt that is too long is an error")
    print(f"{name}: passed")

reply = litellm.completion(**OPENAI, messages=SUM, max_tokens=200, reasoning_effort="high", drop_params=True)
assert reply.choices[0].message.reasoning_content
answer = litellm.responses(
    model="openai/mini", input="Hi", api_base=f"{ROOT}/v1", api_key="none", max_output_tokens=50
)
assert answer.status in ("completed", "incomplete")
message = asyncio.run(litellm.anthropic.messages.acreate(**ANTHROPIC, messages=SUM, max_tokens=50))
assert message["type"] == "message"
print("reasoning, responses and messages: passed")
