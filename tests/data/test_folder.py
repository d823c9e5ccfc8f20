import errno
import json
import os

import pytest

from shoestring.data.folder import new_folder, open_sealed, seal
from shoestring.errors import DataError, StorageError


def make(target, text="abc"):
    with new_folder(target, need_bytes=10) as partial:
        (partial / "a.bin").write_text(text)
        seal(partial, {"kind": "test", "answer": 42})


def test_a_finished_folder_opens_with_its_manifest(tmp_path):
    make(tmp_path / "cache" / "x")
    manifest = open_sealed(tmp_path / "cache" / "x", kind="test", names=("a.bin",))
    assert manifest["answer"] == 42
    assert manifest["stored"]["a.bin"]["bytes"] == 3
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["x"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_stays_when_the_writer_is_interrupted(tmp_path, error):
    def interrupted():
        with new_folder(tmp_path / "x", need_bytes=10) as partial:
            (partial / "a.bin").write_text("abc")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_folder_and_the_bytes(tmp_path):
    def full():
        with new_folder(tmp_path / "x", need_bytes=12_345):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"No space left.*12,345 bytes") as caught:
        full()
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"), new_folder(tmp_path / "file" / "x", need_bytes=1):
        pass


def test_the_first_to_finish_wins(tmp_path):
    with new_folder(tmp_path / "x", need_bytes=1) as mine:
        theirs = tmp_path / "x.partial-elsewhere-1"
        theirs.mkdir()
        (theirs / "a.bin").write_text("theirs")
        seal(theirs, {"kind": "test"})
        os.rename(theirs, tmp_path / "x")
        (mine / "a.bin").write_text("mine")
        seal(mine, {"kind": "test"})
    assert (tmp_path / "x" / "a.bin").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    child = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(child, 0)
    with new_folder(tmp_path / "x", need_bytes=1) as partial:
        dead = tmp_path / partial.name.replace(str(os.getpid()), str(child))
        dead.mkdir()
        living = tmp_path / partial.name.replace(str(os.getpid()), "1")
        living.mkdir()
        (partial / "a.bin").write_text("abc")
        seal(partial, {"kind": "test"})
    make(tmp_path / "x2")
    with new_folder(tmp_path / "x", need_bytes=1):
        assert not dead.exists()
        assert living.exists()


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
