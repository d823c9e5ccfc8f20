"""Load, save and strictly override frozen dataclasses: recipes in, recipes out."""

import copy
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from shoestring.errors import ConfigError

T = TypeVar("T")


def load(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read a TOML recipe into `cls`, then apply `--set` overrides (`optim.lr=3e-4`).

    Raises ConfigError for a missing file, invalid TOML, an unknown name or a wrong value.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no recipe at {path}; recipes/ holds some to copy") from None
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deeply") from None
    return build(cls, override(data, overrides), where=str(path))


def override(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`data` with each `a.b=value` applied; values are TOML, and a bare word is a string."""
    result = copy.deepcopy(data)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set takes name=value, not {setting!r}")
        *parents, name = path.strip().split(".")
        table = result
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {setting}: {parent!r} is a value, not a table")
        table[name] = _toml_value(text.strip())
    return result


def build(cls: type[T], data: dict[str, Any], where: str = "the configuration") -> T:
    """`cls` from plain `data`: an unknown name or a wrong type raises ConfigError naming the field."""
    from pydantic import TypeAdapter, ValidationError  # 0.1 s to import: not for --help

    _refuse_unknown(cls, data, where, prefix="")
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {name} = {first.get('input')!r}: {first['msg'].lower()}") from None


def save(config: Any, path: str | Path) -> None:
    """Write a dataclass as TOML; `load` gives back an equal one."""
    Path(path).write_text(dumps(config), encoding="utf-8")


def dumps(config: Any) -> str:
    """The TOML text of a dataclass; fields that are None are left out (their default is None)."""
    import tomli_w

    return tomli_w.dumps(_without_none(asdict(config)))


def _toml_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text  # a line break in it could start another name


def _refuse_unknown(cls: type, data: dict[str, Any], where: str, prefix: str) -> None:
    hints = typing.get_type_hints(cls)
    known = [field.name for field in fields(cls)]
    for name, value in data.items():
        if name not in known:
            raise ConfigError(f"{where}: no {prefix + name!r}; {cls.__name__} has {', '.join(known)}")
        if isinstance(value, dict) and (inner := _dataclass_in(hints[name], value)) is not None:
            _refuse_unknown(inner, value, where, prefix=f"{prefix}{name}.")
        for place, item in enumerate(value) if isinstance(value, list) else ():
            of_item = next((_dataclass_in(hint, item) for hint in typing.get_args(hints[name])), None)
            if isinstance(item, dict) and of_item is not None:
                _refuse_unknown(of_item, item, where, prefix=f"{prefix}{name}[{place}].")


def _dataclass_in(hint: Any, value: Any) -> type | None:
    """The dataclass in `X`, `X | None` or `X | Y` that knows most of the names in `value`, else None."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    classes = [option for option in options if isinstance(option, type) and is_dataclass(option)]
    names = set(value) if isinstance(value, dict) else set()
    return max(classes, key=lambda cls: len(names & {f.name for f in fields(cls)}), default=None)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value
