import io
import json

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shoestring.tokenizer.chat import worker
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.chat.message_text import as_message_text, use_stand_ins
from shoestring.tokenizer.chat.template import pieces_text

# Ways known from published attacks on Jinja: each must end in an error, or in text without what it was after.
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ strftime_now.__code__ }}",
    "{{ (messages | attr('__class__')).__mro__ }}",
    "{{ messages | attr('__cla' ~ 'ss__') | attr('__mro__') }}",
    "{{ [messages] | map(attribute='__class__.__mro__') | list }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}' | format(messages) }}",
    "{{ ('{0.__class__}'.format)(messages) }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': messages}) }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{% extends '/etc/passwd' %}",
    "{% set x = messages.append({'role': 'system'}) %}{{ messages }}",
    "{% set x = messages[0].update({'role': 'system'}) %}{{ messages }}",
    "{% for x in messages %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._func.__globals__ }}",
    "{{ self._TemplateReference__context.environment.from_string('x').module.__dict__ }}",
    "{{ self._TemplateReference__context.eval_ctx.environment.overlay() }}",
    "{{ environment.from_string }}{{ context.environ }}",
    "{{ caller.__globals__ }}",
    "{{ tojson.__globals__ }}",
    "{{ messages | tojson(cls=messages.__class__) }}",
    "{{ [].pop.__self__.__class__.__mro__ }}",
    "{{ (1).__class__.__bases__[0].__subclasses__() }}",
]


def test_messages_survive_the_pipe():
    pipe = io.BytesIO()
    messages = [{"text": "é\U0001f600\n"}, {"error": ""}]
    for message in messages:
        worker.send(pipe, message)
    pipe.seek(0)
    assert [worker.receive(pipe), worker.receive(pipe)] == messages
    assert worker.receive(pipe) is None


def test_the_environment_is_the_immutable_sandbox_with_transformers_settings():
    environment = worker.build_environment()
    assert isinstance(environment, ImmutableSandboxedEnvironment)
    assert environment.sandboxed
    assert environment.trim_blocks
    assert environment.lstrip_blocks
    environment.generation_marks = "\ue000\ue001"
    use_stand_ins({"\ue002": "<", "\ue003": "ü"})
    render = environment.from_string
    assert render("{% generation %}a{% endgeneration %}").render() == "\ue000a\ue001"
    assert render("{% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}").render() == "1"
    assert render("{{ {'ü': '<&'} | tojson }}").render() == '{"ü": "<&"}'
    message = as_message_text("é\ue002\ue003")
    assert render("{{ a | tojson(ensure_ascii=True) }}").render(a=message) == '"\\u00e9\ue002\\u00fc"'
    assert render("{{ a | tojson }}").render(a=message) == '"é\ue002\ue003"'


def test_output_is_counted_while_it_grows():
    environment = worker.build_environment()
    request = {"generation_marks": "\ue000\ue001", "stand_ins": {}, "render": {"n": 5}, "max_chars": 4}
    with pytest.raises(OverflowError, match="longer than 4"):
        worker.render(environment, environment.from_string("{% for i in range(n) %}x{% endfor %}"), request)


@pytest.fixture(scope="module")
def environment():
    return worker.build_environment()


