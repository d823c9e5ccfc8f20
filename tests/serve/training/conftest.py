"""A run to watch."""

import pytest

from tests.serve.training.folders import write_run


@pytest.fixture
def run(tmp_path):
    """The folder of a run that is in its third stage."""
    return write_run(tmp_path / "runs" / "demo")
