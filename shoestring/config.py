"""Load, save and strictly override frozen dataclasses: recipes in, recipes out."""

import copy
import logging
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from shoestring.errors import ConfigError

T = TypeVar("T")

log = logging.getLogger(__name__)

OLD_NAMES: Mapping[str, Mapping[str, str]] = {
    "GRPOConfig": {
        "start": "model",
        "prompts": "num_prompts",
        "group": "num_generations",
        "updates": "steps_per_generation",
        "refill": "dynamic_sampling",
        "refresh_reference": "ref_model_sync_steps",
        "warmup": "warmup_steps",
        "floor": "min_lr_ratio",
    },
    "PolicyLossConfig": {
        "kind": "loss_type",
        "clip_low": "epsilon_low",
        "clip_high": "epsilon_high",
        "kl_weight": "beta",
        "kl_unbiased": "use_bias_correction_kl",
        "off_policy_delta": "off_policy_mask_threshold",
        "mask_truncated": "mask_truncated_completions",
    },
    "SFTConfig": {"start": "model"},
    "ScheduleConfig": {"warmup": "warmup_ratio", "floor": "min_lr_ratio"},
    "OptimConfig": {"clip": "max_grad_norm"},
    "CollectConfig": {"samples": "num_generations"},
    "OnPolicyConfig": {"prompts": "num_prompts", "samples": "num_generations"},
    "LoraConfig": {"r": "rank", "lora_alpha": "alpha", "target_modules": "targets"},
    "HarnessConfig": {"chat": "apply_chat_template"},
}
"""Names in older recipes, runs and scores, by dataclass (with its subclasses): read, with a warning."""


def load(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read a TOML recipe into `cls`, then apply `--set` overrides (`optim.lr=3e-4`).

    Raises ConfigError for a missing file, invalid TOML, an unknown name or a wrong value.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no recipe at {path}; recipes/ has some to copy") from None
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deeply") from None
    data = _with_new_names(cls, data, str(path))
    return build(cls, override(data, [_with_new_path(cls, setting) for setting in overrides]), str(path))


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
    """`cls` from plain `data`, whose names may be old ones.

    Raises ConfigError naming the field for an unknown name, a wrong type, or one value under two names.
    """
    from pydantic import TypeAdapter, ValidationError  # 0.1 s to import: not for --help

    data = _with_new_names(cls, data, where)
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


def table(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON has them: with lists in place of tuples."""
    fields: dict[str, Any] = _plain(asdict(config))
    return fields


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two tables: dotted name -> both values; a missing one is None."""
    one, other = dict(_leaves(before)), dict(_leaves(after))
    names = dict.fromkeys((*one, *other))
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _toml_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text  # a line break in it could start another name


def _with_new_names(cls: type, data: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """`data` with old names replaced at every depth; ConfigError for a name that `cls` has not."""
    hints, names = typing.get_type_hints(cls), [field.name for field in fields(cls)]
    result: dict[str, Any] = {}
    for key, value in data.items():
        name = _new_name(cls, key, where)
        if name not in names:
            raise ConfigError(f"{where}: no {prefix + key!r}; {cls.__name__} has {', '.join(names)}")
        if name in result:
            raise ConfigError(f"{where}: {prefix + name} is given twice, once under its old name; remove one")
        result[name] = _value_with_new_names(hints[name], value, where, prefix + name)
    return result


def _value_with_new_names(hint: Any, value: Any, where: str, path: str) -> Any:
    """A field's value; tables inside it that belong to a dataclass get their new names."""
    if isinstance(value, dict) and (cls := _dataclass_in(hint, value)) is not None:
        return _with_new_names(cls, value, where, f"{path}.")
    if isinstance(value, list):
        of_item = next(iter(typing.get_args(hint)), None)
        return [
            _value_with_new_names(of_item, item, where, f"{path}[{place}]")
            for place, item in enumerate(value)
        ]
    return value


def _with_new_path(cls: type, setting: str) -> str:
    """An `a.b=value` with old names in its path replaced."""
    path, equals, text = setting.partition("=")
    names, owner = [], cls if equals else None
    for part in path.strip().split("."):
        names.append(part if owner is None else _new_name(owner, part, "--set"))
        hint = None if owner is None else typing.get_type_hints(owner).get(names[-1])
        owner = _dataclass_in(hint, {})
    return f"{'.'.join(names)}{equals}{text}"


def _new_name(cls: type, name: str, where: str) -> str:
    """Today's name of a field, with a warning if `name` is an old one."""
    old_names = {old: new for base in cls.__mro__ for old, new in OLD_NAMES.get(base.__name__, {}).items()}
    if name in old_names:
        log.warning("%s: %s is now called %s", where, name, old_names[name])
    return old_names.get(name, name)


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
