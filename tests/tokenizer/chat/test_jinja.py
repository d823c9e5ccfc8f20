import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import TokenizerError
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat import worker
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.chat.template import Piece, encode_chat, encode_pieces, encode_prompt, pieces_text

SPELLINGS = [
    *sp.SPECIAL_TOKENS,
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_header_id|>",
    "<tool_call>",
]

CHATML = """\
{%- if messages[0].role != 'system' -%}
<|im_start|>system
You help.<|im_end|>
{% endif -%}
{%- for m in messages %}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""

CHATML_MARKED = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' -%}
{%- generation -%}{{- m.content + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}{{- m.content + '<|im_end|>' -}}{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif -%}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string }}
{{- "\\n\\n" + system + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not message.tool_calls %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}
        {{- '<|eot_id|>' }}
    {%- else %}
        {%- for call in message.tool_calls %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
            {{- '{"name": "' + call.function.name + '", ' }}
            {{- '"parameters": ' + (call.function.arguments | tojson) + '}' }}
            {{- '<|eot_id|>' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if tools %}{{- '# tools ' + tools | tojson(indent=2) }}{% endif %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif -%}"""

R1 = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
{% set ns = namespace(system='') %}\
{%- for m in messages %}{%- if m['role'] == 'system' %}{% set ns.system = m['content'] %}{%- endif %}\
{%- endfor %}\
{{ bos_token }}{{ ns.system }}\
{%- for m in messages %}\
{%- if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{%- endif %}\
{%- if m['role'] == 'assistant' %}{% set c = m['content'] %}\
{%- if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}\
{{ '<｜Assistant｜>' + c + '<｜end▁of▁sentence｜>' }}{%- endif %}\
{%- endfor -%}\
{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""

ALTERNATING = """\
{{ bos_token }}{% for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}
{%- else %}{{ ' ' + m.content + eos_token }}{% endif %}
{%- if m.content == 'stop' %}{% break %}{% endif %}
{%- endfor %}"""

TEMPLATES = {
    "chatml": CHATML,
    "marked": CHATML_MARKED,
    "llama3": LLAMA3,
    "r1": R1,
    "alternating": ALTERNATING,
}


@pytest.fixture(scope="module")
def templates(wide: Tokenizer):
    return {name: JinjaTemplate(source, wide, name=name) for name, source in TEMPLATES.items()}


# Contents begin and end in a letter: the loss border, where only we cut, then changes no token.
# Nor do they hold special tokens, which transformers would make of them.
words = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=15)
    .map(lambda text: f"a{text}z")
    .filter(lambda text: not any(special in text for special in SPELLINGS))
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict]:
    turns = draw(st.integers(1, 3))
    messages = [{"role": r, "content": draw(words)} for _ in range(turns) for r in ("user", "assistant")]
    return messages[: draw(st.integers(1, len(messages)))]


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=conversations(), system=st.one_of(st.none(), words), prompt=st.booleans())
@settings(max_examples=25, deadline=None)
def test_ids_equal_transformers(wide, wide_oracle, templates, name, messages, system, prompt):
    if system is not None and name != "alternating":
        messages = [{"role": "system", "content": system}, *messages]
    expected = wide_oracle.apply_chat_template(
        messages, chat_template=TEMPLATES[name], add_generation_prompt=prompt, return_dict=False
    )
    pieces = templates[name].render(messages, add_generation_prompt=prompt, with_loss=False)
    assert pieces_text(pieces) == wide.decode(expected)
    assert encode_pieces(pieces, wide).ids == expected


@given(messages=conversations())
@settings(max_examples=25, deadline=None)
def test_generation_blocks_give_transformers_mask(wide, wide_oracle, templates, messages):
    expected = wide_oracle.apply_chat_template(
        messages, chat_template=CHATML_MARKED, return_assistant_tokens_mask=True, return_dict=True
    )
    chat = encode_chat(messages, wide, templates["marked"])
    assert chat.ids == expected["input_ids"]
    assert [int(in_loss) for in_loss in chat.loss_mask] == expected["assistant_masks"]


@given(messages=conversations())
@settings(max_examples=25, deadline=None)
def test_derived_loss_equals_generation_blocks(wide, templates, messages):
    system = {"role": "system", "content": "s"}
    chat = encode_chat([system, *messages], wide, templates["chatml"])
    assert chat == encode_chat([system, *messages], wide, templates["marked"])
    learned = wide.decode(i for i, in_loss in zip(chat.ids, chat.loss_mask, strict=True) if in_loss)
    assert learned == "".join(m["content"] + "<|im_end|>" for m in messages if m["role"] == "assistant")


def test_tools_and_calls_equal_transformers(wide, wide_oracle, templates):
    function = {"name": "add", "parameters": {"type": "object", "properties": {"type": {"type": "string"}}}}
    tools = [{"type": "function", "function": function}]
    messages = [
        {"role": "user", "content": "2+2?"},
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"ü": 2}}}],
        },
        {"role": "tool", "content": "4"},
    ]
    expected = wide_oracle.apply_chat_template(
        messages, tools=tools, chat_template=LLAMA3, add_generation_prompt=True, return_dict=False
    )
    assert encode_prompt(messages, wide, templates["llama3"], tools=tools) == expected


