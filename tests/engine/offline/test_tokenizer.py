"""LLM.get_tokenizer(): transformers' methods, equal to transformers on the same files."""

import pytest
from transformers import PreTrainedTokenizerFast

from shoestring import LLM
from shoestring.errors import ConfigError
from shoestring.model.hf.hub import resolve

TEXTS = ["make 24 from 3,8,1", "a <｜User｜> b<｜end▁of▁sentence｜>", "é 東京 🙂", ""]
TALK = [{"role": "user", "content": "hi <｜User｜>"}, {"role": "assistant", "content": "3*8"}]


@pytest.fixture(scope="module")
def llm():
    return LLM("mini", device="cpu", max_num_seqs=2)


@pytest.fixture(scope="module")
def theirs():
    return PreTrainedTokenizerFast.from_pretrained(resolve("mini"))


@pytest.mark.parametrize("text", TEXTS)
def test_texts_and_ids(llm, theirs, text):
    ours = llm.get_tokenizer()
    ids = ours.encode(text, add_special_tokens=False)
    assert ids == theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text) == [ours.bos_token_id, *ids] == ours(text)["input_ids"]
    assert ours.tokenize(text) == theirs.tokenize(text)
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_tokens_to_ids(ours.tokenize(text)) == ids


def test_names(llm, theirs):
    ours = llm.get_tokenizer()
    for name in ("bos_token", "eos_token", "pad_token", "bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    rows = ours(TEXTS, add_special_tokens=False)["input_ids"]
    assert ours.batch_decode(rows) == TEXTS
    with pytest.raises(TypeError, match="encode takes text, not a int"):
        ours.encode(5)


def test_the_chat_template(llm):
    ours = llm.get_tokenizer()
    text = ours.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    ids = ours.apply_chat_template(TALK[:1], add_generation_prompt=True)
    output = llm.chat(TALK[:1], use_tqdm=False)[0]
    assert (text, ids) == (output.prompt, output.prompt_token_ids)
    assert ids.count(ours.special_id("<｜User｜>")) == 1  # the message's own stays text
    both = ours.apply_chat_template([TALK[:1], TALK], return_dict=True, add_generation_prompt=False)
    assert len(both["input_ids"]) == len(both["attention_mask"]) == 2
    with pytest.raises(ConfigError, match="return_tensors"):
        ours.apply_chat_template(TALK, return_tensors="pt")


def test_a_text_that_spells_special_tokens_gets_one_warning(llm, caplog):
    ours = llm.get_tokenizer()
    text = ours.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    llm.generate([text, {"prompt": text}, {"prompt_token_ids": [1, 2], "prompt": text + "x"}])
    assert not caplog.records
    for prompts in (text + " ", ["a", {"prompt": "<｜User｜>"}, text + " "], "x<think>"):
        caplog.clear()
        llm.generate(prompts)
        (record,) = caplog.records
        assert "get_tokenizer().encode(text, add_special_tokens=False)" in record.getMessage()
    ids = ours.encode(text + " ", add_special_tokens=False)
    assert ids[0] == ours.bos_token_id


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda llm: llm.generate("a", {"temperature": 0}), ConfigError),
        (lambda llm: llm.generate("a", ["greedy"]), ConfigError),
        (lambda llm: llm.generate("a", 5), ConfigError),
        (lambda llm: llm.generate(5), ConfigError),
        (lambda llm: llm.generate(None), ConfigError),
        (lambda llm: llm.chat(TALK[:1], tools="x"), ConfigError),
        (lambda llm: llm.chat(TALK[:1], temperature=1), TypeError),
        (lambda llm: llm.score("a", [5]), ConfigError),
        (lambda llm: llm.score(["a", "b"], ["c"]), ConfigError),
        (lambda llm: llm.score("a", 5), TypeError),
        (lambda llm: llm.beam_search("a", 3), ConfigError),
        (lambda llm: LLM("mini", seed="x"), ConfigError),
        (lambda llm: LLM("mini", max_num_seqs="many"), ConfigError),
        (lambda llm: LLM(5), ConfigError),
    ],
)
def test_wrong_types_end_in_one_sentence(llm, call, error):
    with pytest.raises(error) as raised:
        call(llm)
    assert "\n" not in str(raised.value)
