"""Prompts that do not fit: left out and counted, shortened to the question's end, or refused."""

from functools import partial

import pytest

from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.overlong import PromptMaker
from shoestring.tokenizer.questions import PromptStyle, prompt_ids
from shoestring.tokenizer.special import ASSISTANT, BOS, USER

WORDS = Tokenizer.train(["What is 3 + 4? It is seven, think about it."], 300)
LONG = "It is long. " * 60 + "What is 3 + 4?"


def maker(overlong="filter", context=60, template=None, style=None, **changes) -> PromptMaker:
    template = template or DeepSeekTemplate()
    make = partial(prompt_ids, tokenizer=WORDS, template=template, style=style or PromptStyle())
    return PromptMaker(
        make=make, tokenizer=WORDS, context=context, max_tokens=20, overlong=overlong, **changes
    )


def test_a_prompt_that_fits_is_as_ever_under_each_policy():
    plain = prompt_ids("What is 3 + 4?", WORDS, DeepSeekTemplate(), PromptStyle())
    for policy in ("filter", "truncate", "error"):
        assert maker(policy).prompt("What is 3 + 4?", "one") == plain


def test_the_last_place_of_the_context_is_for_the_answer():
    length = len(maker().prompt("What is 3 + 4?", "one").ids)
    assert maker(context=length).prompt("What is 3 + 4?", "one") is None
    assert maker(context=length + 1).prompt("What is 3 + 4?", "one") is not None


def test_what_is_left_out_is_counted_and_a_tenth_is_said(caplog):
    prompts = maker()
    assert [prompts.prompt(text, "x") is None for text in ("What?", LONG, "Is it?")] == [False, True, False]
    prompts.warn()
    assert (prompts.num_prompts, prompts.num_overlong, caplog.messages) == (3, 1, [])
    prompts.prompt(LONG, "x")
    prompts.warn()
    prompts.warn()
    [message] = caplog.messages
    assert "2 of 4 prompts (50%) do not fit into the context of 60 tokens and are left out" in message
    assert "--set overlong=truncate" in message


def test_a_shortened_prompt_keeps_the_end_of_the_question_and_all_around_it():
    prompts = maker("truncate", style=PromptStyle(system="Be brief."))
    prompt = prompts.prompt(LONG, "x")
    text = WORDS.decode(prompt.ids)
    assert text.startswith(f"{BOS}Be brief.{USER}")
    assert text.endswith(f"What is 3 + 4?{ASSISTANT}<think>")
    assert len(prompt.ids) <= 60 - 20
    assert prompt.opening == "<think>"
    assert prompts.num_overlong == 1


def test_a_conversation_is_shortened_in_its_last_message():
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": "It is."},
        {"role": "user", "content": LONG},
    ]
    text = WORDS.decode(maker("truncate", context=80).prompt(turns, "x").ids)
    assert "Be brief." in text
    assert "It is." in text
    assert "What is 3 + 4?" in text
    assert turns[-1]["content"] == LONG


def test_a_character_is_never_cut():
    text = WORDS.decode(maker("truncate").prompt("日本語" * 40, "x").ids)
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert text.endswith(f"日本語{ASSISTANT}<think>")


def test_a_frame_without_room_is_left_out_even_so():
    prompts = maker("truncate", style=PromptStyle(system="It is long. " * 60))
    assert prompts.prompt("What?", "x") is None
    assert prompts.num_overlong == 1


def test_an_error_names_the_problem_and_both_ways_out():
    with pytest.raises(ConfigError, match=r"the prompt of gsm8k/1 has .* --set p.overlong=filter .*truncate"):
        maker("error", setting="p.overlong").prompt(LONG, "gsm8k/1")
