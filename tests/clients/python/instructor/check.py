"""instructor against the server whose root URL is the argument: models of pydantic out of four modes."""

import sys
from typing import Literal

import instructor
import openai
from pydantic import BaseModel


class Verdict(BaseModel):
    side: Literal["left", "right"]
    sure: bool


MESSAGES = [{"role": "user", "content": "Left or right?"}]
ASK = {"model": "mini", "messages": MESSAGES, "max_tokens": 300, "response_model": Verdict, "max_retries": 0}
client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none")

for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    verdict = instructor.from_openai(client, mode=mode).chat.completions.create(**ASK)
    assert verdict.side in ("left", "right")
    print(f"{mode}: passed")

parts = list(
    instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(**ASK)
)
assert parts[-1].side in ("left", "right")
print("partial objects of a stream: passed")