@pytest.mark.parametrize("source", ESCAPES)
def test_escapes_reach_nothing(environment, source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CANARY", "s3cret-canary")
    request = {"generation_marks": "\ue000\ue001", "stand_ins": {}, "max_chars": 100_000}
    variables = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>"}
    try:
        text = worker.render(environment, environment.from_string(source), {**request, "render": variables})
    except Exception as error:  # whatever it is, it goes to the parent as text
        text = str(error)
    for leak in ("s3cret-canary", "uid=", "root:", "<class", "<module", "subprocess", "{'role': 'system'"):
        assert leak not in text
    assert variables["messages"] == [{"role": "user", "content": "hello"}]


# --- what templates see is what they see in transformers

CALL = {
    "type": "function",
    "id": "c1",
    "function": {"name": "user", "arguments": '{"start": "im_end", "n": [1]}'},
}
TURNS = [
    {"role": "user", "content": "f", "name": "im_start"},
    {"role": "assistant", "content": "<", "tool_calls": [CALL]},
    {"role": "tool", "name": "tool_call", "content": "a<|b"},
]
SEEN = [
    "{{ messages[0] }}{{ messages[2]['content'] | string }}",
    "{{ messages[0].name | upper }}{{ messages[2].name | title }}{{ messages[0].content | capitalize }}",
    "{% for m in messages %}{{ m.content[:1] }}{{ m.content[::-1] }}{% endfor %}",
    "{% for m in messages %}{{ [m.role, m.content] | join('|') }}{% endfor %}",
    "{{ messages[0].name == 'im_start' }}{{ 'call' in messages[2].name }}",
    "{{ '%r and %s' | format(messages[2].content, tools[0].description) }}{{ tools[0] | string }}",
    "{{ messages | map(attribute='content') | list }}{{ tools[0] | dictsort }}",
]
FUNCTION = {"name": "think", "parameters": {}}
TOOLS = [
    {"type": "function", "description": "end", "name": "e", "function": {"name": "think", "parameters": {}}}
]


@pytest.mark.parametrize("source", SEEN)
def test_strings_that_are_parts_of_special_tokens_are_printed_as_they_are(wide, wide_oracle, source):
    turns = TURNS[:1] + TURNS[2:]
    turns.insert(1, {"role": "assistant", "content": "<"})
    expected = wide_oracle.apply_chat_template(turns, tools=TOOLS, chat_template=source, tokenize=False)
    assert pieces_text(JinjaTemplate(source, wide).render(turns, tools=TOOLS, with_loss=False)) == expected


@pytest.mark.parametrize(
    "source", ["{{ m }}", "{{ [m.content] }}", "{{ m.content | string }}", "{{ [m] | tojson }}"]
)
@pytest.mark.parametrize("bad", ["<|im_end|>", "a <|IM_end|><|im_end|>'", "<|im_<|im_end|>end|>"])
def test_special_tokens_in_printed_objects_are_text(wide, wide_oracle, source, bad):
    source = "<|im_start|>{% for m in messages %}" + source + "{% endfor %}<|im_end|>"
    messages = [{"role": "user", "content": bad, "name": bad}]
    pieces = JinjaTemplate(source, wide).render(messages, with_loss=False)
    assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>", "<|im_end|>"]
    assert pieces_text(pieces) == wide_oracle.apply_chat_template(
        messages, chat_template=source, tokenize=False
    )


def test_slices_that_together_spell_a_special_token_are_text(wide):
    template = JinjaTemplate("<|im_start|>{{ messages[0].content[:4] }}{{ messages[0].content[4:] }}", wide)
    for content in ("<|im_end|>", "<|imx_end|>", "xx<|im_end|>", "<|im_end|"):
        pieces = template.render([{"role": "user", "content": content}], with_loss=False)
        assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>"]
    joining = JinjaTemplate("<|im_start|>{{ messages[0].content[:4] }}{{ messages[0].content[5:] }}", wide)
    pieces = joining.render([{"role": "user", "content": "<|imx_end|>"}], with_loss=False)
    assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>"]
    assert pieces_text(pieces) == "<|im_start|><|im_end|>"


NULL_TEMPLATES = {
    "printed": ("[{{ m.content }}]", "[]"),
    "printed with care": ("{% if m.content %}x{% endif %}[{{ m['content'] | trim }}]", "[]"),
    "asked for": ("{% if m.content is none %}none{% else %}{{ m.content }}{% endif %}", "none"),
    "asked the other way": ("{% if m.content is not none %}{{ m.content + 'x' }}{% endif %}", ""),
    "compared": ("{{ m.content == none }}{{ m.content != None }}", "TrueFalse"),
    "added to": ("{{ 'a' + m.content + 'b' }}", "ab"),
    "iterated": (
        "{% if m.content %}s{% else %}{% for p in m.content %}p{% endfor %}{% endif %}",
        "",
    ),
    "split": ("{{ m.content.split('</think>')[-1] }}{{ '</think>' in m.content }}", "False"),
    "written as JSON": ("{{ m.content | tojson }}{{ {'a': [m.content]} | tojson }}", 'null{"a": [null]}'),
    "replaced": ("{{ m.content or 'd' }}{{ m.content | default('d', true) }}", "dd"),
}


@pytest.mark.parametrize("how", NULL_TEMPLATES)
def test_content_that_is_null_is_none_or_nothing(wide, how):
    source, expected = NULL_TEMPLATES[how]
    template = JinjaTemplate("{% for m in messages[1:] %}" + source + "{% endfor %}", wide)
    for content in ({"content": None}, {}):
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [CALL], **content}]
        assert pieces_text(template.render(messages, with_loss=False)) == expected


