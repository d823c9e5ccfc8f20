import json

import pytest

from shoestring.data.folder import open_sealed, seal
from shoestring.errors import DataError


def make(target, text="abc"):
    target.mkdir()
    (target / "a.bin").write_text(text)
    seal(target, {"kind": "test", "answer": 42})


def test_a_finished_folder_opens_with_its_manifest(tmp_path):
    make(tmp_path / "x")
    manifest = open_sealed(tmp_path / "x", kind="test", names=("a.bin",))
    assert manifest["answer"] == 42
    assert manifest["stored"]["a.bin"]["bytes"] == 3


def damage_size(folder):
    (folder / "a.bin").write_text("abcd")


def damage_content(folder):
    (folder / "a.bin").write_text("abd")


def damage_missing(folder):
    (folder / "a.bin").unlink()


@pytest.mark.parametrize("damage", [damage_size, damage_content, damage_missing])
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    make(tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(DataError, match=r"a\.bin.*delete"):
        open_sealed(tmp_path / "x", kind="test", names=("a.bin",))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"kind": "other", "stored": {}}', '{"stored": 3}']
)
def test_a_damaged_or_foreign_manifest_is_refused_by_name(tmp_path, text):
    make(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_sealed(tmp_path / "x", kind="test", names=("a.bin",))


def test_a_file_the_manifest_does_not_know_is_refused(tmp_path):
    make(tmp_path / "x")
    path = tmp_path / "x" / "manifest.json"
    path.write_text(json.dumps({"kind": "test", "stored": {}}))
    with pytest.raises(DataError, match=r"a\.bin"):
        open_sealed(tmp_path / "x", kind="test", names=("a.bin",))
