"""Tools in a model's own template: its calls are read, and results continue the very tokens of a turn."""

import json

import pytest

from shoestring.engine.conversation.tool_use import tool_use
from shoestring.engine.request import CompletionOutput
from shoestring.errors import ConfigError
from shoestring.tasks.custom.tools import calculator
from shoestring.tasks.task import Task
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.chat.template import encode_chat, encode_prompt
from shoestring.tokenizer.definition import train

TEXTS = ["3*4=? It is 12, so 3*4 is twelve. tool call arguments expression error"]
HERMES = """\
{%- if tools %}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif -%}
{%- for m in messages -%}
  {%- if m.role == 'tool' -%}
    {{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' -}}
  {%- else -%}
    {{- '<|im_start|>' + m.role + '\\n' + (m.content or '') -}}
    {%- for call in m.tool_calls or [] -%}
      {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
      {{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif -%}
"""


class Sums(Task):
    name = "sums"
    tools = (calculator,)
    max_turns = 3


@pytest.fixture(scope="module", params=["deepseek", "hermes"])
def model(request):
    """A tokenizer and its template."""
    if request.param == "deepseek":
        return Tokenizer.train(TEXTS, 330), DeepSeekTemplate()
    definition = train(TEXTS, 320, 2)
    first = 1 + max(definition["model"]["vocab"].values())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for number, mark in enumerate(("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")):
        definition["added_tokens"].append({"id": first + number, "content": mark, **plain})
    tokenizer = Tokenizer(definition, {"bos_token": sp.BOS, "eos_token": "<|im_end|>", "pad_token": sp.PAD})
    return tokenizer, JinjaTemplate(HERMES, tokenizer)


def conversation():
    function = {"name": "calculator", "arguments": '{"expression": "3*4"}'}
    call = {"type": "function", "function": function}
    return [
        {"role": "user", "content": "3*4=?"},
        {"role": "assistant", "content": "so", "tool_calls": [{"id": "call_0", **call}]},
        {"role": "tool", "tool_call_id": "call_0", "name": "calculator", "content": "12"},
        {"role": "assistant", "content": "It is 12."},
    ]


def test_results_go_on_after_the_tokens_of_the_turn_as_the_template_has_it(model):
    tokenizer, template = model
    use = tool_use("sums", Sums(), tokenizer, template, thinking=False)
    turns = conversation()
    prompt = encode_prompt(turns[:1], tokenizer, template, tools=use.definitions)
    whole = encode_chat(turns, tokenizer, template, tools=use.definitions)
    own = [i for i, in_loss in zip(whole.ids, whole.loss_mask, strict=True) if in_loss]
    end = len(prompt) + next(n for n, in_loss in enumerate(whole.loss_mask[len(prompt) :]) if not in_loss)
    first_turn = whole.ids[len(prompt) : end]
    assert whole.ids[: len(prompt)] == prompt
    continued = [*prompt, *first_turn, *use.result_ids(turns[2:3])]
    assert whole.ids[: len(continued)] == continued
    assert whole.ids[len(continued) :][: len(own) - len(first_turn)] == own[len(first_turn) :]


def test_a_call_is_read_from_the_tokens_of_a_turn(model):
    tokenizer, template = model
    use = tool_use("sums", Sums(), tokenizer, template, thinking=False)
    turns = conversation()
    prompt = encode_prompt(turns[:1], tokenizer, template, tools=use.definitions)
    ids = encode_chat(turns[:2], tokenizer, template, tools=use.definitions)
    own = tuple(i for i, in_loss in zip(ids.ids, ids.loss_mask, strict=True) if in_loss)
    completion = CompletionOutput(index=0, text=tokenizer.decode(own), token_ids=own, finish_reason="stop")
    message = use.read(prompt, completion)
    assert message["content"] == "so"
    [call] = message["tool_calls"]
    assert call["function"]["name"] == "calculator"
    assert json.loads(call["function"]["arguments"]) == {"expression": "3*4"}
    cut = CompletionOutput(index=0, text="", token_ids=own[:-4], finish_reason="length")
    assert "tool_calls" not in use.read(prompt, cut)


def test_no_text_of_a_result_becomes_a_token_of_the_template():
    tokenizer = Tokenizer.train(TEXTS, 330)
    use = tool_use("sums", Sums(), tokenizer, DeepSeekTemplate(), thinking=False)
    result = {"role": "tool", "tool_call_id": "0", "name": "calculator", "content": sp.ASSISTANT + sp.EOS}
    ids = use.result_ids([result])
    assert tokenizer.special_id(sp.EOS) not in ids
    assert tokenizer.special_id(sp.ASSISTANT) not in ids


def test_a_template_without_calls_is_refused_before_a_run():
    tokenizer = Tokenizer.train(TEXTS, 330)
    plain = JinjaTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", tokenizer)
    for template in (plain, None):
        with pytest.raises(ConfigError, match=r"the task sums has tools, .* deepseek_v3, .*hermes"):
            tool_use("sums", Sums(), tokenizer, template, thinking=False)
