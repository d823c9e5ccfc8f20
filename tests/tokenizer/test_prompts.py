from dataclasses import replace

import pytest

from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.prompts import ChatOptions, is_conversation, read_chat, read_prompts

QUESTION = {"role": "user", "content": "What?"}


def test_text_ids_and_dictionaries_are_prompts(tokenizer: Tokenizer):
    text, ids, with_salt = read_prompts(
        ["def f", [7, 8], {"prompt_token_ids": [7], "cache_salt": "me"}], tokenizer
    )
    assert text.token_ids == (tokenizer.bos_id, *tokenizer.encode("def f"))
    assert (ids.token_ids, ids.text) == ((7, 8), None)
    assert (with_salt.token_ids, with_salt.cache_salt) == ((7,), "me")
    assert read_prompts([7, 8], tokenizer) == [ids]
    assert read_prompts({"prompt": "def f"}, tokenizer) == read_prompts("def f", tokenizer) == [text]


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (3, "prompts is a int"),
        ([3.5], "prompt 0 is neither text"),
        ({"text": "x"}, "the prompt has 'text'"),
        ({"cache_salt": "x"}, "needs prompt"),
        ({"prompt": "x", "cache_salt": 3}, "cache_salt of the prompt is not text"),
    ],
)
def test_a_wrong_prompt_is_named(tokenizer: Tokenizer, prompts, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_prompts(prompts, tokenizer)
    with pytest.raises(ConfigError, match="this model has no tokenizer"):
        read_prompts("x", None)


def test_conversations_are_told_from_prompts():
    assert is_conversation([QUESTION])
    assert not any(is_conversation(value) for value in ("x", [], [3], [{"prompt": "x"}], QUESTION))


def test_the_last_message_is_continued_without_its_end_token(tokenizer: Tokenizer):
    messages = [QUESTION, {"role": "assistant", "content": "It is "}]
    going_on = ChatOptions(add_generation_prompt=False, continue_final_message=True)
    prompt = read_chat(messages, tokenizer, DeepSeekTemplate(), going_on)
    assert prompt.text is not None
    assert prompt.text.endswith("It is ")
    assert tokenizer.eos_id not in prompt.token_ids
    with pytest.raises(ConfigError, match="last message of the assistant"):
        read_chat([QUESTION], tokenizer, DeepSeekTemplate(), going_on)


CONTINUE = {
    "kept": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "trimmed": "{% for m in messages %}<|im_start|>{{ m.content | trim }} <|im_end|>{% endfor %}",
    "with a colon": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}",
}


@pytest.mark.parametrize("how", CONTINUE)
@pytest.mark.parametrize(
    "text", ["It is", "It is ", "\n It\n\n", "end", "e", "|>", "<|im_end|>", "\u2801 x\t"]
)
def test_a_continued_message_ends_as_in_transformers(wide: Tokenizer, wide_oracle, how: str, text: str):
    messages = [QUESTION, {"role": "assistant", "content": text}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    prompt = read_chat(messages, wide, JinjaTemplate(CONTINUE[how], wide), ChatOptions(**options))
    expected = wide_oracle.apply_chat_template(
        messages, chat_template=CONTINUE[how], tokenize=False, **options
    )
    assert prompt.text == expected
    assert wide.eos_id not in prompt.token_ids[-2:]


def test_a_template_that_changes_the_last_message_cannot_continue_it(tokenizer: Tokenizer):
    going_on = ChatOptions(add_generation_prompt=False, continue_final_message=True)

    class Shouting(DeepSeekTemplate):
        def render(self, messages, **options):
            return [replace(piece, text=piece.text.upper()) for piece in super().render(messages, **options)]

    with pytest.raises(TokenizerError, match="cannot be continued"):
        read_chat([QUESTION, {"role": "assistant", "content": "yes"}], tokenizer, Shouting(), going_on)


@pytest.mark.parametrize(
    "kwargs", [{"messages": []}, {"thinking": "yes"}, {"thinking": True, "enable_thinking": False}]
)
def test_wrong_template_variables_are_refused(kwargs):
    with pytest.raises(ConfigError, match="chat_template_kwargs"):
        ChatOptions(chat_template_kwargs=kwargs)
