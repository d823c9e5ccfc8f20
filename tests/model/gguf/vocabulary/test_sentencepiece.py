"""SentencePiece vocabularies in GGUF: ids by greedy merging of scores, and merges as scores."""

import json
import random
import sysconfig
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import CheckpointError, TokenizerError
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    read_tokenizer,
)
from shoestring.model.gguf.vocabulary.writer import write_tokenizer
from shoestring.model.presets import TINY
from shoestring.tokenizer.bpe import Tokenizer
from tests.tokenizer.sentencepieces import BYTES, SPACE, train

CONFIG = replace(TINY, vocab_size=720, bos_token_id=None)
ROLES = {"bos_token": "<s>", "eos_token": "</s>"}
HARD = ["Hello world", "  a", "x  y ", "naïve 我 😀", "<s> </s>", "aaaa aaaaa", "return self.x\n\t1234", ""]


def merged(text: str, score_of: dict[str, float], prefix: bool = True) -> list[str]:
    """Tokens of a text: the neighbors whose token has the highest score are merged, the first ones first."""
    symbols = list((SPACE if prefix and text else "") + text.replace(" ", SPACE))
    while True:
        pairs = [a + b for a, b in pairwise(symbols)]
        places = [(score_of[pair], -place) for place, pair in enumerate(pairs) if pair in score_of]
        if not places:
            break
        place = -max(places)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    known = set(score_of)
    return [token for s in symbols for token in ([s] if s in known else [BYTES[b] for b in s.encode()])]