def test_the_date_is_today_s(wide, templates):
    text = pieces_text(templates["llama3"].render([{"role": "user", "content": "x"}]))
    assert datetime.datetime.now().strftime("%b %Y") in text


def test_a_template_s_refusal_is_reported(wide, templates):
    with pytest.raises(TokenizerError, match="roles must alternate"):
        templates["alternating"].render([{"role": "assistant", "content": "x"}])
    assert pieces_text(templates["alternating"].render([{"role": "user", "content": "still alive"}]))


def test_r1_s_template_cannot_train_and_says_where(wide, templates):
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>\nt\n</think>\n\na"},
    ]
    with pytest.raises(TokenizerError, match=r"r1 is not prefix-preserving.*<think>"):
        encode_chat(messages, wide, templates["r1"])
    text = pieces_text(templates["r1"].render(messages, with_loss=False))
    assert text.endswith("<｜Assistant｜>\n\na<｜end▁of▁sentence｜>")


def test_a_template_that_rewrites_the_past_cannot_train(wide):
    source = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}"
        "{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    messages = [
        {"role": r, "content": c}
        for r, c in (("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    ]
    with pytest.raises(TokenizerError, match="message 1 alone and within the longer conversation"):
        encode_chat(messages, wide, JinjaTemplate(source, wide))


def test_thinking_reaches_the_template_only_when_said(wide):
    template = JinjaTemplate("{{ enable_thinking is defined }}{{ thinking }}", wide)
    messages = [{"role": "user", "content": "x"}]
    texts = [pieces_text(template.render(messages, thinking=t)) for t in (None, False, True)]
    assert texts == ["False", "TrueFalse", "TrueTrue"]


# --- message text must not become special tokens

parts = st.one_of(
    st.sampled_from(SPELLINGS),
    st.sampled_from([s[:n] for s in SPELLINGS for n in (1, 2, 4)]),
    st.sampled_from([s[-n:] for s in SPELLINGS for n in (1, 2, 4)]),
    st.sampled_from([s[1:-1] for s in SPELLINGS]),
    st.sampled_from(SPELLINGS).map(str.upper),
    st.sampled_from([" ", "\n", "\ue000", "x", ""]),
)
hostile = st.lists(parts, max_size=6).map("".join)

# Every way of putting contents beside each other, and beside what begins or ends a special token.
JOINING = """\
<|im_start|>{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>\
{% for m in messages %}<{{ m.content }}><|{{ m.content }}|>{{ m.content | trim }}{{ m.content | lower }}\
{{ m.content.split('\\n') | join }}{{ m.content[:40] }}{{ m.content[2:] }}{{ m | tojson }}\
{{ m.content | tojson(ensure_ascii=True) }}{{ m.content.strip('x') }}{% endfor %}"""


@given(st.lists(hostile, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_no_user_text_becomes_special_however_it_is_joined(wide: Tokenizer, joining: JinjaTemplate, contents):
    messages = [{"role": "user", "content": content} for content in contents]
    pieces = joining.render(messages, with_loss=False)
    assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>", "<|im_end|>"]
    specials = set(wide.specials.values())
    assert len([i for i in encode_pieces(pieces, wide).ids if i in specials]) == 2


@pytest.fixture(scope="module")
def joining(wide: Tokenizer):
    return JinjaTemplate(JOINING, wide)


@given(st.lists(hostile, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_the_text_itself_is_as_transformers_writes_it(wide_oracle, joining: JinjaTemplate, contents):
    messages = [{"role": "user", "content": content} for content in contents]
    expected = wide_oracle.apply_chat_template(messages, chat_template=JOINING, tokenize=False)
    assert pieces_text(joining.render(messages, with_loss=False)) == expected


def test_arguments_names_and_keys_make_no_special_token(wide: Tokenizer, templates):
    bad = "<|im_end|>"
    calls = [{"type": "function", "function": {"name": bad, "arguments": {bad: [bad]}}}]
    messages = [{"role": "user", "content": "x", "name": bad}, {"role": "assistant", "tool_calls": calls}]
    tools = [{"type": bad, bad: bad}]
    pieces = templates["llama3"].render(messages, tools=tools, with_loss=False)
    assert bad not in [piece.text for piece in pieces if piece.special]
    assert pieces_text(pieces).count(bad) == 6


def test_an_assistant_s_thinking_tags_are_markup(wide: Tokenizer, templates):
    messages = [
        {"role": "user", "content": "<think>"},
        {"role": "assistant", "content": "<think>t</think>a<|im_end|>"},
    ]
    chat = encode_chat(messages, wide, templates["chatml"])
    assert chat.ids.count(wide.special_id("<think>")) == 1
    assert chat.ids.count(wide.special_id("<|im_end|>")) == 3


# --- templates that cut and join texts in every way

FRAGMENTS = [s[a:b] for s in SPELLINGS for a, b in ((0, 2), (0, -1), (1, None), (2, -2), (-2, None))]
UNARY = [
    "({})[{}:]", "({})[:{}]", "({})[::-1]", "({}) | trim", "({}) | upper", "({}) | lower", "({}) | title",
    "({}) | capitalize", "({}) | replace('x', '')", "({}).strip('x')", "({}).split('x')[-1]",
    "({}).split()[0:{}] | join", "({}).partition('|')[2]", "({}).removeprefix('<')", "({}) | list | join('')",
    "({}).replace('<', '')", "({}) | reverse", "[{}] | string", "({}) | tojson", "({}) | e", "({}) * 2",
    "({}).splitlines() | first | default('')", "({}) | string | indent(1)", "'%s' | format({})",
    "'%s' % ({})", "'{{}}'.format({})", "({}) | truncate(3, true, '')", "({}) | replace('i', 'ſ') | upper",
]  # fmt: skip
BINARY = [
    "({}) ~ ({})", "({}) + ({})", "({}).join(['<', {}])", "({1} if {0} in {1} else {0})",
    "[{}, {}] | join('|')", "({0} if '|' in {1} else '-' + {1})", "({}).replace('t', {})",
    "({0} if {0} == {1} else {0} ~ {1})",
    "{{{}: {}}} | string",
]  # fmt: skip


def expressions(literals: list[str]) -> st.SearchStrategy[str]:
    """Jinja expressions of two message fields and of these texts."""
    leaves = st.sampled_from(["m.content", "m.content", "m.name", *map(repr, literals)])
    numbers = st.integers(-3, 3)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda form, a, n: form.format(a, n), st.sampled_from(UNARY), inner, numbers),
            st.builds(lambda form, a, b: form.format(a, b), st.sampled_from(BINARY), inner, inner),
        ),
        max_leaves=5,
    )


def loop(parts: list[str]) -> str:
    return "{% for m in messages %}" + "".join("{{ " + part + " }}" for part in parts) + "{% endfor %}"


fields = st.lists(parts, max_size=3).map("".join)
ENVIRONMENT = worker.build_environment()


class Here:
    """The child's work in this process, which starts at once."""

    def __init__(self, source: str) -> None:
        self.template = ENVIRONMENT.from_string(source)

    def render(self, variables: dict, **marks: object) -> str:
        request = {"render": json.loads(json.dumps(variables)), "max_chars": 1 << 20, **marks}
        return worker.render(ENVIRONMENT, self.template, request)


def render_here(source: str, tokenizer: Tokenizer, messages: list[dict]) -> list[Piece]:
    template = JinjaTemplate(source, tokenizer)
    template._process = Here(source)
    return template.render(messages, with_loss=False)


@pytest.mark.parametrize("absent", ["<", ">", "_", "|", "n"])
@given(data=st.data(), content=fields, name=fields)
@settings(max_examples=60, deadline=None)
def test_no_template_makes_a_special_token_of_a_message(wide, absent, data, content, name):
    """The template never writes `absent`, so every special token that contains it would be a message's."""
    literals = [fragment for fragment in FRAGMENTS if fragment and absent not in fragment.lower()]
    source = loop(data.draw(st.lists(expressions(literals), min_size=1, max_size=3)))
    source = source.replace(f"'{absent}'", "'x'")
    messages = [{"role": "user", "content": content, "name": name}]
    try:
        pieces = render_here(source, wide, messages)
    except (TypeError, ValueError):
        return  # such as an empty separator
    assert not [piece.text for piece in pieces if piece.special and absent in piece.text]


@given(source=st.lists(expressions(FRAGMENTS), min_size=1, max_size=3).map(loop), content=fields, name=fields)
@settings(max_examples=200, deadline=None)
def test_any_template_writes_what_it_writes_in_transformers(wide, wide_oracle, source, content, name):
    messages = [{"role": "user", "content": content, "name": name or "x"}]
    try:
        expected = wide_oracle.apply_chat_template(messages, chat_template=source, tokenize=False)
    except Exception:  # as Jinja and Python say
        return
    assert pieces_text(render_here(source, wide, messages)) == expected


SLICES = {
    "<|{{ messages[0].content[1:] }}|>": "Xim_end",
    "{{ messages[0].content[:4] }}|im_end|>": "<xyz",
    "<|{{ messages[0].content.split(',')[1] }}_end|>": "a,im,b",
    "<|im_{{ messages[0].content | upper | lower }}|>": "ENd",
    "<|im_{{ messages[0].content | upper | lower }}": "end|>",
    "<|{{ messages[0].content }}|>": "im_end",
    "{{ '<|' ~ messages[0].content ~ '|>' }}": "im_end",
    "<|{{ messages[0].content | replace('x', '') }}|>": "imx_xend",
}


@pytest.mark.parametrize("source", SLICES)
def test_a_part_of_a_message_completes_no_special_token(wide, source):
    content = SLICES[source]
    pieces = JinjaTemplate("<|im_start|>" + source, wide).render(
        [{"role": "user", "content": content}], with_loss=False
    )
    assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>"]
