"""The conversation in a terminal: commands, what is remembered, and Ctrl-C on a real pseudo-terminal."""

import fcntl
import io
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from shoestring.cli import chat as module
from shoestring.cli.chat import Chat
from shoestring.cli.terminal import Screen, printable
from shoestring.engine.request import SamplingParams

CONTROLLING = (  # whatever started the tests may ignore Ctrl-C, as a shell's background jobs do
    "import fcntl, os, signal, sys, termios\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


@pytest.fixture(scope="module")
def llm(talker):
    from shoestring.engine.llm import LLM

    return LLM(talker, max_num_seqs=1, device="cpu")


@pytest.fixture
def talk(llm, monkeypatch):
    """Type lines into a chat; what it wrote and the chat itself."""

    def run(*lines, **options):
        typed, out = iter([*lines, None]), io.StringIO()
        monkeypatch.setattr(module, "read_line", lambda: next(typed))
        params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
        chat = Chat(llm, params, Screen(out, columns=60), **options)
        chat.loop()
        return out.getvalue(), chat

    return run


def test_a_conversation_is_remembered_and_cached(talk):
    out, chat = talk("hello", "again")
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    assert out.count("tokens/s") == 2
    assert printable(chat.messages[1]["content"]).strip() in out


def test_thinking_is_shown_on_demand(talk):
    out, chat = talk("/set thinking=true", "why", "/think")
    assert chat.last_thinking
    assert "thought for" in out
    assert chat.messages[1]["reasoning_content"] == chat.last_thinking
    assert "without thinking" in talk("/think")[0]


def test_commands(talk, tmp_path):
    file = tmp_path / "talk.json"
    out, chat = talk("/system be brief", "hi", f"/save {file}", f"/save {file}", "/clear", "/system", "/help")
    saved = json.loads(file.read_text())["messages"]
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert chat.messages == [{"role": "system", "content": "be brief"}]
    assert "exists already" in out
    assert "system: be brief" in out
    for name in chat.commands:
        assert name in out


def test_mistakes_are_told_and_the_chat_goes_on(talk):
    out, chat = talk(
        "/frob", "/set temprature=1", "/set max_model_len=9", "/set top_p=7", "/save", "x " * 300, "hi"
    )
    for words in ("/help", "temperature", "model is loaded", "top_p", "file name", "shorten"):
        assert words in out
    assert [message["content"] for message in chat.messages if message["role"] == "user"] == ["hi"]
    _, chat = talk("/set max_tokens=2", "hi")
    assert chat.params.max_tokens == 2
    assert chat.params.ignore_eos


def test_exit_leaves_and_completion_has_no_memory(talk):
    out, chat = talk("def f", "/exit", "never", complete=True)
    assert chat.messages == []
    assert "never" not in out
    assert "a text to continue" in out


def test_ctrl_c_keeps_what_was_said(talk, llm, monkeypatch):
    step, steps = llm.engine.step, []

    def third_time():
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(llm.engine, "step", third_time)
    out, chat = talk("/set max_tokens=100", "hello", "next")
    assert "stopped; " in out
    assert len(chat.messages) == 4
    assert llm.counters.running == 0


def test_long_lines_may_be_continued(monkeypatch):
    typed = iter(["one \\", "two"])
    monkeypatch.setattr("builtins.input", lambda _prompt: next(typed))
    assert module.read_line() == "one \ntwo"


class Typist:
    """`shoestring run` on a pseudo-terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.screen, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-c", CONTROLLING, "-m", "shoestring.cli.main", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(child)
        self.unread = b""

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def interrupt_input(self) -> None:
        """Ctrl-C once the process waits for a key: readline loses one that comes between two waits."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        time.sleep(0.3)
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.05)
        self.type("\x03")

    def read_until(self, words: str, limit_s: float = 120) -> str:
        """Everything that appears up to `words`; fails when they do not come."""
        wanted, end = words.encode(), time.monotonic() + limit_s
        while wanted not in self.unread and time.monotonic() < end:
            if select.select([self.screen], [], [], 0.5)[0]:
                try:
                    self.unread += os.read(self.screen, 4096)
                except OSError:  # Linux says so when the other side is gone
                    break
        before, found, self.unread = self.unread.partition(wanted)
        assert found, before.decode(errors="replace")
        return (before + found).decode(errors="replace")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.fixture
def typist(talker, tmp_path):
    model, made = tmp_path / "model", []
    shutil.copytree(talker, model)
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = 8192  # an answer that does not end before Ctrl-C
    (model / "config.json").write_text(json.dumps(config))

    def start(*arguments: str) -> Typist:
        made.append(Typist("run", str(model), *arguments))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_on_a_terminal_ctrl_c_stops_the_answer_and_then_leaves(typist):
    settings = ("thinking=true", "ignore_eos=true", "logit_bias={6=-100}", "seed=1")  # 6 is </think>
    person = typist(*(part for setting in settings for part in ("--set", setting)))
    person.read_until("> ")
    person.type("hello\n")
    for _ in range(3):
        person.read_until("A\x1b[J\x1b[2m  ")  # thinking, dimmed, drawn anew
    person.type("\x03")
    text = person.read_until("\n> ")
    assert "thought for" in text
    assert "stopped; " in text
    person.type("half a li")
    person.read_until("half a li")
    person.interrupt_input()
    person.read_until("> ")
    person.interrupt_input()
    assert person.process.wait(30) == 0
