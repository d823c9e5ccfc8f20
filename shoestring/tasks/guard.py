"""Guard for libraries that evaluate text as Python: a hook refuses all code but arithmetic before it runs.

SymPy's parser and some of reasoning-gym's checkers call `eval` on an answer, which may be
`__import__("os")...`. Inside `only_arithmetic`, CPython's audit event for `eval` and `exec` (PEP 578) passes
us the compiled code first. The code may use no name and no attribute but the mathematical ones below, so
nothing in it can reach the machine or this hook.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import CodeType
from typing import Any

# Names that SymPy's parser writes itself (it begins with `from sympy import *`), then names in answers.
MATHEMATICS = re.compile(
    "[A-Za-z]|sympy|Integer|Float|Rational|Symbol|Function|Add|Mul|Pow|Mod|Eq|Ne|Lt|Le|Gt|Ge|Not|And|Or|"
    "Abs|abs|Min|Max|sqrt|cbrt|root|exp|log|ln|a?(sin|cos|tan|sec|csc|cot)h?|erf|Ei|Si|Ci|Li|li|gamma|"
    "factorial|binomial|floor|ceiling|sign|pi|oo|zoo|nan"
)
TRUSTED_CALLERS = ("dataclasses", "collections", "typing", "enum", "sympy.polys.monomials")
"""Modules that run code which they generate from no text of a model, such as methods for a class."""


class RefusedCode(Exception):
    """A text to be evaluated is not only arithmetic."""


@contextmanager
def only_arithmetic() -> Iterator[None]:
    """Make `eval` and `exec` of text raise RefusedCode in this block, except for arithmetic."""
    _install()
    before = _IS_ARMED.set(True)
    try:
        yield
    finally:
        _IS_ARMED.reset(before)


_IS_ARMED: ContextVar[bool] = ContextVar("is_armed", default=False)


@cache
def _install() -> None:
    """Install the hook once; it stays until the process ends, and does nothing while it is not armed."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "exec" or not _IS_ARMED.get() or not isinstance(arguments[0], CodeType):
        return
    code = arguments[0]
    if not code.co_filename.startswith("<"):  # a module's file, imported late
        return
    if sys._getframe(1).f_globals.get("__name__") in TRUSTED_CALLERS:
        return
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    if inner or not all(MATHEMATICS.fullmatch(name) for name in code.co_names):
        raise RefusedCode("the text is code and not arithmetic")
