"""Python of one's own, `file.py:Name`, `file.py` or `module:Name`: loaded, with mistakes in one line."""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from shoestring.errors import ConfigError

PACKAGE = Path(__file__).parents[2]
METHODS = ("examples(self, split, seed)", "reward(self, example, text)")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Return whether a task's name leads to Python of the user: a file, or `module:Name`."""
    return _file_part(name) is not None or _MODULE.fullmatch(name) is not None


def load_own(name: str, *, kind: Literal["reward", "tool"] = "reward") -> list[Any]:
    """The task class, or the reward functions, that a name leads to; the file or module is imported.

    Of the kind "tool" it is any function. Raises ConfigError, with file and line, for what cannot be imported
    or is nothing of that.
    """
    file = _file_part(name)
    attribute = name.rpartition(":")[2] if file is None else name[len(file) :].removeprefix(":")
    module = _import_file(Path(file).expanduser()) if file else _import_module(name.partition(":")[0])
    if attribute:
        if not hasattr(module, attribute):
            raise ConfigError(f"{_label(module)} has no {attribute!r}; it has {_names(module)}")
        value = getattr(module, attribute)
        return [value] if kind == "tool" and inspect.isroutine(value) else [_checked(value, name)]
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    tasks = [value for value in own if is_task(value)]
    if len(tasks) > 1:
        one = f"{file}:{tasks[0].__name__}"
        raise ConfigError(f"{file} has the tasks {_names(module)}; name one, such as {one}")
    functions = tasks or [value for value in own if is_reward_function(value)]
    if not functions:
        raise ConfigError(
            f"{file} has no class with {' and '.join(METHODS)}, and no function that takes `completions`; "
            "`shoestring task new` writes a file that works"
        )
    return functions


def is_task(value: Any) -> bool:
    """Return whether a class has a task's methods."""
    return isinstance(value, type) and all(callable(getattr(value, m, None)) for m in ("examples", "reward"))


def is_reward_function(value: Any) -> bool:
    """Return whether a function takes what TRL gives to reward functions: `completions` or their ids."""
    if isinstance(value, type) or not callable(value):
        return False
    try:
        return not {"completions", "completion_ids"}.isdisjoint(inspect.signature(value).parameters)
    except (ValueError, TypeError):
        return False


def place(error: BaseException) -> str:
    """File and line where an error arose, in the user's own code if that is part of the way to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def sentence(error: BaseException) -> str:
    """An error in one line: file, line, kind and message."""
    text = " ".join(str(error).split())[:300]
    where = place(error)
    return f"{where}: {type(error).__name__}: {text}" if where else f"{type(error).__name__}: {text}"


def line_of(function: Callable[..., Any]) -> str:
    """File and line where a function of the user begins, to begin a sentence with."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return str(getattr(function, "__name__", function))
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}"


def _file_part(name: str) -> str | None:
    """The file in `file.py:Name` or `file.py`, else None."""
    if name.endswith(".py"):
        return name
    head, _, attribute = name.rpartition(":")
    return head if head.endswith(".py") and attribute.isidentifier() else None


def _import_file(path: Path) -> ModuleType:
    """The module of a file; one that has changed is imported anew. Files beside it can be imported by it."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; `shoestring task new {path}` writes a task to begin with"
        ) from None
    name = f"{path.resolve()}#{hashlib.sha256(source).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last: no file beside it hides a library
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _import_error(error, str(path)) from None
    return module


def _import_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except BaseException as error:
        raise _import_error(error, name) from None


def _import_error(error: BaseException, name: str) -> BaseException:
    """ConfigError for an error in a file that is imported; Ctrl-C as it is."""
    if isinstance(error, KeyboardInterrupt):
        return error
    if isinstance(error, SyntaxError):
        return ConfigError(f"{Path(error.filename or name).name}, line {error.lineno}: {error.msg}")
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        return ConfigError(f"there is no module {error.name!r}; give the file instead, such as my_task.py")
    return ConfigError(f"{name} cannot be imported: {sentence(error)}")


def _checked(value: Any, name: str) -> Any:
    if is_task(value) or is_reward_function(value):
        return value
    if isinstance(value, type):
        missing = [m for m in METHODS if not callable(getattr(value, m.partition("(")[0], None))]
        raise ConfigError(f"the class {name} has no method {' and no '.join(missing)}")
    raise ConfigError(
        f"{name} is neither a class with {' and '.join(METHODS)} nor a function that takes `completions`"
    )


def _label(module: ModuleType) -> str:
    return Path(module.__name__.partition("#")[0]).name


def _names(module: ModuleType) -> str:
    own = {name: v for name, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    names = [name for name, value in own.items() if is_task(value) or is_reward_function(value)]
    return ", ".join(names) or "no task and no reward function"


def _is_library(file: str) -> bool:
    """Return whether a file belongs to this package, to Python or to an installed library."""
    paths = sysconfig.get_paths()
    roots = (PACKAGE, *(Path(paths[key]) for key in ("stdlib", "purelib", "platlib")))
    path = Path(file)
    return file.startswith("<") or any(root in path.parents for root in roots)
