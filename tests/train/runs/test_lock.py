"""The lock of a run's folder, between processes."""

import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from threading import Thread

import pytest

from shoestring.durable import file_lock
from shoestring.errors import ConfigError, StorageError
from shoestring.train.runs.lock import FILE, holder, read_facts, run_lock

HOLD = "import sys; from pathlib import Path; from shoestring.train.runs.lock import run_lock\n"
HOLD += "with run_lock(Path(sys.argv[1]), until='zero'): print('held', flush=True); sys.stdin.read()"


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert holder(tmp_path) == process.pid
        facts = read_facts(tmp_path)
        assert (facts["pid"], facts["until"]) == (process.pid, "zero")
        sentence = (
            rf"process {process.pid} of {re.escape(facts['host'])} has trained in .* for 0:00:\d\d; end it"
        )
        with pytest.raises(ConfigError, match=sentence), run_lock(tmp_path):
            pass
        process.kill()
        process.wait()
    assert holder(tmp_path) is None
    with run_lock(tmp_path):
        assert "until" not in read_facts(tmp_path)


@pytest.mark.parametrize("before", ["", '{"pid": 4194305, "host": "%s"}'])
def test_the_sentence_waits_for_what_the_holder_writes(tmp_path, before):
    """Between the lock and its facts the file is empty, or has those of the last process, which is dead."""
    (tmp_path / FILE).write_text(before % socket.gethostname() if before else "")

    def write_late():
        time.sleep(0.2)
        (tmp_path / FILE).write_text('{"pid": 1, "host": "elsewhere"}')

    with file_lock(tmp_path / FILE):
        thread = Thread(target=write_late)
        thread.start()
        with pytest.raises(ConfigError, match="process 1 of elsewhere has trained in"), run_lock(tmp_path):
            pass
        thread.join()


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RuntimeError), run_lock(out):
        raise RuntimeError
    assert not out.exists()
    with run_lock(out):
        (out / "config.toml").write_text("")
    assert (out / FILE).is_file()


def test_only_one_of_many_that_come_and_go_is_inside(tmp_path):
    """Each removes the folder when it leaves: a lock on a file that was removed is none."""
    out = tmp_path / "run"
    counts, inside = [], []

    def come_and_go():
        for _ in range(50):
            with suppress(ConfigError, StorageError), run_lock(out):
                inside.append(1)
                counts.append(len(inside))
                inside.pop()

    threads = [Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(counts) == {1}


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
