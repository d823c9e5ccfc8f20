"""Text of HTML pages: paragraphs, lists and code as they read, without menus, scripts and styles."""

import re
from html.parser import HTMLParser

SPACED = frozenset(("dl", "h1", "h2", "h3", "h4", "ol", "p", "pre", "table", "ul"))
"""Elements with an empty line before and after."""
PARTS = frozenset(
    ("address", "article", "aside", "blockquote", "div", "figcaption", "figure", "form", "main")
)
LINES = frozenset(("br", "dd", "dt", "h5", "h6", "hr", "li", "section", "tbody", "td", "th", "thead", "tr"))
BLOCKS = SPACED | PARTS | LINES
HIDDEN = frozenset(("footer", "head", "header", "nav", "script", "style", "svg", "template"))
SPACE = re.compile(r"[ \t\r\f\v]*\n[ \t\r\f\v]*|[ \t\r\f\v]+")


def html_text(page: str) -> str:
    """Plain text of a page; broken HTML gives the text that can be found in it."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return tidy("".join(reader.parts))


def tidy(text: str) -> str:
    """The text without spaces at the ends of lines and without several empty lines in a row."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)  # &amp; becomes &
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in HIDDEN:
            self._hidden.append(tag)
        self._code += tag == "pre"
        if tag in BLOCKS:
            self._break(2 if tag in SPACED else 1)
        if tag == "li" and not self._hidden:
            self.parts.append("* ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        self._code = max(self._code - (tag == "pre"), 0)
        if tag in BLOCKS:
            self._break(2 if tag in SPACED else 1)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if not self._code:
            data = SPACE.sub(" ", data.replace("\n", " "))
            if not self.parts or self.parts[-1].endswith(("\n", " ", "* ")):
                data = data.lstrip(" ")
        if data:
            self.parts.append(data)

    def _break(self, count: int) -> None:
        """End the line, with an empty one after it if `count` is 2."""
        end = "".join(self.parts[-2:])[-2:]
        if self.parts and not self._hidden:
            self.parts.append("\n" * max(count - (len(end) - len(end.rstrip("\n"))), 0))
