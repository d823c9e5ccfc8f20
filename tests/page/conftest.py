"""A browser over the real service: Debian's Chromium or another one that is installed."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.page.echo import Echo
from tests.page.people import make_admin
from tests.page.running import Running

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1440, 900)}
OPEN = pytest.StashKey[ExitStack]()
UNUSED = (
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,LensOverlay,MediaRouter,"
    "HttpsFirstBalancedModeAutoEnable,PaintHolding,ThirdPartyStoragePartitioning,OptimizationHints,AimEnabled,"
    "AvoidCorsURLLoaderRestartOnRedirect,NetworkTimeServiceQuerying,PreconnectToSearch,"
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup"
)
"""What Playwright turns off, and the last two: pages behind the address bar, opened with each window."""
WAIT_MS = 20_000
"""Longest wait for something on the page: the machine may be busy."""
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session")
def browser(pytestconfig: pytest.Config) -> Iterator[Browser]:
    """The browser. `CHROMIUM` names another one than the system's.

    It ends with the folder: while it is open, Playwright has an event loop on this thread, and no test of the
    service could run one.
    """
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs a browser: apt install chromium")
    with ExitStack() as stack:
        pytestconfig.stash[OPEN] = stack
        playwright = stack.enter_context(sync_playwright())
        arguments = ["--no-sandbox", f"--disable-features={UNUSED}"]
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        stack.callback(chromium.close)
        yield chromium


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End the browser with the last test of this folder."""
    try:
        return (yield)
    finally:
        if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
            item.config.stash.get(OPEN, ExitStack()).close()


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    """The server of the models `echo` and `parrot`."""
    server = Echo()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick_echo(echo: Echo) -> None:
    """Each test begins with answers that come at once."""
    echo.pause_s = 0.0
    echo.requests.clear()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Running]:
    """A service without accounts: `mini`, `echo` and `parrot`."""
    running = Running(tmp_path_factory.mktemp("local"), "mini", "--upstream", echo.url, "--set=watts=30")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def hosted(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Running]:
    """A service with accounts: `mini`, `echo` and `parrot`."""
    folder = tmp_path_factory.mktemp("hosted")
    running = Running(folder, "mini", "--upstream", echo.url, "--set=accounts=true")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with accounts whose model `mini` costs money, and with an admin."""
    folder = tmp_path_factory.mktemp("paid")
    running = Running(folder, "mini", "--set=accounts=true", "--set=prices=deepseek-2025-01")
    running.start()
    make_admin(running)
    yield running
    running.stop()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, service: Running) -> Iterator[OpenPage]:
    """Open a page of a service: `open_page("#/translate", size="phone", scheme="dark")`.

    Calls with the same `context` are tabs of one browser. Whatever is said on the console fails the test, but
    for what `allowed` has a part of.
    """
    contexts: dict[str, BrowserContext] = {}
    messages: list[str] = []
    excuses = ["Service Worker registration blocked"]

    def open_it(
        path: str = "",
        *,
        of: Running = service,
        size: str = "desk",
        scheme: str = "light",
        language: str = "en",
        context: str = "",
        allowed: tuple[str, ...] = (),
        has_worker: bool = False,
    ) -> Page:
        width, height = SIZES[size]
        name = context or f"context {len(contexts)}"
        if name not in contexts:
            contexts[name] = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
                locale=language,
                permissions=["clipboard-read", "clipboard-write"],
                has_touch=size == "phone",
                service_workers="allow" if has_worker else "block",  # it fetches every file of the page
            )
            contexts[name].set_default_timeout(WAIT_MS)
        page = contexts[name].new_page()
        excuses.extend(allowed)
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(f"error: {error}"))
        page.goto(f"{of.url}/{path}")
        return page

    yield open_it
    for context in contexts.values():
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")  # a reply that a test delays may still be under way
        context.close()
    said = [message for message in messages if not any(excuse in message for excuse in excuses)]
    assert said == []


@pytest.fixture
def pictures() -> Path | None:
    """A folder for screenshots, when SHOESTRING_PICTURES names one."""
    folder = os.environ.get("SHOESTRING_PICTURES")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
