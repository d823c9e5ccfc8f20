"""Clients of npm against the live server: each has a script beside this file."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "npm"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with the scripts and their packages."""
    folder = tmp_path_factory.mktemp("npm") / "scripts"
    shutil.copytree(HERE, folder)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("script", ["openai.mjs", "anthropic.mjs", "ai.mjs"])
def test_a_client_gets_what_it_expects(root, calling_root, folder, script):
    command = ["node", script, root, calling_root]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
