import pytest

from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.template import Piece, encode_prompt
from shoestring.tokenizer.questions import PromptStyle, prompt_ids
from shoestring.tokenizer.special import BOS, THINK

WORDS = Tokenizer.train(["What is 3 + 4? It is seven, think about it."], 300)
CHAT = PromptStyle()


class Fixed:
    """Template that writes `before`, the question and `after`."""

    name = "fixed"

    def __init__(self, before: str, after: str) -> None:
        self.before, self.after = before, after

    def render(self, messages, **_):
        return [Piece(text=self.before + messages[-1]["content"] + self.after)]


def test_chat_gives_the_ids_of_encode_prompt_and_the_forced_tag():
    template = DeepSeekTemplate()
    asked = prompt_ids("What is 3 + 4?", WORDS, template, PromptStyle(system="Be brief."))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 4?"}]
    assert list(asked.ids) == encode_prompt(messages, WORDS, template, thinking=True)
    assert asked.opening == THINK
    assert prompt_ids("What?", WORDS, template, PromptStyle(thinking=False)).opening == ""


@pytest.mark.parametrize(
    ("after", "opening"),
    [
        ("\nAssistant: <think>\n", "<think>\n"),
        ("\nAssistant: <think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("\nAssistant: <think> so", ""),
        ("\nAssistant:", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("question", ["What is 3 + 4?", "k", "say <think>"])
def test_the_opening_is_what_the_template_forces_and_never_the_questions(question, after, opening):
    assert prompt_ids(question, WORDS, Fixed("User: ", after), CHAT).opening == opening


def test_a_format_has_special_tokens_and_the_question_has_none():
    style = PromptStyle(format=f"Q: {{question}}\nA:{THINK}")
    asked = prompt_ids(f"is {THINK} {{x}}", WORDS, None, style)
    think = WORDS.special_id(THINK)
    assert asked.opening == THINK
    assert asked.ids[0] == WORDS.special_id(BOS)
    assert [place for place, i in enumerate(asked.ids) if i == think] == [len(asked.ids) - 1]
    assert WORDS.decode(asked.ids[1:]) == f"Q: is {THINK} {{x}}\nA:{THINK}"
    written = PromptStyle(format=f"{BOS}{{question}}")
    assert prompt_ids("x", WORDS, None, written).ids.count(WORDS.bos_id) == 1


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ConfigError, match="no chat template"):
        prompt_ids("x", WORDS, None, CHAT)
    for form in ("no place", "{question}{question}"):
        with pytest.raises(ConfigError, match="once"):
            PromptStyle(format=form)
    with pytest.raises(ConfigError, match=r"prompt\.system"):
        PromptStyle(format="{question}", system="s")
