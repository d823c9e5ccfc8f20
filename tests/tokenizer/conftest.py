import json
import os
import sysconfig
from pathlib import Path

import pytest

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.definition import train

os.environ["HF_HUB_OFFLINE"] = "1"  # the oracle must not look for anything outside

OTHERS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<tool_call>",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """A small real corpus: some of the standard library's modules."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = ["argparse.py", "ast.py", "calendar.py", "dataclasses.py", "heapq.py", "textwrap.py", "typing.py"]
    return [(folder / name).read_text(encoding="utf-8") for name in names]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return Tokenizer.train(texts, 1000)


@pytest.fixture(scope="session")
def wide(texts: list[str]) -> Tokenizer:
    """A tokenizer that also has the special tokens of other families, and ends its turns as ChatML does."""
    definition = train(texts, 600, 2)
    first = max(definition["model"]["vocab"].values()) + 1
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for number, spelling in enumerate(OTHERS):
        definition["added_tokens"].append({"id": first + number, "content": spelling, **plain})
    roles = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return Tokenizer(definition, roles)


def hugging_face(tokenizer: Tokenizer, folder: Path):
    from transformers import AutoTokenizer

    tokenizer.save(folder)
    assert json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def oracle(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    """transformers' reading of `tokenizer` as we saved it."""
    return hugging_face(tokenizer, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def wide_oracle(wide: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    return hugging_face(wide, tmp_path_factory.mktemp("wide"))
