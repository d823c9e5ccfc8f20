"""llama-index against the server whose root URL is the argument."""

import sys
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model="mini",
    api_base=f"{sys.argv[1]}/v1",
    api_key="none",
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=16384,
    max_tokens=300,
    temperature=0,
    max_retries=0,
)
messages = [ChatMessage(role="user", content="Use 3, 5, 7 to make 22.")]


def look(side: Literal["left", "right"]) -> str:
    """Look to a side."""
    return side


whole = llm.chat(messages).message.content
assert whole
parts = list(llm.stream_chat(messages))
assert parts[-1].message.content == whole
tool = FunctionTool.from_defaults(look)
called = llm.chat_with_tools([tool], user_msg="Look.", tool_required=True, allow_parallel_tool_calls=False)
(call,) = llm.get_tool_calls_from_response(called)
assert call.tool_kwargs["side"] in ("left", "right")
*_, last = llm.stream_chat_with_tools(
    [tool], user_msg="Look.", tool_required=True, allow_parallel_tool_calls=False
)
assert llm.get_tool_calls_from_response(last)[0].tool_kwargs["side"] in ("left", "right")
plain = OpenAILike(
    model="mini", api_base=f"{sys.argv[1]}/v1", api_key="none", is_chat_model=False, max_tokens=20
)
assert plain.complete("Use 3, 5").text
print("chat, stream, tools whole and streamed, completion: passed")
