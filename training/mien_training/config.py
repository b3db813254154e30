"""Strict reading of TOML configuration files into frozen dataclasses. Needs only the standard library."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class TrainingConfigError(ValueError):
    """A configuration has an unknown or missing field, or one of a wrong type; the text names the field."""


def read_config(path: Path, kind: type[T]) -> T:
    """The file as an instance of a dataclass. Raises TrainingConfigError or OSError."""
    try:
        tree = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingConfigError(f"{path.name} is not valid TOML: {error}") from error
    return parsed(tree, kind, path.name)


def parsed(tree: Mapping[str, object], kind: type[T], where: str) -> T:
    """A table as an instance of a dataclass; nested tables and lists of tables become nested dataclasses."""
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # `kind` is a dataclass
    for name in tree:
        if name not in fields:
            raise TrainingConfigError(f"{where}: unknown field {name}; the fields are {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in tree:
            values[name] = _value(tree[name], hints[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TrainingConfigError(f"{where}: {name} is missing")
    try:
        return kind(**values)
    except TrainingConfigError as error:  # raised by the dataclass's own check of its values
        raise TrainingConfigError(f"{where}: {error}") from error


def at_least(least: float, **values: float) -> None:
    """For a dataclass's __post_init__: raise TrainingConfigError naming the first value below `least`."""
    for name, value in values.items():
        if value < least:
            raise TrainingConfigError(f"{name} must be at least {least:g}, not {value:g}")


def _value(value: object, hint: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _value(value, next(each for each in arguments if each is not type(None)), where)
    if dataclasses.is_dataclass(hint):
        return parsed(_table(value, where), hint, where)  # type: ignore[arg-type]  # a hint is a class, not an instance
    if origin is tuple and isinstance(value, list):
        return tuple(_value(each, arguments[0], f"{where}[{i}]") for i, each in enumerate(value))
    if origin is dict:
        return {key: _value(each, arguments[1], f"{where}.{key}") for key, each in _table(value, where).items()}
    return _scalar(value, hint, where)


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TrainingConfigError(f"{where} must be a table, not {value!r}")
    return value


def _scalar(value: object, hint: Any, where: str) -> object:
    if get_origin(hint) is tuple:
        raise TrainingConfigError(f"{where} must be a list, not {value!r}")
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise TrainingConfigError(f"{where} must be one of {', '.join(map(str, get_args(hint)))}, not {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TrainingConfigError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value
