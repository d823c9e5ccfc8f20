"""Fakes shared by the data room's tests."""

import pytest


class ByteTokenizer:
    """A byte is an id; bos, eos and the fill-in-the-middle tokens follow."""

    vocab_size = 261
    begin_ids = (256,)
    eos_id = 257

    def encode_batch(self, texts):
        return [list(text.encode()) for text in texts]

    def token_bytes(self, token_id):
        return bytes([token_id]) if token_id < 256 else b""

    def special_id(self, spelling):
        return {"<｜fim▁begin｜>": 258, "<｜fim▁hole｜>": 259, "<｜fim▁end｜>": 260}[spelling]


@pytest.fixture
def tokenizer():
    return ByteTokenizer()


@pytest.fixture
def corpus_folder(tmp_path):
    """Sixty short, different Python files."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(60):
        lines = [
            f"def function_{i}_{j}(value_{j * i}):\n    return {i * 31 + j} + value_{j * i}\n"
            for j in range(5)
        ]
        (folder / f"file{i:02}.py").write_text("\n".join(lines), encoding="utf-8")
    return folder
