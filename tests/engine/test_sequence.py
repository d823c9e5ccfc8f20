"""One request that fails in any part of the step fails alone."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from shoestring.engine.request import Request
from shoestring.engine.sequence import Failures, Sequence, message
from shoestring.errors import ConfigError


@pytest.fixture(scope="module")
def isolation():
    """bench/isolation.py as a module."""
    bench = Path(__file__).resolve().parents[2] / "bench"
    sys.path.insert(0, str(bench))
    try:
        spec = importlib.util.spec_from_file_location("bench_isolation", bench / "isolation.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(bench))
    return module


@pytest.fixture
def sequence():
    return Sequence.start(Request(request_id="a", prompt_token_ids=(1, 2)), 0, 9)


def test_only_the_failing_request_fails(isolation):
    """The acceptance measurement at a twentieth of its size."""
    result = isolation.measure(50, seed=3)
    assert result["failing_parts"] > 20
    assert result["not_failed_as_meant"] == {}
    assert (result["differences"], result["pages_lost"], result["rows_lost"]) == (0, 0, 0)
    assert result["failed"] == result["failing_parts"]


def test_the_first_error_counts(sequence):
    failures = Failures()
    failures.add(sequence, ConfigError("too complex"))
    failures.add(sequence, ConfigError("later"))
    assert failures.drain() == {sequence: "too complex"}
    assert failures == {}


def test_an_error_that_is_not_ours_is_logged_with_its_traceback(sequence, caplog):
    with caplog.at_level(logging.ERROR):
        Failures().add(sequence, KeyError("x"))
    assert "request a: KeyError: 'x'" in caplog.text
    assert caplog.records[0].exc_info
    assert message(ConfigError("our sentence")) == "our sentence"
