"""Frozen records to JSON values and back, by their type hints: Decimal and times as text, enums by value.

Used where a record must outlive the store: run.json beside the outputs, and the labels
that a machine keeps of its runs.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")


def to_json(value: object) -> Any:
    """A value that `json.dumps` takes. Raises TypeError for what a record cannot hold."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal | Path):
        return str(value)
    if isinstance(value, date):  # datetime is one too
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if is_dataclass(value):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def from_json(record: type[T], data: Mapping[str, Any]) -> T:
    """The record that `to_json` made `data` from. Unknown keys are left out, so that an older
    cloudrun reads what a newer one wrote. Raises KeyError, TypeError or ValueError on other shapes."""
    hints = _hints(cast("Any", record))
    known = {name: _value(hint, data[name]) for name, hint in hints.items() if name in data}
    return record(**known)


@cache
def _hints(record: type) -> Mapping[str, Any]:
    return typing.get_type_hints(record)


def _value(hint: Any, raw: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(item for item in typing.get_args(hint) if item is not type(None))
        return None if raw is None else _value(inner, raw)
    if origin is tuple:
        return _tuple(typing.get_args(hint), raw)
    if is_dataclass(hint):
        return from_json(cast("type", hint), raw)
    if hint in (datetime, date):
        return hint.fromisoformat(raw)
    if hint in (Decimal, Path) or (isinstance(hint, type) and issubclass(hint, Enum)):
        return hint(raw)
    if hint is float and isinstance(raw, int):
        return float(raw)
    if not isinstance(raw, hint):
        raise TypeError(f"{raw!r} is no {hint.__name__}")
    return raw


def _tuple(hints: tuple[Any, ...], raw: Any) -> tuple[Any, ...]:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(_value(hints[0], item) for item in raw)
    return tuple(_value(hint, item) for hint, item in zip(hints, raw, strict=True))
