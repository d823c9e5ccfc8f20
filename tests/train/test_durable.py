import os
import resource

import pytest

from shoestring.errors import StorageError
from shoestring.train.durable import is_full, storage_error, write_atomic


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.json"]


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
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write in .*file"):
        write_atomic(tmp_path / "file" / "x", b"")


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
