"""The files of deploy/: their settings and options exist, and they leave the service its time to end."""

import re
from pathlib import Path

import pytest
import typer.main

from shoestring.cli.application import app
from shoestring.config import load
from shoestring.serve.config import ServiceConfig

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_settings_are_real_and_ask_for_keys():
    config = load(ServiceConfig, DEPLOY / "service.toml", ["url=https://ai.example.com"])
    assert config.accounts
    assert config.database.startswith("postgresql://")
    assert "@" in config.database
    assert ":" not in config.database.partition("//")[2].partition("@")[0], (
        "a password has no place in a file"
    )


@pytest.mark.parametrize("name", ["shoestring.service", "compose.yaml", "Dockerfile"])
def test_commands_have_only_options_that_exist(name):
    serve = typer.main.get_command(app).commands["serve"]
    known = {option for parameter in serve.params for option in parameter.opts}
    lines = [line for line in (DEPLOY / name).read_text().splitlines() if not line.startswith("#")]
    text = re.search(r"(?:shoestring serve|\"serve\").*(?:\n.*\"--set\".*)?", "\n".join(lines))[0]
    options = set(re.findall(r"--[a-z-]+", text))
    assert options
    assert options <= known


def test_the_service_ends_before_it_is_killed():
    """The 30 s of replies under way are shorter than what systemd and compose wait."""
    from shoestring.serve.server import DRAIN_S

    unit, compose = ((DEPLOY / name).read_text() for name in ("shoestring.service", "compose.yaml"))
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > DRAIN_S
    assert int(re.search(r"stop_grace_period: (\d+)s", compose)[1]) > DRAIN_S
