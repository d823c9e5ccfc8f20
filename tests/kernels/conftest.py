"""GPU programs without a GPU: one worker process in which Triton interprets them, shared by these tests."""

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

TIMEOUT_S = 120


@pytest.fixture(scope="session")
def triton_is_there() -> None:
    """Skips where Triton, which only PyTorch's GPU builds bring along, is not installed."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed; these tests ran with triton==3.7.1, the version of torch 2.13")


@pytest.fixture(scope="session")
def interpreted(triton_is_there: None) -> Iterator[Callable[..., Any]]:
    """Calls a function in a process of its own: Triton chooses its interpreter once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(len, ()).result(TIMEOUT_S)  # starts the worker while the variable is set
            patch.undo()
            yield lambda function, *arguments: pool.submit(function, *arguments).result(TIMEOUT_S)
