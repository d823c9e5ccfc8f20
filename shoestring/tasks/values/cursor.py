"""A place in the tokens of an answer, and the words and units that stand there."""

from shoestring.tasks.values.tokens import Token, Unread
from shoestring.tasks.values.tree import Node


class Cursor:
    """A place in the tokens; it moves on as they are taken."""

    def __init__(self, source: list[Token]) -> None:
        self.tokens, self.at, self.depth, self.in_bars = source, 0, 0, False

    @property
    def next(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def sees(self, *texts: str, kind: str = "operator", ahead: int = 0) -> bool:
        """Return whether the next token (or one `ahead` of it) is of a kind and, if given, one of these."""
        at = self.at + ahead
        return at < len(self.tokens) and (
            self.tokens[at].kind == kind and (not texts or self.tokens[at].text in texts)
        )

    def take(self) -> Token:
        if self.at == len(self.tokens):
            raise Unread("the text ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def exponent(self) -> Node:
        """The part after `^`."""
        raise NotImplementedError

    def words(self) -> list[str]:
        names = []
        while self.sees(kind="word"):
            names.append(self.take().text)
        return names

    def unit(self) -> list[str]:
        """Words after a number, with powers, products and quotients of them."""
        names: list[str] = []
        if self.sees_unit_fraction():
            self.take()
            return [*self._words_in_group(), "/", *self._words_in_group()]
        if self.sees("-") and self.sees(kind="word", ahead=1):
            self.take()  # 18-inch
        while self.sees(kind="word") or (
            self.sees("/", "*", ".") and (names or self.sees("/")) and self.sees(kind="word", ahead=1)
        ):
            names.append(self.take().text)
            if self.sees("^") and names:
                power = self._unit_power()
                names += ["^", power]
        if self.sees("(", kind="open", ahead=0) and self.sees(kind="word", ahead=1):  # 18 (eggs)
            self.take()
            names += self.words()
            if names[-1:] == ["mod"] and self.sees(kind="number"):
                names.append(self.take().text)
            if not self.sees(")", kind="close"):
                raise Unread("words and more in brackets")
            self.take()
        return names

    def sees_unit_fraction(self) -> bool:
        r"""Return whether a unit such as `\frac{\text{km}}{\text{h}}` comes next."""
        return self.sees("frac", kind="command") and self.sees(kind="word", ahead=2)

    def _words_in_group(self) -> list[str]:
        self.take()
        words = self.words()
        if self.take().kind != "close":
            raise Unread("words and more in a unit")
        return words

    def _unit_power(self) -> str:
        self.take()
        node = self.exponent()
        if node.literal is None or node.literal.value not in (1, 2, 3):
            raise Unread("a power of a unit")
        return ("-" if node.kind == "negative" else "") + str(node.literal.value)

    def starts_factor(self) -> bool:
        """Return whether a factor of a product begins here."""
        token = self.next
        if token is None or token.kind in ("operator", "close"):
            return token is not None and token.text == "|" and not self.in_bars
        if token.kind == "open":
            return not (token.text == "(" and self.sees(kind="word", ahead=1))
        return token.kind != "command" or not (
            token.text in ("setminus", "circ", "over", "pmod", "bmod") or token.text.startswith("end{")
        )
