import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shoestring.cli.main import exit_code


@contextmanager
def served(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A `shoestring serve` on a free port: its address and its process."""
    command = [sys.executable, "-c", "from shoestring.cli.main import main; main()", "serve", "--port", "0"]
    settings = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    with subprocess.Popen([*command, *arguments], **settings) as process:
        try:
            yield process.stdout.readline().split()[-1], process
        finally:
            process.kill()


def post(url: str, body: dict) -> dict:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_a_served_model_answers_directly_and_through_another_server():
    body = {
        "model": "mini",
        "messages": [{"role": "user", "content": "Use 3, 5, 7 to make 22."}],
        "temperature": 0,
        "max_tokens": 20,
    }
    with served() as (near, process):
        reply = post(f"{near}/v1/chat/completions", body)
        with served("--upstream", f"{near}/v1") as (far, _):
            through = post(f"{far}/v1/chat/completions", body)
        assert through["choices"] == reply["choices"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_an_address_that_others_reach_is_refused(capsys):
    assert exit_code(["serve", "--host", "0.0.0.0"]) == 2
    assert "without a key" in capsys.readouterr().err
    assert exit_code(["serve", "--host", "example.com"]) == 2
    assert "not an IP address" in capsys.readouterr().err


def test_a_port_in_use_is_one_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert exit_code(["serve", "--port", str(other.getsockname()[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "ftp://x", "http://user:pw@127.0.0.1/v1"])
def test_an_upstream_that_cannot_be_is_one_sentence(capsys, url):
    assert exit_code(["serve", "--port", "0", "--upstream", url]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pw" not in error
