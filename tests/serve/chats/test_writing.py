"""A killed process loses a second of an answer at most: the next one has the rest, marked as interrupted."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

PROGRAM = """
import sys
import uvicorn
from pathlib import Path
from shoestring.serve.app import build_app
from shoestring.serve.chats.store import LocalChatStore
from shoestring.serve.service import Service
from tests.serve.words import Words

backend = Words()
backend.gate.clear()  # the last word never comes
app = build_app(Service({"words": backend}), None, LocalChatStore(Path(sys.argv[1])))
uvicorn.run(app, port=int(sys.argv[2]), log_config=None)
"""
BODY = {"model": "words", "messages": [{"role": "user", "content": "x"}]}
CHAT = {"id": "chat-0001", "messages": [{"id": "answer-1", "role": "assistant"}]}


@pytest.fixture
def start(tmp_path, free_port):
    """Starts a process of the service, in the place of the one before."""
    processes, clients = [], []

    def start():
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "chats.db"), str(free_port)]
        processes.append(subprocess.Popen(command))
        client = httpx2.Client(base_url=f"http://127.0.0.1:{free_port}")
        clients.append(client)
        for _ in range(300):
            try:
                client.get("/chats")
                return client, processes[-1]
            except httpx2.TransportError:
                time.sleep(0.1)
        raise AssertionError("it does not answer")

    yield start
    for client in clients:
        client.close()
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def message(client):
    return client.get("/chats/chat-0001").json()["messages"][0]


def test_a_killed_process_leaves_what_it_had_written(start):
    client, process = start()
    assert client.put("/chats/chat-0001", json=CHAT).status_code == 204
    body = {"id": "answer-1", "chat": "chat-0001", "request": BODY}
    assert client.post("/answers", json=body).status_code == 202
    while not message(client)["content"]:
        time.sleep(0.1)
    before = message(client)
    assert before["is_running"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    client, _ = start()
    after = message(client)
    assert (after["is_running"], after["finish_reason"]) == (False, "interrupted")
    assert after["content"] == before["content"] == " 1 2 3 4 5 6 7"
    assert client.get("/answers/answer-1").status_code == 404
    assert client.post("/answers", json=body).status_code == 202  # it is not begun again
    assert message(client) == after
