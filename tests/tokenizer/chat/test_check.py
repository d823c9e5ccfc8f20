import pytest

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.check import check_template
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate

LOOP = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}%END%{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
GOOD = LOOP.replace("%END%", "<|im_end|>\n") + PROMPT
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}%A%{% else %}"
    "{{ m.content }}<|im_end|>{% endif %}{% endfor %}" + PROMPT
)


def failed(tokenizer: Tokenizer, template) -> dict[str, str]:
    findings = check_template(tokenizer, template)
    assert len(findings) == 7
    assert all(finding.text and "\n" not in finding.text for finding in findings)
    return {finding.name: finding.text for finding in findings if not finding.ok}


def test_our_template_passes(tokenizer: Tokenizer):
    assert failed(tokenizer, DeepSeekTemplate()) == {}


def test_a_sound_foreign_template_passes(wide: Tokenizer):
    assert failed(wide, JinjaTemplate(GOOD, wide)) == {}


def test_dropped_thinking_is_reported_for_what_it_is(tokenizer: Tokenizer):
    found = failed(tokenizer, DeepSeekTemplate(keep_thinking=False))
    assert set(found) == {"prefix-preserving with thinking"}
    assert (
        "up to message 1 is not the beginning of the longer conversation"
        in found["prefix-preserving with thinking"]
    )


@pytest.mark.parametrize(
    ("source", "name", "sentence"),
    [
        ("{{ bos_token }}" + GOOD, "one begin token", "occurs 2 times"),
        ("<｜begin▁of▁sentence｜>" + GOOD, "one begin token", "occurs 2 times"),
        (LOOP.replace("%END%", "\n") + PROMPT, "end token in the loss", "would never learn to stop"),
        (LOOP.replace("%END%", "<|eot_id|>") + PROMPT, "end token in the loss", "<|eot_id|>"),
        (
            MARKED.replace("%A%", "{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>"),
            "end token in the loss",
            "without an end token",
        ),
        (
            MARKED.replace("%A%", "{% generation %}{% endgeneration %}{{ m.content }}"),
            "assistant turns in the loss",
            "Four",
        ),
        (
            "{% generation %}" + GOOD + "{% endgeneration %}",
            "assistant turns in the loss",
            "the user's 'What is' is in the loss",
        ),
        (
            GOOD.replace("assistant\n", "assistant\n<think>\n"),
            "prefix-preserving",
            "the prompt before message 1",
        ),
        (
            GOOD.replace(
                "{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
            ),
            "prefix-preserving with thinking",
            "the conversation up to message 1",
        ),
        ("{{ raise_exception('no') }}", "renders", "no"),
        ("{% for %}", "renders", "cannot render"),
        ("", "renders", "has no tokens"),
        (
            GOOD.replace(
                "{{ m.content }}", "{% if 'bye' in m.content %}<|eot_id|>{% endif %}{{ m.content }}"
            ),
            "user text stays text",
            "<|eot_id|>",
        ),
    ],
)
def test_faults_are_found(wide: Tokenizer, source: str, name: str, sentence: str):
    found = failed(wide, JinjaTemplate(source, wide))
    assert sentence in found[name]


def test_a_tokenizer_without_begin_token_is_no_fault(wide: Tokenizer):
    bare = Tokenizer(wide._definition, {"eos_token": "<|im_end|>"})
    assert failed(bare, JinjaTemplate(GOOD, bare)) == {}


CHATML = GOOD.removeprefix("{{ bos_token }}")


@pytest.mark.parametrize(
    ("begin", "source", "sentence"),
    [
        ("<|im_start|>", CHATML, "opens every turn"),
        ("<|im_start|>", "<|im_start|>system\nBe brief.<|im_end|>\n" + CHATML, "opens every turn"),
        (
            "[B]",
            "{% for m in messages %}{% if m.role == 'user' %}[B]{% endif %}{{ m.content }}{% endfor %}",
            "exchange",
        ),
        ("[B]", "[B]" + CHATML, "occurs once"),
    ],
)
def test_a_begin_token_may_open_every_turn(wide: Tokenizer, begin: str, source: str, sentence: str):
    definition = {**wide._definition, "added_tokens": [*wide._definition["added_tokens"]]}
    definition["added_tokens"].append(
        {**definition["added_tokens"][-1], "id": wide.vocab_size, "content": "[B]"}
    )
    tokenizer = Tokenizer(definition, {"bos_token": begin, "eos_token": "<|im_end|>"})
    results = {result.name: result for result in check_template(tokenizer, JinjaTemplate(source, tokenizer))}
    assert results["one begin token"].ok
    assert sentence in results["one begin token"].text


@pytest.mark.parametrize("source", ["<|im_start|>" + CHATML, "<|im_start|>x<|im_start|>y"])
def test_a_begin_token_too_many_is_found(wide: Tokenizer, source: str):
    tokenizer = Tokenizer(wide._definition, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    results = {result.name: result for result in check_template(tokenizer, JinjaTemplate(source, tokenizer))}
    assert not results["one begin token"].ok