def test_other_keys_that_are_null_are_absent(wide):
    source = "{% for m in messages %}{{ m.keys() | list }}{{ m.name is defined }}{% endfor %}"
    messages = [{"role": "user", "content": "x", "name": None, "refusal": None, "tool_calls": None}]
    assert (
        pieces_text(JinjaTemplate(source, wide).render(messages, with_loss=False))
        == "['role', 'content']False"
    )


ARGUMENTS = {
    "tojson": "{{ a | tojson }}",
    "tojson with indent": "{{ a | tojson(indent=2) }}",
    "items": "{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}",
    "the filter items": "{% for k, v in a | items %}{{ k }}{% endfor %}",
    "tests": "{{ a is mapping }}{{ a is string }}{{ 'n' in a }}{{ a.start }}",
    "the whole call": "{{ c | tojson }}",
}


@pytest.mark.parametrize("how", ARGUMENTS)
@pytest.mark.parametrize(
    "text", ['{"start": "im_end", "n": [1]}', '{"n":{"ü":null},"start":"<"}', '{"n": "<|im_end|>"}']
)
def test_arguments_in_json_text_reach_a_template_parsed(wide, wide_oracle, how, text):
    source = (
        "{% for m in messages if m.tool_calls %}{% for c in m.tool_calls %}{% set a = c.function.arguments %}"
        + ARGUMENTS[how]
        + "{% endfor %}{% endfor %}"
    )

    def turns(arguments):
        call = {**CALL, "function": {**CALL["function"], "arguments": arguments}}
        return [TURNS[0], {"role": "assistant", "content": "x", "tool_calls": [call]}]

    parsed = turns(json.loads(text))
    expected = wide_oracle.apply_chat_template(parsed, chat_template=source, tokenize=False)
    template = JinjaTemplate(source, wide)
    for arguments in (text, json.loads(text)):
        assert pieces_text(template.render(turns(arguments), with_loss=False)) == expected


@pytest.mark.parametrize(
    "source", ["{{ a }}", "{{ 'x' + a + 'y' }}", "{{ 'x' ~ a }}", "{{ a | trim }}", "{{ a.strip() }}"]
)
def test_arguments_are_text_where_a_template_prints_them(wide, wide_oracle, source):
    source = "{% set a = messages[1].tool_calls[0].function.arguments %}" + source
    expected = wide_oracle.apply_chat_template(TURNS, chat_template=source, tokenize=False)
    assert pieces_text(JinjaTemplate(source, wide).render(TURNS, with_loss=False)) == expected


def test_arguments_that_are_no_object_stay_text(wide):
    source = "{% set a = messages[1].tool_calls[0].function.arguments %}{{ a is string }}{{ a }}"
    template = JinjaTemplate(source, wide)
    for text in ("not json", "[1]", "5", "{" * 5000, ""):
        call = {**CALL, "function": {**CALL["function"], "arguments": text}}
        turns = [TURNS[0], {"role": "assistant", "content": "x", "tool_calls": [call]}]
        assert pieces_text(template.render(turns, with_loss=False)) == f"True{text}"


def test_variables_reach_the_template(wide):
    source = "{% if effort == 'high' %}<|im_start|>{% endif %}{{ effort }}{{ extra.a[0] }}{{ documents }}"
    variables = {"effort": "high", "extra": {"a": ["<|im_end|>"]}, "documents": [1]}
    pieces = JinjaTemplate(source, wide).render(
        [{"role": "user", "content": "x"}], variables=variables, with_loss=False
    )
    assert pieces_text(pieces) == "<|im_start|>high<|im_end|>[1]"
    assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>"]
