import contextlib
import os
import resource
import subprocess

import pytest

from shoestring import durable
from shoestring.durable import is_full, new_folder, require_space, storage_error, write_atomic, write_stream
from shoestring.errors import StorageError

FULL = OSError(28, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_folder(target, text="abc", error=None):
    with new_folder(target, needed_bytes=10) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a").write_text(text)
        if error:
            raise error


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_atomic(path, b"one")
    write_atomic(path, "two: \u00e9")
    assert path.read_bytes() == b"two: \xc3\xa9"
    write_stream(path, lambda file: file.writelines([b"thr", b"ee"]), needed_bytes=5)
    assert path.read_bytes() == b"three"
    assert names(path.parent) == ["file.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="5,000 bytes needed"):
            write_atomic(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_is_too_small_is_not_filled(tmp_path, monkeypatch):
    usage = durable.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda _: usage._replace(free=50))
    require_space(tmp_path / "not" / "there", 50)
    with pytest.raises(StorageError, match=r"no room for .*file: about 51 bytes needed, 50 free"):
        write_stream(tmp_path / "file", lambda _: pytest.fail("written"), needed_bytes=51)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/x: .* choose another folder"):
        write_atomic(tmp_path / "file" / "x", b"")
    with pytest.raises(StorageError, match=r"cannot write .*file/x: .* choose another folder"):
        write_folder(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (PermissionError(13, "Permission denied"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("I/O error: Permission denied (os error 13)"), False),
        (ValueError("28"), False),
    ],
)
def test_which_errors_mean_a_full_disk(error, full, tmp_path):
    assert is_full(error) is full
    message = str(storage_error(error, tmp_path / "not" / "there", needed_bytes=1234))
    assert ("1,234 bytes needed" in message) is full


@pytest.mark.parametrize(("code", "ignored"), [(22, True), (5, False)])
def test_only_folders_may_refuse_to_be_synced(tmp_path, monkeypatch, code, ignored):
    real = os.fsync

    def refuse_folders(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with contextlib.nullcontext() if ignored else pytest.raises(StorageError, match="Input/output error"):
        write_atomic(tmp_path / "file", b"new")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(22, "Invalid argument")))
    with pytest.raises(StorageError, match="Invalid argument"):
        write_atomic(tmp_path / "file", b"newer")


def test_a_folder_appears_whole_and_alone(tmp_path):
    write_folder(tmp_path / "new" / "x")
    assert (tmp_path / "new" / "x" / "sub" / "a").read_text() == "abc"
    assert names(tmp_path / "new") == ["x"]


def test_all_of_a_folder_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = [], durable.sync
    monkeypatch.setattr(durable, "sync", lambda path: synced.append(path) or real(path))
    write_folder(tmp_path / "x")
    aside = next(path for path in synced if path.name.startswith("x.tmp-"))
    assert set(synced[:-1]) == {aside, aside / "sub", aside / "sub" / "a"}
    assert synced[-1] == tmp_path


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError()])
def test_nothing_stays_of_a_folder_that_was_interrupted(tmp_path, error):
    with pytest.raises(type(error)):
        write_folder(tmp_path / "x", error=error)
    assert names(tmp_path) == []


def test_a_full_disk_names_the_folder_and_the_larger_of_needed_and_written_bytes(tmp_path):
    with pytest.raises(StorageError, match=r"no room for .*/x: about 10 bytes needed"):
        write_folder(tmp_path / "x", error=FULL)
    with pytest.raises(StorageError, match=r"no room for .*/x: about 4,321 bytes needed"):
        write_folder(tmp_path / "x", text="x" * 4321, error=RuntimeError("(os error 28)"))
    assert names(tmp_path) == []


def test_the_first_to_finish_wins(tmp_path):
    with new_folder(tmp_path / "x", needed_bytes=1) as mine:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a").write_text("theirs")
        (mine / "a").write_text("mine")
    assert (tmp_path / "x" / "a").read_text() == "theirs"
    assert names(tmp_path) == ["x"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    child = ended.pid
    with new_folder(tmp_path / "x", needed_bytes=1) as temporary:
        dead = tmp_path / temporary.name.replace(str(os.getpid()), str(child))
        living = tmp_path / temporary.name.replace(str(os.getpid()), "1")
        elsewhere = tmp_path / f"x.tmp-elsewhere-{child}"
        for path in (dead, living, elsewhere):
            path.mkdir()
        write_folder(tmp_path / "x2")
        assert dead.exists()
    with new_folder(tmp_path / "x", needed_bytes=1):
        assert not dead.exists()
        assert living.exists()
        assert elsewhere.exists()
    with new_folder(tmp_path / "y", needed_bytes=1, leftovers=r"x\.tmp-.*?"):
        assert not elsewhere.exists()
        assert living.exists()


@pytest.mark.parametrize(
    ("folder", "variable", "default"),
    [
        (durable.cache_folder, "XDG_CACHE_HOME", ".cache"),
        (durable.data_folder, "XDG_DATA_HOME", ".local/share"),
    ],
)
def test_the_folders_are_the_systems(tmp_path, monkeypatch, folder, variable, default):
    monkeypatch.setenv(variable, str(tmp_path))
    assert folder("data") == tmp_path / "shoestring" / "data"
    monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder("data") == tmp_path / "home" / default / "shoestring" / "data"
