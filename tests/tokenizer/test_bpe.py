import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError, StorageError, TokenizerError
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
special_soup = st.lists(
    st.one_of(
        st.sampled_from(sp.SPECIAL_TOKENS),
        st.sampled_from([t[:5] for t in sp.SPECIAL_TOKENS]),
        st.sampled_from([t[-5:] for t in sp.SPECIAL_TOKENS]),
        st.text(max_size=3),
    ),
    max_size=20,
).map("".join)


@given(any_text)
def test_round_trip(tokenizer: Tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, allow_special=True)) == text


@given(special_soup)
def test_user_text_never_becomes_special(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.specials.values())
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_made_when_asked_for(tokenizer: Tokenizer):
    text = "".join(sp.SPECIAL_TOKENS)
    assert tokenizer.encode(text, allow_special=True) == [tokenizer.special_id(s) for s in sp.SPECIAL_TOKENS]


def test_ids_stand_as_in_deepseek_v3(tokenizer: Tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)
    assert tokenizer.vocab_size == 1000


@pytest.mark.parametrize(
    "text", ["e\u0301", "\u212b", "\ufb01", "a\r\nb\rc", "\x00\x01", "\ufeff", "  x  ", "\U0010ffff", "١٢٣٤"]
)
def test_nothing_is_normalized(tokenizer: Tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_numbers_are_cut_in_threes_and_lines_are_not_crossed(tokenizer: Tokenizer):
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("123456\nimport os")]
    assert all(len(piece) <= 3 for piece in pieces if piece.isdigit())
    assert not any("\n" in piece and piece.strip() for piece in pieces)


