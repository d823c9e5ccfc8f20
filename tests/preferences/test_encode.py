"""Rows of preferences as token ids: prompts are never learned, and every prompt begins its conversation."""

import json
from dataclasses import dataclass, field

import pytest

from shoestring.errors import DataError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.preferences.encode import load_preferences
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.template import Piece, encode_prompt


@dataclass(frozen=True)
class Settings:
    """The fields of a recipe that reading takes."""

    data: tuple[str, ...]
    columns: dict[str, str] = field(default_factory=dict)
    seq_len: int = 100
    overlong: str = "filter"
    thinking: str = "template"


@pytest.fixture
def load(base, tmp_path):
    """`load(rows, kind, **settings)`: the encoded preferences of rows in a file."""
    files = Checkpoint.open(base)

    def read(rows: list[dict], kind: str = "pairs", template=None, **settings):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_preferences(
            Settings((str(path),), **settings), files.tokenizer, template or files.template, kind
        )

    return read


@pytest.fixture
def tokenizer(base):
    return Checkpoint.open(base).tokenizer


def texts(tokenizer, answer) -> tuple[str, str]:
    """The prompt of an answer, and what of it is learned."""
    learned = answer.ids[answer.loss_mask]
    return tokenizer.decode(answer.prompt.tolist()), tokenizer.decode(learned.tolist())


PAIR = {"prompt": "1 + 2", "chosen": "3", "rejected": "no 4"}


def test_only_the_answer_and_its_end_token_are_learned(load, tokenizer):
    data = load([PAIR])
    prompt = encode_prompt([{"role": "user", "content": "1 + 2"}], tokenizer, DeepSeekTemplate())
    assert [answer.prompt.tolist() for answer in data.answers] == [prompt, prompt]
    end = tokenizer.decode([tokenizer.eos_id])
    assert [texts(tokenizer, answer)[1] for answer in data.answers] == ["3" + end, "no 4" + end]
    assert [answer.is_chosen for answer in data.answers] == [True, False]
    assert (list(data.units), data.turn_ends) == ([(0, 1)], (tokenizer.eos_id,))


def test_text_messages_and_implicit_prompts_are_the_same(load):
    user, good, bad = (
        {"role": r, "content": c} for r, c in (("user", "1 + 2"), ("assistant", "3"), ("assistant", "no 4"))
    )
    explicit = {"prompt": [user], "chosen": [good], "rejected": [bad]}
    implicit = {"chosen": [user, good], "rejected": [user, bad]}
    assert len({load([row]).key for row in (PAIR, explicit, implicit)}) == 1
    assert (
        load(
            [{"q": "1 + 2", "a": "3", "b": "no 4"}], columns={"prompt": "q", "chosen": "a", "rejected": "b"}
        ).key
        == load([PAIR]).key
    )


def test_earlier_answers_in_the_prompt_are_not_learned(load, tokenizer):
    prompt = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    data = load([{"prompt": prompt, "chosen": "4", "rejected": "5"}])
    before, learned = texts(tokenizer, data.answers[0])
    assert "2" in before
    assert "2" not in learned


def test_pairs_become_two_answers_for_kto(load):
    data = load([PAIR, {"prompt": "5", "completion": "no", "label": False}], "answers")
    assert list(data.units) == [(0,), (1,), (2,)]
    assert [answer.is_chosen for answer in data.answers] == [True, False, False]


def test_too_long_answers_are_left_out_cut_or_refused(load, caplog):
    long = {"prompt": "1", "chosen": "3 " * 200, "rejected": "4"}
    data = load([PAIR, long, long])
    assert (len(data), data.manifest["files"][0]["too_long"]) == (1, 2)
    assert "2 of 3 preferences have more than seq_len = 100" in caplog.text
    cut = load([PAIR, long], overlong="truncate")
    assert len(cut.answers[cut.units[1][0]].ids) == 100
    assert len(load([PAIR, long], "answers")) == 3
    with pytest.raises(DataError, match=r"rows.jsonl line 2: it has more than seq_len = 100 tokens"):
        load([PAIR, long], overlong="error")
    with pytest.raises(DataError, match="all 1 have more than seq_len = 100"):
        load([long])


def test_an_answer_that_the_template_does_not_write_is_refused(load):
    """A template that leaves thinking out would teach something else than what was preferred."""

    class Thoughtless(DeepSeekTemplate):
        def render(self, messages, **options):
            plain = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
            return super().render(plain, **options)

    thinking = {"role": "assistant", "content": "3", "reasoning_content": "1 2 3"}
    row = PAIR | {"chosen": [thinking]}
    with pytest.raises(DataError, match=r"line 1: .*does not write the reasoning_content.*thinking=inline"):
        load([row], template=Thoughtless())
    data = load([row], template=Thoughtless(), thinking="inline")
    assert data.answers[0].loss_mask.sum() > load([PAIR]).answers[0].loss_mask.sum()


def test_columns_that_are_not_used_are_named(load, caplog):
    load([PAIR | {"score_of_it": 1}])
    assert "columns that are not used: score_of_it" in caplog.text


def test_a_prompt_that_is_no_beginning_is_refused(load):
    """A template that writes the prompt otherwise once it has an answer would teach what is never asked."""

    class Changing(DeepSeekTemplate):
        def render(self, messages, **options):
            pieces = super().render(messages, **options)
            return (
                pieces
                if options.get("add_generation_prompt")
                else [*pieces[:1], Piece(text="5"), *pieces[1:]]
            )

    with pytest.raises(DataError, match=r"rows.jsonl line 1: .* the prompt is not the beginning"):
        load([PAIR], template=Changing())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "1", "chosen": "2"}, "no chosen and rejected"),
        ({"prompt": "1", "chosen": "2", "rejected": "2"}, "the same"),
        ({"prompt": [{"role": "user"}], "chosen": "1", "rejected": "2"}, "message 0"),
        ({"prompt": [{"role": "judge", "content": "1"}], "chosen": "1", "rejected": "2"}, "judge"),
    ],
)
def test_what_is_no_preference_is_named_with_its_line(load, row, words):
    with pytest.raises(DataError, match=f"rows.jsonl line 2: .*{words}"):
        load([PAIR, row])


def test_a_file_that_is_missing_is_named():
    with pytest.raises(DataError, match="there is no file"):
        load_preferences(Settings(("/nowhere.jsonl",)), None, None, "pairs")
