"""The lock of a run's folder, between processes."""

import subprocess
import sys

import pytest

from shoestring.errors import ConfigError, StorageError
from shoestring.train.lock import FILE, holder, read_facts, run_lock

HOLD = "import sys; from pathlib import Path; from shoestring.train.lock import run_lock\n"
HOLD += "with run_lock(Path(sys.argv[1]), until='zero'): print('held', flush=True); sys.stdin.read()"


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert holder(tmp_path) == process.pid
        assert read_facts(tmp_path) == {"pid": process.pid, "until": "zero"}
        with pytest.raises(ConfigError, match=f"process {process.pid} trains"), run_lock(tmp_path):
            pass
        process.kill()
        process.wait()
    assert holder(tmp_path) is None
    with run_lock(tmp_path):
        assert read_facts(tmp_path).keys() == {"pid"}


def test_a_folder_is_made_and_one_that_cannot_be_is_one_sentence(tmp_path):
    with run_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / FILE).is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), run_lock(tmp_path / "file"):
        pass


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": "1"}', '{"pid": -1}', "[" * 100_000])
def test_a_hostile_file_names_no_process(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert holder(tmp_path) is None
    with run_lock(tmp_path / "other"):
        (tmp_path / "other" / FILE).write_text(content)
        assert holder(tmp_path / "other") is None


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "real").write_text('{"pid": 2, "until": "x"}')
    (tmp_path / FILE).symlink_to(tmp_path / "real")
    assert read_facts(tmp_path) == {}
    assert holder(tmp_path) is None
