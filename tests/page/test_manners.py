"""Manners of all pages: screen readers, the keyboard, right to left, offline, and nothing that leaves."""

import json
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.page.people import ADMIN, sign_in

ROOT = Path(__file__).parents[2]
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
BUILT = ROOT / "shoestring" / "serve" / "pages" / "app"
LOCAL = ("new", "translate", "training", "models", "api", "memory", "account")
ADMINS = tuple(
    f"admin/{name}" for name in ("users", "invitations", "gate", "incidents", "models", "money", "log")
)
HOSTED = ("new", "api", "account", *ADMINS)
ENTRY = ("sign-in", "sign-up", "sign-in/forgotten")
LOOKS = [
    ("desk", "light"),
    ("phone", "dark"),
    pytest.param("desk", "dark", marks=pytest.mark.slow),
    pytest.param("phone", "light", marks=pytest.mark.slow),
]
SERIOUS = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 120)).join(" | ")}`);
}"""
OVERFLOW = """() => {
  const wide = [...document.querySelectorAll("body *")].filter((node) => {
    const box = node.getBoundingClientRect();
    const isOut = box.right > innerWidth + 1 || box.left < -1;
    return isOut && box.width && !node.closest(".sidebar:not(.open), .scroll, pre, svg, .tabs, .hidden");
  });
  return wide.slice(0, 3).map((node) => node.outerHTML.slice(0, 120));
}"""
NEXT_FOCUS = """() => {
  const node = document.activeElement;
  const hasOutline = (each) => each && getComputedStyle(each).outlineStyle !== "none";
  const isSeen = [node, node.parentElement, node.parentElement?.parentElement].some(hasOutline);
  return { html: node.outerHTML.slice(0, 150), isSeen };
}"""
CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"
STOPS = """(controls) => [...document.querySelectorAll(controls)]
  .filter((node) => !node.disabled && node.checkVisibility({ visibilityProperty: true }) && !node.hidden)
  .filter((node) => !node.closest("details:not([open])") || node.matches("details > summary"))
  .map((node) => node.outerHTML.slice(0, 150))"""


def show(page, url, route):
    """Go to a page, and wait until it is there."""
    page.goto(f"{url}/#/{route}")
    page.locator("main :is(h1, textarea)").first.wait_for(state="attached")
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
    page.wait_for_timeout(200)  # what the page asks the service for is there


def serious(page):
    """What is wrong on a page for screen readers; the program that looks is loaded once for each document."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    return page.evaluate(SERIOUS)


@pytest.fixture
def tours(open_page, service, paid):
    """Pages with their services and routes: of one person's service, of strangers, and of an admin."""

    def begin(*, of=("local", "entry", "admin"), **fields):
        if "local" in of:
            yield open_page(**fields), service.url, LOCAL
        if "entry" in of:
            yield open_page(of=paid, **fields), paid.url, ENTRY
        if "admin" in of:
            page = open_page("#/sign-in", of=paid, **fields)
            sign_in(page, paid, ADMIN, "#/account")
            yield page, paid.url, HOSTED

    return begin


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_every_page_is_good_for_screen_readers_and_from_right_to_left(tours, pictures, size, scheme):
    wrong = []
    for page, url, routes in tours(size=size, scheme=scheme):
        for route in routes:
            show(page, url, route)
            wrong += [f"{route} {sentence}" for sentence in serious(page)]
            page.evaluate("document.documentElement.dir = 'rtl'")
            wrong += [f"{route} is too wide: {html}" for html in page.evaluate(OVERFLOW)]
            if pictures and route in ("account", "admin/users"):
                page.screenshot(path=pictures / f"rtl-{route.replace('/', '-')}-{size}.png")
            page.evaluate("document.documentElement.dir = 'ltr'")
            wrong += [f"{route} is too wide: {html}" for html in page.evaluate(OVERFLOW)]
    assert wrong == []


def test_a_shared_chat_is_good_for_screen_readers(open_page, service):
    page = open_page("#/new")
    page.get_by_label("Ask something").fill("2+3=")
    page.get_by_label("Ask something").press("Enter")
    page.locator(".figures").wait_for()
    chat = page.url.rpartition("/")[2]
    leaf = page.evaluate(f"fetch('/chats/{chat}').then((reply) => reply.json())")["leaf"]
    share = (
        f"fetch('/chats/{chat}/share', {{method: 'POST', headers: {{'Content-Type': 'application/json'}}, "
    )
    path = page.evaluate(f"{share}body: JSON.stringify({{leaf: '{leaf}'}})}}).then((reply) => reply.json())")[
        "path"
    ]
    page.goto(f"{service.url}{path}")
    page.locator("article").nth(1).wait_for()
    assert serious(page) == []


def test_every_control_is_reached_by_the_tab_key_and_seen(tours):
    for page, url, routes in tours():
        for route in routes:
            if route == "new":
                continue
            show(page, url, route)
            page.evaluate("document.activeElement.blur()")
            stops = page.evaluate(STOPS, CONTROLS)
            reached = []
            for _ in range(2 * len(stops) + 5):
                page.keyboard.press("Tab")
                reached.append(page.evaluate(NEXT_FOCUS))
                if set(stops) <= {each["html"] for each in reached}:
                    break
            assert set(stops) <= {each["html"] for each in reached}, route
            hidden = [each["html"] for each in reached if not each["isSeen"] and "<body" not in each["html"]]
            assert hidden == [], route


def test_the_keyboard_moves_between_pages_and_closes_what_is_open(open_page):
    page = open_page("#/account")
    page.get_by_role("heading", name="Account").wait_for()
    page.get_by_role("link", name="API", exact=True).click()
    page.get_by_role("heading", name="API", exact=True).wait_for()
    page.wait_for_function("() => document.activeElement.matches('h1')")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").get_by_text("Search chats").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_label("Path").fill("/x?y")
    assert page.get_by_role("dialog").count() == 0
    page.keyboard.press("Control+k")
    page.wait_for_function("() => document.activeElement.id === 'search'")
    phone = open_page("#/api", size="phone")
    phone.get_by_role("button", name="Menu").click()
    phone.get_by_role("navigation").wait_for()
    phone.keyboard.press("Escape")
    phone.get_by_role("navigation").wait_for(state="hidden")
    assert phone.evaluate("document.activeElement.getAttribute('aria-label')") == "Menu"


def test_nothing_moves_for_those_who_do_not_want_it(open_page):
    page = open_page("#/api", size="phone")
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("heading", name="API", exact=True).wait_for()
    moving = page.evaluate(
        "() => [...document.querySelectorAll('body, body *')].filter((node) => "
        "['animationName', 'transitionDuration'].some((name) => "
        "!['none', '0s', ''].includes(getComputedStyle(node)[name]))).length"
    )
    assert moving == 0


def test_nothing_leaves_the_origin(tours):
    places = {}
    for page, url, routes in tours(has_worker=True):
        seen = places.setdefault(url, set())
        page.context.on("request", lambda request, seen=seen: seen.add("://".join(urlsplit(request.url)[:2])))
        for route in routes:
            show(page, url, route)
        page.wait_for_load_state("networkidle")
    assert {url: seen - {"blob://", "data://"} for url, seen in places.items()} == {
        url: {url} for url in places
    }


def test_the_page_opens_without_the_service_and_shows_chats_of_this_browser(open_page, service):
    gone = ("ERR_INTERNET_DISCONNECTED", "ERR_FAILED")
    page = open_page(of=service, has_worker=True, context="offline", allowed=gone)
    page.evaluate("localStorage.setItem('place', 'browser')")
    page.reload()
    page.get_by_role("textbox", name="Ask").fill("2+3=")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Answer again").wait_for()
    page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    page.wait_for_function("() => caches.keys().then((names) => names.length === 1)")
    kept = page.evaluate(
        "caches.keys().then(([name]) => caches.open(name)).then((cache) => cache.keys())"
        ".then((requests) => requests.map(({ url }) => new URL(url).pathname))"
    )
    assert [path for path in kept if path != "/" and not path.startswith("/app/")] == []
    page.context.set_offline(True)
    page.reload()
    page.get_by_text("Chats that this browser keeps can be read").wait_for()
    page.get_by_role("navigation").get_by_role("button", name="2+3=", exact=True).click()
    page.locator(".question").get_by_text("2+3=").wait_for()
    page.context.set_offline(False)
    page.get_by_text("Chats that this browser keeps can be read").wait_for(state="detached")


def test_the_worker_knows_every_file_and_the_page_can_be_installed():
    worker = (BUILT / "worker.js").read_text()
    files = set(json.loads(re.search(r"const FILES = (\[.*?\]);", worker)[1]))
    assert files == {path.name for path in BUILT.iterdir()} - {
        "index.html",
        "share.html",
        "stamp",
        "worker.js",
    }
    manifest = json.loads((BUILT / "manifest.webmanifest").read_text())
    icons = {icon["sizes"]: (BUILT / Path(icon["src"]).name).read_bytes() for icon in manifest["icons"]}
    for size in (192, 512):
        assert icons[f"{size}x{size}"][16:24] == size.to_bytes(4, "big") * 2  # a PNG's width and height
