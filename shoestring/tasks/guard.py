"""Libraries that evaluate text as Python: a hook refuses all code but arithmetic before it runs.

SymPy's parser and some of reasoning-gym's checkers call `eval` on an answer, which may say
`__import__("os")...`. While `only_arithmetic` holds, CPython's audit event for `eval` and `exec` (PEP 578)
shows us the compiled code first. It may use no name and no attribute but the mathematical ones below, so
there is nothing in it that could reach the machine, this hook included.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import CodeType
from typing import Any

# What SymPy's parser itself writes (it begins with `from sympy import *`), then what answers hold.
MATHEMATICS = re.compile(
    "[A-Za-z]|sympy|Integer|Float|Rational|Symbol|Function|Add|Mul|Pow|Mod|Eq|Ne|Lt|Le|Gt|Ge|Not|And|Or|"
    "Abs|abs|Min|Max|sqrt|cbrt|root|exp|log|ln|a?(sin|cos|tan|sec|csc|cot)h?|erf|Ei|Si|Ci|Li|li|gamma|"
    "factorial|binomial|floor|ceiling|sign|pi|oo|zoo|nan"
)
TRUSTED_CALLERS = ("dataclasses", "collections", "typing", "enum")
"""Modules of the standard library that run code of their own making, when something is imported late."""


class RefusedCode(Exception):
    """A text to be evaluated was more than arithmetic."""


@contextmanager
def only_arithmetic() -> Iterator[None]:
    """Within this block `eval` and `exec` of text raise RefusedCode, except for arithmetic."""
    _install()
    before = _ARMED.set(True)
    try:
        yield
    finally:
        _ARMED.reset(before)


_ARMED: ContextVar[bool] = ContextVar("armed", default=False)


@cache
def _install() -> None:
    """Once in a process; an audit hook stays for its whole life and does nothing while not armed."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "exec" or not _ARMED.get() or not isinstance(arguments[0], CodeType):
        return
    code = arguments[0]
    if not code.co_filename.startswith("<"):  # a module's own file, imported late
        return
    if sys._getframe(1).f_globals.get("__name__") in TRUSTED_CALLERS:
        return
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    if inner or not all(MATHEMATICS.fullmatch(name) for name in code.co_names):
        raise RefusedCode("the text is code and not arithmetic")
