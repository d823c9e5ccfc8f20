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


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a server of mini and of one that passes requests on to it, and to one that is gone."""
    config = tmp_path_factory.mktemp("service") / "service.toml"
    config.write_text('memory = "4GiB"\n[aliases]\n"deepseek-chat" = "mini"\n')
    settings = ("--config", str(config), "--set", "aliases.gpt-4=mini", "--set", "max_num_seqs=2")
    with (
        served(*settings) as (near, process),
        served("--upstream", f"{near}/v1,weight=2", "--upstream", "http://127.0.0.1:9/v1") as (far, _),
    ):
        yield near, far
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_a_served_model_answers_directly_and_through_another_server(pair):
    body = {
        "model": "mini",
        "messages": [{"role": "user", "content": "Use 3, 5, 7 to make 22."}],
        "temperature": 0,
        "max_tokens": 20,
    }
    reply, through = (post(f"{url}/v1/chat/completions", body) for url in pair)
    assert through["choices"] == reply["choices"]


def test_several_models_and_upstreams_have_one_list_and_aliases(pair):
    near, far = pair
    body = {"model": "deepseek-chat", "prompt": "2+3=", "temperature": 0, "max_tokens": 3}
    reply = post(f"{near}/v1/completions", body)
    assert reply["model"] == "mini"
    assert post(f"{near}/v1/completions", {**body, "model": "gpt-4"})["choices"] == reply["choices"]
    assert post(f"{far}/v1/completions", {**body, "model": "mini"})["choices"] == reply["choices"]


def test_adapters_are_models_of_their_own(tmp_path):
    import torch

    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model
    from shoestring.model.hf.hub import resolve
    from shoestring.model.hf.peft import save_adapter
    from shoestring.model.lora import LoraConfig, add_adapters

    model = load_model(Checkpoint.open(resolve("mini")))
    add_adapters(model, LoraConfig(rank=4), torch.Generator().manual_seed(1))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(2))
    save_adapter(model, tmp_path / "sql", base="mini")
    name = f"mini+{tmp_path / 'sql'}"
    with served("mini", name, "--set", f"adapters.poem={tmp_path / 'sql'}") as (url, _):
        with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as reply:
            cards = {card["id"]: card["parent"] for card in json.load(reply)["data"]}
        assert cards == {"mini": None, name: "mini", "poem": "mini"}
        body = {"prompt": "Use 3, 5", "temperature": 0, "max_tokens": 12}
        texts = {each: post(f"{url}/v1/completions", body | {"model": each}) for each in cards}
    answers = {each: reply["choices"][0]["text"] for each, reply in texts.items()}
    assert answers[name] == answers["poem"] != answers["mini"]


def test_an_address_that_is_none_is_refused(capsys):
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


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("aliases.gpt-4=other", "not served"),
        ("aliases.mini=mini", "name of a model already"),
        ("memory=much", "not a size"),
        ("memory=1MB", "raise it"),
        ("max_num_seqs=0", "at least 1"),
        ("tls_cert=a.pem", "go together"),
        ("speed=9", "no 'speed'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(capsys, setting, words):
    assert exit_code(["serve", "--port", "0", "--set", setting]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
