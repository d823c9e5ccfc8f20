import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import DataError
from shoestring.train.report.web_page import write_html

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "dl", "div", "dt", "dd",
    "table", "thead", "tbody", "tr", "th", "td", "pre", "img",
}  # fmt: skip
VOID = {"meta", "img"}


class Checker(HTMLParser):
    """Fails on a tag that is not ours or not closed; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images = 0

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS
        assert not any(name.startswith("on") or name in ("href", "style") for name, _ in attrs)
        self.images += tag == "img"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check(path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_a_page_holds_figures_tables_and_pictures(tmp_path):
    (tmp_path / "curves.png").write_bytes(PNG)
    report = {
        "title": "runs/demo",
        "parameters_total": 11_700_000,
        "heldout_bits_per_byte": 1.87312,
        "threshold_met": True,
        "energy": None,
        "samples": [
            {"prompt": "def f(x):", "completion": "\n    return x\n"},
            {"prompt": "import ", "note": 3},
        ],
        "receipt": {"seed": 0, "code": {"version": "0.1.0"}, "betas": [0.9, 0.95]},
        "files": [{"path": f"file{number}"} for number in range(150)],
    }
    write_html(report, tmp_path / "report.html", [tmp_path / "curves.png"])
    page = check(tmp_path / "report.html")
    for part in ("runs/demo", "parameters total", "11,700,000", "1.873", "yes", "unavailable", "return x"):
        assert part in page.text
    for part in ("version", "0.1.0", "0.9, 0.95", "file99", "and 50 more"):
        assert part in page.text
    assert "file100" not in page.text
    assert page.images == 1
    text = (tmp_path / "report.html").read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


HOSTILE = st.text(max_size=30) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "</pre></td><img src=x onerror=alert(1)>",
        '"><svg onload=x>',
        "\x1b[2J\0\ud800",
        "]]>",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60)
@given(st.dictionaries(HOSTILE | st.just("title"), VALUES, max_size=5))
def test_no_value_escapes_from_its_cell(tmp_path_factory, report):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(report, path)
    check(path)


def test_deep_reports_end(tmp_path):
    deep: object = 1
    for _ in range(50):
        deep = {"a": deep}
    write_html({"deep": deep, "list": [[[[[1], 2]]]]}, tmp_path / "report.html")
    check(tmp_path / "report.html")


def test_only_png_pictures_are_taken(tmp_path):
    (tmp_path / "x.svg").write_text("<svg/>")
    with pytest.raises(DataError, match=r"x\.svg is not a PNG"):
        write_html({}, tmp_path / "report.html", [tmp_path / "x.svg"])
    with pytest.raises(DataError, match="absent"):
        write_html({}, tmp_path / "report.html", [tmp_path / "absent.png"])
