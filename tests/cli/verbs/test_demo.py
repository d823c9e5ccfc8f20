"""`shoestring demo` on a terminal: the page at once, the training beside it, one Ctrl-C for both."""

import json
import os
import pty
import re
import socket
import sys
import time
import urllib.request

import pytest

from shoestring.cli.verbs.demo import listen_near
from shoestring.train.runs.lock import holder

COMMAND = [sys.executable, "-m", "shoestring.cli.main", "demo", "--port", "0", "--device", "cpu"]


class Terminal:
    """A terminal in which the demo runs."""

    def __init__(self, *arguments):
        self.text = ""
        self.pid, self._handle = pty.fork()
        if not self.pid:
            os.environ["OMP_NUM_THREADS"] = "1"
            os.environ["PIP_NO_INDEX"] = "1"  # the package index is out of reach
            os.execv(sys.executable, [*COMMAND, *arguments])

    def read_until(self, pattern):
        """What the terminal shows, up to and with a pattern."""
        end_s = time.monotonic() + 60
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < end_s, self.text
            try:
                self.text += os.read(self._handle, 4096).decode(errors="replace")
            except OSError:  # the program has ended
                raise AssertionError(self.text) from None
        return match

    def press_ctrl_c(self):
        os.write(self._handle, b"\x03")

    def exit_code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal():
    """Opens terminals; a demo that is still there at the end is killed."""
    opened = []

    def open_terminal(*arguments):
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_terminal
    for each in opened:
        try:
            os.kill(each.pid, 9)
            os.waitpid(each.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def get(url):
    with urllib.request.urlopen(url, timeout=20) as reply:
        return reply.read().decode()


def test_the_page_is_there_the_training_goes_on_and_ctrl_c_ends_both(terminal, tmp_path):
    out = tmp_path / "runs" / "demo"
    first = terminal("--out", str(out))
    url = first.read_until(r"chat with mini: (http://127.0.0.1:\d+)")[1]
    assert "<script" in get(url)
    first.read_until("stage 1 of 6: corpus")
    first.read_until("smollm2 is (left out: could not fetch|on the page now)")
    assert holder(out) is not None
    body = {"model": "mini", "messages": [{"role": "user", "content": "make 24 from 3,8,1"}], "max_tokens": 8}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    assert json.loads(get(request))["usage"]["completion_tokens"] == 8
    first.press_ctrl_c()
    first.read_until("`make demo` goes on with it")
    assert first.exit_code() == 0
    assert holder(out) is None


def test_a_finished_demo_serves_its_models_at_once(terminal, tmp_path):
    from shoestring.model.hf.hub import resolve

    out = tmp_path / "runs" / "demo"
    (out / "zero").mkdir(parents=True)
    (out / "config.toml").write_text('[[stages]]\nname = "zero"\n[stages.grpo]\nsteps = 2\n')
    (out / "zero" / "stage.json").write_text('{"name": "zero"}')
    (out / "zero" / "model").symlink_to(resolve("mini"))
    shown = terminal("--out", str(out))
    url = shown.read_until(r"chat with mini: (http://\S+)")[1]
    shown.read_until("demo/zero is on the page now")
    served = {model["id"] for model in json.loads(get(f"{url}/v1/models"))["data"]}
    assert served - {"smollm2"} == {"mini", "demo/zero"}
    assert "watch the training" not in shown.text
    assert holder(out) is None
    shown.press_ctrl_c()
    shown.read_until("`make demo` serves them again")
    assert shown.exit_code() == 0


def test_another_port_is_taken_and_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listen_near(port) as listener:
            assert listener.getsockname()[1] != port
    assert capsys.readouterr().out == f"port {port} is in use\n"
