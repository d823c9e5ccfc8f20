"""A sandbox is opened only when its self-test finds no way out of it."""

import sys

import pytest

from shoestring.errors import MissingDependencyError
from shoestring.sandbox import open as module
from shoestring.sandbox.open import open_sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")


def test_a_weak_sandbox_is_not_opened(monkeypatch):
    try:
        open_sandbox().close()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(module, "weaknesses", lambda sandbox: ["programs can reach the network"])
    with pytest.raises(MissingDependencyError, match="not a boundary here: programs can reach the network"):
        open_sandbox()
