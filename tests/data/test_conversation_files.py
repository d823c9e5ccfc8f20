"""Conversations from files: encoding, length limit, every bad line by name."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.chat.mixture import DataSource
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


def shown(data: Conversations, tokenizer: Tokenizer) -> str:
    """The text that is learned."""
    pairs = zip(data.ids.tolist(), data.loss_mask, strict=True)
    return tokenizer.decode([token for token, is_learned in pairs if is_learned])


def test_marked_turns_are_not_learned_and_counted(tokenizer, tmp_path):
    marked = [TALK[1], {**TALK[2], "weight": 0}, TALK[3], {**TALK[4], "train": True}]
    whole = [TALK[3], {**TALK[4], "train": False}]
    data = load(write(tmp_path / "a.jsonl", {"messages": marked}, {"messages": whole}), tokenizer)
    assert shown(data, tokenizer) == "6<｜end▁of▁sentence｜>"
    [file] = data.manifest["files"]
    assert (file["conversations"], file["unlearned"], file["unlearned_turns"]) == (1, 1, 2)
    with pytest.raises(DataError, match="1 are marked not to be learned, by weight 0 or train false"):
        load(write(tmp_path / "b.jsonl", {"messages": whole}), tokenizer)


def test_forms_may_be_mixed_in_one_file_and_over_files(tokenizer, tmp_path, caplog):
    rows = [
        {"messages": TALK[3:]},
        {"conversations": [{"from": "human", "value": "and 4"}, {"from": "gpt", "value": "6"}]},
        {"instruction": "and 4", "input": "", "output": "6"},
        {"prompt": "and 4", "completion": "6"},
    ]
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.jsonl", *rows)
    (tmp_path / "d" / "b.csv").write_text("instruction,output\nand 4,6\n")
    (tmp_path / "d" / "c.json").write_text(json.dumps(rows, indent=1))
    data = load_conversations([tmp_path / "d"], tokenizer, DeepSeekTemplate(), seq_len=100)
    assert len(data) == 9
    assert len(set(data.digests.tolist())) == 1
    assert [file["path"] for file in data.manifest["files"]] == ["d/a.jsonl", "d/b.csv", "d/c.json"]
    assert not caplog.text


def test_columns_and_weights_are_of_a_source(tokenizer, tmp_path):
    first = write(tmp_path / "a.jsonl", {"q": "and 4", "a": "6"}, {"q": "2 + 3", "a": "5"})
    second = write(tmp_path / "b.jsonl", {"messages": TALK})
    columns = {"prompt": "q", "completion": "a"}
    mixture = [DataSource(path=str(first), weight=2.0, columns=columns), str(second)]
    data = load_conversations(mixture, tokenizer, DeepSeekTemplate(), seq_len=100)
    assert (data.weights, data.source_of.tolist()) == ((2.0, 1.0), [0, 0, 1])
    assert [file["weight"] for file in data.manifest["files"]] == [2.0, 1.0]


def test_what_is_not_used_is_named_once_for_a_file(tokenizer, tmp_path, caplog):
    rows = [{"messages": [{**TALK[3], "mood": 1}, TALK[4]], "score": 3, "source": "us"}] * 3
    load(write(tmp_path / "a.jsonl", *rows), tokenizer)
    assert [record.getMessage() for record in caplog.records] == [
        "a.jsonl: the column 'score' is not used; --set columns.NAME=score gives it a meaning (3 rows)",
        "a.jsonl: the key 'mood' of messages is not known here, and only a template can use it (3 rows)",
    ]


def test_rows_without_a_conversation_are_an_error_or_are_counted(tokenizer, tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", {"messages": TALK}, "{\n", {"messages": TALK[:2]}, {"text": "x"})
    with pytest.raises(DataError, match=r"a.jsonl line 2: it is not JSON"):
        load(path, tokenizer)
    path_of_three = write(tmp_path / "b.jsonl", {"messages": TALK}, {"text": "x"})
    with pytest.raises(DataError, match=r"line 2: .*, --set bad_rows=filter leaves such rows out"):
        load(path_of_three, tokenizer)
    data = load(path, tokenizer, bad_rows="filter")
    assert (len(data), data.manifest["files"][0]["bad_rows"]) == (1, 3)
    with pytest.raises(DataError, match=r"no conversation to learn .*c.jsonl line 1: it has no messages"):
        load(write(tmp_path / "c.jsonl", {"text": "x"}), tokenizer, bad_rows="filter")


def test_long_conversations_are_left_out_shortened_or_an_error(tokenizer, tmp_path):
    long = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "2 + 3 " * 40}]
    path = write(tmp_path / "a.jsonl", {"messages": TALK}, {"messages": long})
    with pytest.raises(DataError, match=r"a.jsonl line 2: it has \d+ tokens, more than seq_len = 60; --set"):
        load(path, tokenizer, seq_len=60, overlong="error")
    assert len(load(path, tokenizer, seq_len=60)) == 1
    data = load(path, tokenizer, seq_len=60, overlong="truncate")
    assert data.lengths.tolist()[1] == 59
    assert data.manifest["files"][0]["shortened"] == 1
    text = tokenizer.decode(data.ids[data.ends[0] :][data.loss_mask[data.ends[0] :]].tolist())
    assert data.text_bytes[1] == len(text)
    asked = [{"role": "user", "content": "what " * 99}, {"role": "assistant", "content": "5"}]
    both = write(tmp_path / "b.jsonl", {"messages": TALK}, {"messages": asked})
    assert load(both, tokenizer, seq_len=60, overlong="truncate").manifest["files"][0]["too_long"] == 1


def test_much_that_is_left_out_is_a_warning_with_the_setting(tokenizer, tmp_path, caplog):
    long = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "2 + 3 " * 40}]
    few = write(tmp_path / "few.jsonl", *[{"messages": TALK}] * 19, {"messages": long})
    load(few, tokenizer, seq_len=60)
    assert not caplog.records
    many = write(tmp_path / "many.jsonl", *[{"messages": TALK}] * 9, *[{"messages": long}] * 2)
    longest = int(load(many, tokenizer).lengths.max()) + 1
    load(many, tokenizer, seq_len=60)
    assert caplog.records[-1].getMessage() == (
        "2 of 11 conversations (18%) are not learned whole: 2 longer than seq_len = 60 tokens "
        f"(the longest has {longest}; --set seq_len={longest}, or --set overlong=truncate)"
    )
    load(many, tokenizer, seq_len=60, overlong="truncate")
    assert "2 shortened to seq_len = 60 tokens" in caplog.records[-1].getMessage()


def test_the_last_turn_alone_may_be_learned(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": TALK})
    assert shown(load(path, tokenizer, learn="last"), tokenizer) == "6<｜end▁of▁sentence｜>"
