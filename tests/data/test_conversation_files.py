"""Conversations from files: encoding, length limit, every bad line by name."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.conversation_files import load_conversations
from shoestring.data.conversations import Conversations
from shoestring.errors import DataError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.template import encode_chat

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "what is 2 + 3"},
    {"role": "assistant", "reasoning_content": "two and three", "content": "5"},
    {"role": "user", "content": "and 4"},
    {"role": "assistant", "content": "6"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["what is 2 + 3 and 4", "Be brief."] * 5, 320)


def write(path: Path, *lines) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def load(path: Path, tokenizer: Tokenizer, **settings) -> Conversations:
    return load_conversations([path], tokenizer, DeepSeekTemplate(), **{"seq_len": 1000, **settings})


def test_a_conversation_is_what_encode_chat_makes(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": TALK, "source": "us", "reward": 1.0}, "\n")
    data = load(path, tokenizer)
    expected = encode_chat(TALK, tokenizer, DeepSeekTemplate())
    assert data.ids.tolist() == expected.ids
    assert data.loss_mask.tolist() == expected.loss_mask
    assert data.text_bytes.tolist() == [len("two and three56")]
    assert data.turn_ends == (tokenizer.eos_id,)
    [batch] = data.batches([0], 10_000)
    assert batch.inputs[0].tolist() == expected.ids[:-1]
    assert batch.targets[0].tolist() == expected.ids[1:]
    assert batch.loss_mask[0].tolist() == expected.loss_mask[1:]
    [file] = data.manifest["files"]
    assert (file["conversations"], file["too_long"]) == (1, 0)
    assert (file["tokens"], file["learned_tokens"]) == (len(expected.ids) - 1, sum(expected.loss_mask))


def test_all_tokens_may_be_learned(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": TALK[:2]}, {"messages": TALK})
    data = load(path, tokenizer, learn="all")
    assert all(batch.loss_mask[batch.targets >= 0].all() for batch in data.batches(range(2), 10_000))


def test_long_conversations_are_left_out_and_counted_never_cut(tokenizer, tmp_path):
    long = [{"role": "user", "content": "what " * 99}, {"role": "assistant", "content": "5"}]
    path = write(tmp_path / "a.jsonl", {"messages": long}, {"messages": TALK}, {"messages": long})
    data = load(path, tokenizer, seq_len=60)
    assert len(data) == 1
    assert data.manifest["files"][0]["too_long"] == 2
    exact = len(encode_chat(TALK, tokenizer, DeepSeekTemplate()).ids)
    assert len(load(path, tokenizer, seq_len=exact)) == 1
    with pytest.raises(DataError, match=f"all 3 have more than seq_len = {exact - 1}"):
        load(path, tokenizer, seq_len=exact - 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is not JSON"),
        ("[" * 200_000, "it is not JSON"),
        ("9" * 5000, "it is not JSON"),
        ("[1]", "it is not an object"),
        ('{"messages": "hi"}', "'messages' is not a list"),
        ('{"messages": []}', "the conversation is empty"),
        ('{"messages": [7]}', "message 0 is a int"),
        ('{"messages": [{"role": "wizard", "content": ""}]}', "the role 'wizard'"),
        ('{"messages": [{"role": "user"}]}', r"message 0 \(user\) has no content"),
        ('{"messages": [{"role": "user", "content": 5}]}', "not text"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no turn of the assistant"),
        ('{"messages": [{"role": "assistant", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [{"role": "assistant", "content": "a"}], "tools": [1]}', '"tools"'),
    ],
)
def test_a_bad_line_is_named_with_file_number_and_reason(tokenizer, tmp_path, line, reason):
    path = write(tmp_path / "talks.jsonl", {"messages": TALK}, "\n", line + "\n")
    with pytest.raises(DataError, match=f"talks.jsonl line 3: .*{reason}"):
        load(path, tokenizer)


@given(st.binary(max_size=200))
def test_no_line_does_more_than_be_refused(tokenizer, tmp_path_factory, line):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(json.dumps({"messages": TALK}).encode() + b"\n" + line)
    with suppress(DataError):
        assert len(load(path, tokenizer)) >= 1


def test_bytes_that_are_not_utf8_and_missing_files_are_sentences(tokenizer, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"messages": "\xff"}')
    with pytest.raises(DataError, match="line 1: it is not UTF-8"):
        load(path, tokenizer)
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "none.jsonl", tokenizer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no .jsonl"):
        load(tmp_path / "empty", tokenizer)
    with pytest.raises(DataError, match="no conversation"):
        load(write(tmp_path / "empty.jsonl"), tokenizer)


def test_a_line_without_end_is_not_read_into_memory(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("shoestring.rows.read.LINE_BYTES", 100)
    path = write(tmp_path / "a.jsonl", "x" * 5000)
    with pytest.raises(DataError, match="line 1: it is longer than 100 bytes"):
        load(path, tokenizer)


def test_the_held_out_share_is_kept_and_equal_conversations_stay_together(tokenizer, tmp_path):
    def talk(i):
        asked = {"role": "user", "content": str(i)}
        return {"messages": [asked, {"role": "assistant", "content": str(i * i)}]}

    data = load(write(tmp_path / "a.jsonl", *(talk(i % 50) for i in range(100))), tokenizer)
    train, heldout = data.split(0.2)
    assert sorted(train + heldout) == list(range(100))
    assert 20 <= len(heldout) <= 21
    assert {i % 50 for i in train}.isdisjoint(i % 50 for i in heldout)
    assert data.split(0.0) == (list(range(100)), [])
    one = load(write(tmp_path / "b.jsonl", talk(1)), tokenizer)
    with pytest.raises(DataError, match="all 1 conversations would be held out"):
        one.split(0.5)
