"""pydantic-ai against the server whose root URL is the argument."""

import asyncio
import sys
from typing import Literal

import anthropic
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

ROOT = sys.argv[1]
SETTINGS = ModelSettings(max_tokens=300)
OPENAI = OpenAIProvider(base_url=f"{ROOT}/v1", api_key="none")
MODELS = {
    "chat": OpenAIChatModel("mini", provider=OPENAI),
    "responses": OpenAIResponsesModel("mini", provider=OPENAI),
    "anthropic": AnthropicModel(
        "claude-sonnet-4-5",
        provider=AnthropicProvider(anthropic_client=anthropic.AsyncAnthropic(base_url=ROOT, api_key="none")),
    ),
}


class Verdict(BaseModel):
    side: Literal["left", "right"]
    sure: bool


async def check(name: str) -> None:
    model = MODELS[name]
    agent = Agent(model, model_settings=SETTINGS)
    whole = await agent.run("Use 3, 5, 7 to make 22.")
    assert whole.output
    assert whole.usage.output_tokens > 0
    async with agent.run_stream("Use 3, 5, 7 to make 22.") as stream:
        assert await stream.get_output()
    # The output is asked for as a tool call, and as a schema.
    assert isinstance(
        (await Agent(model, output_type=Verdict, model_settings=SETTINGS).run("?")).output, Verdict
    )
    native = Agent(model, output_type=NativeOutput(Verdict), model_settings=SETTINGS)
    assert isinstance((await native.run("?")).output, Verdict)
    assert await status_of_a_long_prompt(agent) == 400
    print(f"{name}: passed")


async def status_of_a_long_prompt(agent: Agent) -> int:
    try:
        await agent.run("1 " * 20_000)
    except ModelHTTPError as error:
        return error.status_code
    return 200


async def main() -> None:
    for name in MODELS:
        await check(name)


asyncio.run(main())
