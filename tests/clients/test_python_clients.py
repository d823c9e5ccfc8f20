"""Python clients and frameworks against the live server: each has a folder with its requirements and a check.

Each gets an environment of its own, since they do not agree on versions.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "python"
CHECKS = ("litellm", "lm_eval", "deepl")
TOOL_CHECKS = ("instructor", "pydantic_ai", "llama_index")
"""Those whose tool calls have strings or other free parts."""
LANGCHAIN_BAR = 32
"""Of LangChain's 39 standard tests that run a client. The others want a model that chooses well:
test_tool_calling (twice) and _async want {"input": 3}, test_agent_loop (twice) a call nobody forces,
test_unicode_tool_call_integration a name in Chinese, test_json_mode a document without its schema."""
CLIENTS = ("TestChatOpenAI", "TestChatOpenAIResponses", "TestChatAnthropic", "TestChatDeepSeek")
PYTEST = (
    *("-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--allow-hosts=127.0.0.1"),
    *("-o", "asyncio_default_test_loop_scope=session", "-o", "asyncio_default_fixture_loop_scope=session"),
)

pytestmark = pytest.mark.slow


def installed(name: str, folder: Path) -> tuple[Path, Path]:
    """An environment with a client's requirements, and a copy of its folder: (interpreter, copy)."""
    copy, environment = folder / name, folder / "environment"
    shutil.copytree(HERE / name, copy)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "-r", str(copy / "requirements.txt")]
    subprocess.run(command, check=True)
    return python, copy


@pytest.mark.parametrize("name", CHECKS)
def test_a_client_gets_what_it_expects(root, model, tmp_path, name):
    check(name, tmp_path, root, model)


@pytest.mark.parametrize("name", TOOL_CHECKS)
def test_a_client_of_tools_gets_what_it_expects(calling_root, model, tmp_path, name):
    check(name, tmp_path, calling_root, model)


def check(name: str, folder: Path, root: str, model: Path) -> None:
    """Run a client's check."""
    python, folder = installed(name, folder)
    command = [python, "check.py", root, str(model)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture(scope="module")
def langchain(tmp_path_factory):
    return installed("langchain", tmp_path_factory.mktemp("langchain"))


@pytest.mark.parametrize("client", CLIENTS)
def test_langchains_standard_tests(calling_root, langchain, client):
    python, folder = langchain
    command = [python, "-m", "pytest", *PYTEST, f"standard_tests.py::{client}"]
    environment = {**os.environ, "SHOESTRING_ROOT": calling_root}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    count = re.search(r"(\d+) passed", done.stdout)
    assert count is not None, done.stdout + done.stderr
    assert int(count[1]) >= LANGCHAIN_BAR, done.stdout
