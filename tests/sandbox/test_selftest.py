"""The self-test sees a boundary that is none: here, ordinary processes that pretend to be a sandbox."""

import os
import subprocess
import sys

import pytest

from shoestring.sandbox import selftest
from shoestring.sandbox.process import Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")


class Open:
    """Runs programs with nothing around them but a clock; only fit for the self-test, which does no harm."""

    pid = os.getpid()

    def run(self, program, stdin="", *, limits=None):
        if program in (selftest.PROCESSES, selftest.FILES, selftest.DAEMON):
            return Outcome(status="ok", code=0, stdout="", seconds=0.0)
        done = subprocess.run([sys.executable, "-c", program], input=stdin, capture_output=True, text=True)
        return Outcome(status="ok", code=done.returncode, stdout=done.stdout, seconds=0.0)


def test_no_boundary_is_seen_in_each_respect(monkeypatch):
    monkeypatch.setattr(selftest, "_is_idle", lambda pid: False)
    found = selftest.weaknesses(Open())
    expected = """read files outside; see files outside; write files outside; reach the network; start
        a program; reach local services; see other processes; see the environment; open
        sockets; make namespaces; limit for memory; limit for output; limit for timeout;
        processes survive"""
    for words in " ".join(expected.split()).split("; "):
        assert any(words in sentence for sentence in found), words


def test_what_runs_nothing_is_no_sandbox_either():
    class Dead(Open):
        def run(self, program, stdin="", *, limits=None):
            return Outcome(status="fault", code=0, stdout="", seconds=0.0)

    assert "an ordinary program does not run" in selftest.weaknesses(Dead())
