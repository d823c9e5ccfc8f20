"""Conversations as templates write them: what is learned, and that nothing given is lost."""

import pytest

from shoestring.data.forms.conversation import Conversation
from shoestring.data.forms.rendering import render
from shoestring.errors import DataError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate

END, START = "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"
PLAIN = (
    "{% for m in messages %}{{ m.role + ':' + (m.content or '') + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Writes no thinking and no calls."""
TRIMS = PLAIN.replace("(m.content or '')", "(m.content or '') | trim")
MARKED = (
    "{% for m in messages %}{{ m.role + ':' }}{% if m.role == 'assistant' %}{% generation %}"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m.content + '" + END + "' }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
"""Says itself what is learned."""
LAST_THINKS = (
    "{% for m in messages %}{{ m.role + ':' }}{% if m.reasoning_content and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""As Qwen3's and DeepSeek's: the thinking of earlier turns is removed."""
DROPS_TAGS = PLAIN.replace("(m.content or '')", "(m.content or '').split('</think>')[-1]")
"""As R1's: what stands before the closing tag is removed everywhere."""
NO_SYSTEM = PLAIN.replace("for m in messages", "for m in messages if m.role != 'system'")
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": "ü\\n", "b": 2.5}'}}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["what is 2 + 3 and 4", "Be brief."] * 5, 320)


@pytest.fixture
def template(tokenizer):
    made = []

    def make(source):
        made.append(JinjaTemplate(source, tokenizer, name="mine.jinja"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def user(text, **more):
    return {"role": "user", "content": text, **more}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


def talk(*messages, tools=None) -> Conversation:
    return Conversation(messages=list(messages), tools=tools, unread=())


def learned(template, *messages, learn="assistant", thinking="template", tools=None) -> list[str]:
    """The stretches of text that are learned."""
    rendering = render(talk(*messages, tools=tools), template, learn=learn, thinking=thinking)
    runs, inside = [], False
    for piece in rendering.pieces:
        if piece.in_loss:
            runs = [*runs[:-1], runs[-1] + piece.text] if inside else [*runs, piece.text]
        inside = piece.in_loss
    return runs


TALK = (user("q1"), bot("one"), user("q2"), bot("two"))
TEMPLATES = [None, PLAIN, MARKED, TRIMS]


@pytest.fixture(params=TEMPLATES, ids=["DeepSeek", "plain", "marked", "trims"])
def any_template(request, template):
    return DeepSeekTemplate() if request.param is None else template(request.param)


def test_all_turns_or_the_last_one_or_everything_is_learned(any_template):
    assert learned(any_template, *TALK) == [f"one{END}", f"two{END}"]
    assert learned(any_template, *TALK, learn="last") == [f"two{END}"]
    (everything,) = learned(any_template, *TALK, learn="all")
    assert all(text in everything for text in ("q1", "one", "q2", "two"))
    assert learned(any_template, *TALK, user("q3"), learn="last") == [f"two{END}"]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"weight": 0.0, "train": False}])
def test_marked_turns_are_context(any_template, mark):
    marked = (TALK[0], bot("one", **mark), *TALK[2:])
    assert learned(any_template, *marked) == [f"two{END}"]
    before, after = learned(any_template, *marked, learn="all")
    assert (before.endswith("one"), "one" in after, "two" in after) == (False, False, True)
    assert learned(any_template, *marked[:3], bot("two", **mark)) == []
    assert render(talk(*marked), any_template, learn="assistant", thinking="template").unlearned_turns == 1


def test_a_turn_of_the_user_is_learned_if_it_is_marked(any_template):
    turns = (user("q1"), bot("one"), user(" q2", train=True), bot("two"))
    assert learned(any_template, *turns)[1].strip() == "q2"
    assert learned(any_template, user("q1", train=True))[0] == "q1"


@pytest.mark.parametrize("first", ["one", "  one "])
def test_parts_of_a_turn_are_learned_or_not(any_template, first):
    parts = [
        {"type": "text", "text": first},
        {"type": "text", "text": " two"},
        {"type": "text", "text": " three"},
    ]
    parts[1]["train"] = False
    runs = learned(any_template, user("q"), bot(parts))
    assert [run.strip() for run in runs] == ["one", f"three{END}"]
    alone = [{"type": "text", "text": f"{first}two "}, {"type": "text", "text": "three", "weight": 1}]
    assert learned(any_template, user("q"), bot(alone, weight=0)) == ["three"]


def test_a_marked_text_is_not_taken_for_an_earlier_one_that_is_the_same(any_template):
    turns = (user("one"), bot("one"), user("one", train=True), bot("two"))
    rendering = render(talk(*turns), any_template, learn="assistant", thinking="template")
    whole = "".join(piece.text for piece in rendering.pieces)
    learned_text = "".join(
        piece.text if piece.in_loss else "." * len(piece.text) for piece in rendering.pieces
    )
    first, second = whole.index("one"), whole.index("one", whole.index("one") + 3)
    assert learned_text[first : first + 3] == "..."
    assert learned_text[second : second + 3] == "one"
    assert learned_text.count("one") == 2


def test_a_part_of_the_content_is_not_looked_for_in_the_thinking():
    parts = [{"type": "text", "text": "4"}, {"type": "text", "text": " is it", "train": False}]
    turn = bot(parts, reasoning_content="4 is it")
    assert learned(DeepSeekTemplate(), user("q"), turn) == ["<think>4 is it</think>4", END]


def test_parts_of_thinking_are_learned_or_not(template):
    parts = [{"type": "text", "text": "2+2=5?", "train": False}, {"type": "text", "text": " no, 4"}]
    turns = (user("q"), bot("4", reasoning_content=parts))
    expected = {"template": ["(", " no, 4)4" + END], "inline": ["<think>", f" no, 4</think>4{END}"]}
    assert learned(template(MARKED), *turns) == expected["template"]
    assert learned(template(PLAIN), *turns, thinking="inline") == expected["inline"]
    assert learned(DeepSeekTemplate(), *turns) == expected["inline"]


def test_axolotls_offsets_include_both_ends(any_template):
    text = "I'm doing very well, thank you!"
    detail = [
        {"begin_offset": 0, "end_offset": 8, "train": False},
        {"begin_offset": 9, "end_offset": 18, "train": True},
        {"begin_offset": 19, "end_offset": 30, "train": False},
    ]
    assert learned(any_template, user("q"), bot(text, train_detail=detail)) == [" very well", END]


def test_thinking_that_is_not_written_is_an_error_with_the_way_out(template):
    turn = bot("5", reasoning_content="two and three")
    for source in (PLAIN, TRIMS, NO_SYSTEM):
        with pytest.raises(DataError) as error:
            learned(template(source), user("q"), turn)
        assert str(error.value) == (
            "mine.jinja does not write the reasoning_content of message 1 ('two and three') where it is "
            "learned, so it would be lost; --set thinking=inline writes it into the content, or "
            "--set template=FILE takes a template that writes it"
        )
        assert learned(template(source), user("q"), turn, thinking="inline") == [
            f"<think>two and three</think>5{END}"
        ]
    assert learned(template(MARKED), user("q"), turn) == [f"(two and three)5{END}"]


def test_inline_thinking_is_what_deepseeks_template_writes():
    turn = bot("5", reasoning_content="hm")
    runs = {
        mode: learned(DeepSeekTemplate(), user("q"), turn, thinking=mode) for mode in ("template", "inline")
    }
    assert runs["template"] == runs["inline"] == [f"<think>hm</think>5{END}"]
    assert learned(DeepSeekTemplate(), user("q"), bot("5", reasoning_content="hm", weight=0)) == []


@pytest.mark.parametrize("source", [None, LAST_THINKS], ids=["DeepSeek", "Qwen3"])
def test_thinking_of_earlier_turns_that_is_removed_points_to_the_last_turn(template, source):
    turns = (
        user("q1"),
        bot("1", reasoning_content="first"),
        user("q2"),
        bot("2", reasoning_content="second"),
    )
    one = DeepSeekTemplate(keep_thinking=False) if source is None else template(source)
    with pytest.raises((DataError, TokenizerError), match="--set learn=last learns the last turn alone"):
        learned(one, *turns)
    assert learned(one, *turns, learn="last") == [f"<think>second</think>2{END}"]


def test_inline_is_not_named_where_it_does_not_help(template):
    with pytest.raises(DataError) as error:
        learned(template(DROPS_TAGS), user("q"), bot("5", reasoning_content="hm"))
    assert "inline" not in str(error.value)
    with pytest.raises(DataError, match="the thinking in the content of message 1"):
        learned(template(DROPS_TAGS), user("q"), bot("<think>hm</think>5"))
    assert learned(template(DROPS_TAGS), user("q"), bot("<think>hm</think>5", train=False), bot("6")) == [
        f"6{END}"
    ]


def test_calls_and_contents_that_are_not_written_are_errors(template):
    call = bot(None, tool_calls=[CALL])
    with pytest.raises(DataError, match=r"does not write the tool_calls of message 1 .'add'."):
        learned(template(PLAIN), user("q"), call)
    assert "ü" in learned(DeepSeekTemplate(), user("q"), call)[0]
    as_object = {**CALL, "function": {**CALL["function"], "arguments": {"a": "ü\n", "b": 2.5}}}
    assert "2.5" in learned(DeepSeekTemplate(), user("q"), bot("", tool_calls=[as_object]))[0]
    empty = template("{% for m in messages %}{{ m.role + '" + END + "' }}{% endfor %}")
    with pytest.raises(DataError, match=r"does not write the content of message 1 .'secret'."):
        learned(empty, user("q"), bot("secret"))
    with pytest.raises(DataError, match=r"does not write the content of message 0"):
        learned(template(NO_SYSTEM), {"role": "system", "content": "Be brief."}, *TALK, learn="all")


def test_context_that_is_not_written_is_named(template):
    tools = [{"type": "function", "function": {"name": "add"}}]
    system = {"role": "system", "content": "Be brief."}
    rendering = render(
        talk(system, *TALK, tools=tools), template(NO_SYSTEM), learn="assistant", thinking="template"
    )
    assert rendering.missing_context == ("system", "tools")
    rendering = render(
        talk(system, *TALK, tools=tools), DeepSeekTemplate(), learn="assistant", thinking="template"
    )
    assert rendering.missing_context == ()


def test_marks_need_a_template_with_one_stretch_for_each_turn(template):
    joined = template(
        "{{ messages[0].content }}{% generation %}{% for m in messages[1:] %}{{ m.content }}{% endfor %}"
        "{% endgeneration %}"
    )
    assert learned(joined, user("q"), bot("a"), bot("b")) == ["ab"]
    with pytest.raises(ValueError, match="the marks of message 2 cannot be honored; take another with --set"):
        learned(joined, user("q"), bot("a"), bot("b", weight=0))
    shouts = template(PLAIN.replace("(m.content or '')", "m.content | upper"))
    with pytest.raises(ValueError, match=r"mine.jinja changes the text of message 0, so its marks"):
        learned(shouts, user("q", train=True))


def test_a_conversation_without_the_assistant_is_refused_unless_all_is_learned():
    with pytest.raises(ValueError, match="it has no turn of the assistant to learn from"):
        learned(DeepSeekTemplate(), user("q"))
    assert "q" in learned(DeepSeekTemplate(), user("q"), learn="all")[0]


def test_the_borders_of_texts_are_those_of_a_prompt_whatever_is_learned(tokenizer):
    from shoestring.tokenizer.chat.template import encode_chat, encode_pieces

    expected = encode_chat(TALK, tokenizer, DeepSeekTemplate()).ids
    for learn in ("assistant", "last", "all"):
        rendering = render(talk(*TALK), DeepSeekTemplate(), learn=learn, thinking="template")
        assert encode_pieces(rendering.pieces, tokenizer).ids == expected