def test_lone_surrogate_is_refused_with_its_place(tokenizer: Tokenizer):
    with pytest.raises(TokenizerError, match=r"U\+D800.*character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(TokenizerError, match="training text 1"):
        Tokenizer.train(["fine", "\udfff"], 300)


@given(st.lists(any_text, max_size=5))
def test_batch_equals_one_by_one(tokenizer: Tokenizer, texts: list[str]):
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@given(st.lists(st.integers(0, 1100), max_size=50))
def test_token_bytes_join_to_the_decoding(tokenizer: Tokenizer, ids: list[int]):
    joined = b"".join(tokenizer.token_bytes(i) for i in ids)
    assert tokenizer.decode(ids) == joined.decode("utf-8", errors="replace")


def test_decode_can_leave_special_tokens_out(tokenizer: Tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("hi"), tokenizer.eos_id]
    assert tokenizer.decode(ids) == sp.BOS + "hi" + sp.EOS
    assert tokenizer.decode(ids, skip_special=True) == "hi"


def test_training_is_deterministic(texts: list[str], tokenizer: Tokenizer, tmp_path: Path):
    """Twice here, and once in another process with another hash seed and one thread."""
    tokenizer.save(tmp_path / "a")
    Tokenizer.train(iter(texts), 1000).save(tmp_path / "b")
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    script = (
        "import json, pathlib, sys; from shoestring.tokenizer.bpe import Tokenizer; "
        "folder = pathlib.Path(sys.argv[1]); "
        "Tokenizer.train(json.loads((folder / 'texts.json').read_text()), 1000).save(folder / 'c')"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    a, b, c = ((tmp_path / name / "tokenizer.json").read_bytes() for name in "abc")
    assert a == b == c


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size is 200"):
        Tokenizer.train(["text"], 200)


def test_the_smallest_vocabulary_still_holds_every_byte():
    small = Tokenizer.train([""], 256 + len(sp.SPECIAL_TOKENS))
    assert small.decode(small.encode("any \U0001f600 text")) == "any \U0001f600 text"


HOSTILE = {
    "letters": "a",
    "digits": "7",
    "spaces": " ",
    "line ends": "\n",
    "spaces then line ends": "   \n",
    "punctuation": "!",
    "marked words": ".a",
    "combining marks": "\u0301",
    "emoji": "\U0001f600",
    "joined emoji": "\U0001f469\u200d",
    "controls": "\x00",
    "Chinese": "中",
    "half a special token": "<｜",
    "tabs": "\t",
}


@pytest.mark.parametrize("family", HOSTILE)
def test_hostile_text_takes_linear_time(tokenizer: Tokenizer, family: str):
    """Doubling the text at most triples the time (in the best of tries), up to a mebibyte."""
    unit = HOSTILE[family]
    long = unit * ((1 << 20) // len(unit.encode()))

    def seconds(text: str) -> float:
        start = time.process_time()
        tokenizer.encode(text)
        return time.process_time() - start

    ratios = []
    for _ in range(4):
        half, whole = seconds(long[: len(long) // 2]), seconds(long)
        ratios.append(whole / max(half, 0.05))
        if ratios[-1] < 3:
            break
    assert min(ratios) < 3, f"{family}: {ratios}"


def test_long_runs_round_trip(tokenizer: Tokenizer):
    for unit in HOSTILE.values():
        text = unit * 3000
        assert tokenizer.decode(tokenizer.encode(text)) == text


# --- files


def test_load_gives_what_was_saved(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert (loaded.specials, loaded.roles) == (tokenizer.specials, tokenizer.roles)
        assert loaded.encode("def f(x): return 1") == tokenizer.encode("def f(x): return 1")


def test_roles_may_be_serialized_added_tokens(tokenizer: Tokenizer, tmp_path: Path):
    """As DeepSeek's tokenizer_config.json has them."""
    tokenizer.save(tmp_path)
    entry = {"__type": "AddedToken", "content": sp.EOS, "lstrip": False, "normalized": True, "rstrip": False}
    config = {
        "bos_token": {**entry, "content": sp.BOS},
        "eos_token": entry,
        "pad_token": entry,
        "unk_token": None,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (0, 1, 1)


def test_without_a_config_deepseek_s_spellings_are_known(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.load(tmp_path).eos_id == 1


def test_a_missing_role_is_named(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": sp.BOS}))
    with pytest.raises(TokenizerError, match="no eos_token"):
        _ = Tokenizer.load(tmp_path).eos_id


def broken(tokenizer: Tokenizer, folder: Path, change) -> Path:
    tokenizer.save(folder)
    file = folder / "tokenizer.json"
    definition = json.loads(file.read_text(encoding="utf-8"))
    change(definition)
    file.write_text(json.dumps(definition))
    return file


CHANGES = {
    "WordPiece": lambda d: d["model"].update(type="WordPiece"),
    "not byte-level": lambda d: d.update(decoder=None),
    "model.vocab is not an object": lambda d: d["model"].update(vocab=[["a", 1]]),
    "not a whole number": lambda d: d["model"]["vocab"].update(zz=-1),
    "not a whole number from": lambda d: d["model"]["vocab"].update(zz=1 << 40),
    "cannot be used as a tokenizer": lambda d: d["model"].update(merges=[["qqq", "zzz"]]),
    "no content": lambda d: d["added_tokens"].append({"id": 5}),
    "longer than": lambda d: d["added_tokens"].append({"id": 5, "content": "x" * 1000}),
    "used as a tokenizer": lambda d: d["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(((("),
    "plain text becomes": lambda d: d["added_tokens"].append(
        {**d["added_tokens"][0], "content": "def", "id": d["model"]["vocab"]["def"]}
    ),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_wrong_definitions_are_refused_by_name(tokenizer: Tokenizer, tmp_path: Path, sentence: str):
    file = broken(tokenizer, tmp_path, CHANGES[sentence])
    with pytest.raises(TokenizerError, match=sentence) as caught:
        Tokenizer.load(tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[]", b"[" * 100_000, b"null", b'{"model": 3}'])
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: bytes):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@given(
    cut=st.integers(0, 10_000),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
)
def test_mutated_files_load_or_are_refused(tmp_path_factory, cut: int, flips: list[tuple[int, int]]):
    small = tmp_path_factory.getbasetemp() / "mutated"
    if not (small / "whole.json").exists():
        Tokenizer.train(["a b c"], 300).save(small)
        (small / "tokenizer.json").rename(small / "whole.json")
    data = bytearray((small / "whole.json").read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    (small / "tokenizer.json").write_bytes(bytes(data[: len(data) - cut // 4]))
    try:
        Tokenizer.load(small / "tokenizer.json")
    except TokenizerError as error:
        named = str(small) in str(error)
        assert named, error  # noqa: PT017  either outcome is right


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json at"):
        Tokenizer.load(tmp_path)


def test_a_role_that_is_no_token_is_refused(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<nothing>"}))
    with pytest.raises(TokenizerError, match="'<nothing>'"):
        Tokenizer.load(tmp_path)


def test_saving_into_a_file_is_a_storage_error(tokenizer: Tokenizer, tmp_path: Path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StorageError, match="taken"):
        tokenizer.save(tmp_path / "taken")


def test_a_small_embedding_is_refused_with_both_numbers(tokenizer: Tokenizer):
    tokenizer.check_fits(1000)
    with pytest.raises(TokenizerError, match=r"1000 ids.*999 rows"):
        tokenizer.check_fits(999)


# --- transformers as oracle


@given(any_text)
def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, oracle, text: str):
    assert oracle(text)["input_ids"] == tokenizer.encode(text, allow_special=True)


@given(special_soup)
def test_transformers_gives_the_same_special_ids(tokenizer: Tokenizer, oracle, text: str):
    assert oracle(text)["input_ids"] == tokenizer.encode(text, allow_special=True)


@given(st.lists(st.integers(0, 999), max_size=50))
def test_transformers_decodes_the_same_text(tokenizer: Tokenizer, oracle, ids: list[int]):
    assert oracle.decode(ids) == tokenizer.decode(ids)


def test_transformers_knows_the_same_roles(tokenizer: Tokenizer, oracle):
    assert (oracle.bos_token_id, oracle.eos_token_id, oracle.pad_token_id) == (0, 1, 2)
    assert len(oracle) == tokenizer.vocab_size