def as_file(pieces: dict[str, float], **changes) -> GGUFFile:
    """A file of these pieces with their scores, behind the usual special tokens and bytes."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array([0.0] * 259 + list(pieces.values()), np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
    }
    changes = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata | changes, tensors={})


def random_pieces(seed: int) -> dict[str, float]:
    """Pieces of a few letters that SentencePiece could have learned: each is made of two earlier ones."""
    chance = random.Random(seed)
    pieces = list("abc" + SPACE)
    for _ in range(60):
        piece = chance.choice(pieces) + chance.choice(pieces)
        if piece not in pieces and len(piece) < 9:
            pieces.append(piece)
    scores = [-float(place) for place in range(len(pieces))]
    if seed % 2:
        chance.shuffle(scores)
    return dict(zip(pieces, scores, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_ids_are_those_of_greedy_merging(seed):
    pieces, chance = random_pieces(seed), random.Random(seed + 100)
    tokenizer = read_tokenizer(as_file(pieces))
    assert tokenizer.begin_ids == (1,)
    for _ in range(200):
        text = "".join(chance.choice("abc é") for _ in range(chance.randint(0, 14)))
        tokens = [tokenizer._full.id_to_token(i) for i in tokenizer.encode(text)]
        assert tokens == merged(text, pieces), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_without_the_prefix_texts_begin_as_they_are():
    pieces = random_pieces(1)
    tokenizer = read_tokenizer(as_file(pieces, add_space_prefix=False))
    assert [tokenizer._full.id_to_token(i) for i in tokenizer.encode("ab a")] == merged("ab a", pieces, False)
    assert tokenizer.decode(tokenizer.encode(" ab")) == " ab"


def test_kinds_of_tokens():
    pieces = {"a": -1.0, "b": -2.0, SPACE: -3.0, "<x>": 0.0, SPACE * 2: 0.5, "<pad>": 0.0, "q": 0.0}
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    kinds += [NORMAL, NORMAL, NORMAL, USER_DEFINED, USER_DEFINED, CONTROL, UNUSED]
    file = as_file(pieces, token_type=np.array(kinds), padding_token_id=264, add_bos_token=False)
    tokenizer = read_tokenizer(file)
    assert set(tokenizer.specials) == {"<unk>", "<s>", "</s>", "<pad>"}
    assert tokenizer.begin_ids == ()
    assert tokenizer.pad_id == 264
    assert tokenizer.encode("a<x>")[-1] == 262
    assert 263 in tokenizer.encode("a  b")  # two spaces have a token, as any other
    assert tokenizer.encode("q") == [261, 3 + ord("q")]


WRONG = {
    "no scores": ({"scores": None}, "one score for each of its tokens"),
    "few scores": ({"scores": np.zeros(5, np.float32)}, "one score for each of its tokens"),
    "text scores": ({"scores": ["a"]}, "one score for each of its tokens"),
    "equal scores": ({"scores": np.full(400, -1000, np.float32)}, "tokens the score -1000, so the order"),
    "spaces": ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces = True is not supported"),
    "map": ({"precompiled_charsmap": np.ones(8, np.uint8)}, "precompiled_charsmap = .* is not supported"),
    "no bytes": (
        {"token_type": np.array([UNUSED] * 259 + [NORMAL] * 32)},
        "no tokens for single bytes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_vocabulary_is_one_sentence(case):
    changes, words = WRONG[case]
    pieces = dict(list(random_pieces(0).items())[:40])
    with pytest.raises((CheckpointError, TokenizerError), match=words):
        read_tokenizer(as_file(pieces, **changes))


def test_a_piece_of_an_unknown_character_is_refused():
    with pytest.raises(CheckpointError, match="has the token 'aß' and no token for a character of it"):
        read_tokenizer(as_file({"a": -1.0, "aß": -2.0}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    source = Path(sysconfig.get_path("stdlib"), "calendar.py").read_text(encoding="utf-8")
    Tokenizer(train([source]), ROLES, adds_bos=True).save(path)
    return path


@pytest.mark.parametrize("whole", [True, False])
def test_an_export_comes_back_with_equal_ids(folder, whole):
    metadata = write_tokenizer(folder, CONFIG)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.token_type"][:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    if not whole:
        del metadata["tokenizer.huggingface.json"]
        metadata["tokenizer.ggml.scores"] = np.array(metadata["tokenizer.ggml.scores"], np.float32)
    before = Tokenizer.load(folder)
    after = read_tokenizer(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors={}))
    texts = [*HARD, Path(__file__).read_text(encoding="utf-8")[:4000]]
    assert after.encode_batch(texts) == before.encode_batch(texts)
    assert (after.roles, after.begin_ids, after.prefix) == (before.roles, before.begin_ids, before.prefix)


def test_merges_and_steps_that_sentencepiece_has_not_are_refused(folder, tmp_path):
    def rewritten(change):
        data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        change(data)
        (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")

    rewritten(lambda data: data["model"]["merges"].pop(3))
    with pytest.raises(TokenizerError, match="has other merges than SentencePiece would make"):
        write_tokenizer(tmp_path, CONFIG)
    rewritten(lambda data: data["normalizer"]["normalizers"].append({"type": "Lowercase"}))
    with pytest.raises(TokenizerError, match="normalizes or splits texts"):
        write_tokenizer(tmp_path, CONFIG)


def test_ids_are_those_of_the_library(tmp_path):
    """A model that SentencePiece itself trains, as llama.cpp's converter writes it down."""
    library = pytest.importorskip("sentencepiece")
    source = Path(sysconfig.get_path("stdlib"), "calendar.py")
    library.SentencePieceTrainer.train(
        input=str(source), model_prefix=str(tmp_path / "m"), vocab_size=600, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, max_sentence_length=100_000, minloglevel=2,
    )  # fmt: skip
    theirs = library.SentencePieceProcessor(str(tmp_path / "m.model"))
    kinds = {"unknown": UNKNOWN, "control": CONTROL, "byte": BYTE, "unused": UNUSED}
    ids = range(theirs.vocab_size())
    types = [next((k for n, k in kinds.items() if getattr(theirs, f"is_{n}")(i)), NORMAL) for i in ids]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [theirs.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": np.array([theirs.get_score(i) for i in ids], np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
    }
    ours = read_tokenizer(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors={}))
    lines = [line for line in Path(__file__).read_text(encoding="utf-8").splitlines() if line]
    for text in [*HARD, *lines]:
        assert ours.encode(text) == theirs.encode(text), text
