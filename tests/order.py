"""The order of the tests: slow folders first, so that all processes end together; shuffled on request."""

import random
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

SLOW_FIRST = ("page", "cli", "train", "kernels", "rl", "e2e", "engine", "serve", "distill", "preferences")
TOGETHER = "tests/page/"
"""A folder whose tests share services and a browser that are dear to start: one process has them all."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle", nargs="?", const="new", help="tests in the order of a seed, by default of a new one"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed here, so that all processes have the same."""
    if config.option.shuffle == "new":
        config.option.shuffle = str(random.SystemRandom().randrange(1_000_000))


def pytest_report_header(config: pytest.Config) -> str | None:
    return config.option.shuffle and f"order: --shuffle {config.option.shuffle}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by folder, file and test; a file's tests stay together, and so do a folder's files."""
    seed = config.option.shuffle

    def place(name: str) -> float:
        return random.Random(f"{seed} {name}").random() if seed else 0

    def key(item: pytest.Item) -> tuple[Any, ...]:
        path = item.nodeid.partition("::")[0]
        parts = path.split("/")
        folder = parts[1] if len(parts) > 2 else ""
        rank = SLOW_FIRST.index(folder) if folder in SLOW_FIRST else len(SLOW_FIRST)
        return rank, place(folder), folder, place(path), path if seed else "", place(item.nodeid)

    items.sort(key=key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadFileScheduling | None":
    """Give files to processes in the order above, with `--dist loadfile`."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER if nodeid.startswith(TOGETHER) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)
