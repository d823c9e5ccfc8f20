"""One process at a time has a SQLite database; a killed one does not keep it."""

import subprocess
import sys

import pytest

from shoestring.errors import ConfigError
from shoestring.serve.storage.lock import database_lock

HOLD = """
import sys
from shoestring.serve.storage.lock import database_lock
with database_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path):
    url = f"sqlite:///{tmp_path / 'new' / 'service.db'}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, url], **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {other.pid} uses .*service.db"), database_lock(url):
            pass
        other.kill()
        other.wait()
        with database_lock(url), pytest.raises(ConfigError, match="end it first"), database_lock(url):
            pass


def test_postgresql_needs_no_lock():
    with database_lock("postgresql://a/b"), database_lock("postgresql://a/b"):
        pass
