from typing import Literal

from shoestring import LLM, SamplingParams


def get_weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C"):
    """
    Get the weather of a city.

    Args:
        city: Its name.
        days: How many days
            ahead.
    """
    return {"city": city}


llm = LLM(model="mini")
messages = [{"role": "user", "content": "What is the weather in Paris?"}]
outputs = llm.chat(messages, sampling_params=SamplingParams(temperature=0, max_tokens=4), tools=[get_weather])
prompt = llm.get_tokenizer().apply_chat_template(
    messages, tools=[get_weather], tokenize=False, add_generation_prompt=True
)
messages.append({"role": "assistant", "tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
]})  # fmt: skip
messages.append({"role": "tool", "content": str(get_weather("Paris")), "tool_call_id": "1"})
answers = llm.chat(messages, SamplingParams(temperature=0, max_tokens=4), tools=[get_weather])
