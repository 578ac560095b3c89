"""Records to rows and back, and the statements made from them.

A field's annotation decides the form of its column, so that a new field needs a migration that adds
the column and nothing here. Text stays text, times are ISO 8601 in UTC with microseconds (their
order as text is their order in time), Decimal is text, enums are their values, tuples and
nested records are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from cloudrun.models import (
    Attempt,
    Charge,
    Machine,
    MachineState,
    Market,
    Offer,
    Outcome,
    Run,
    RunState,
    SshAddress,
    Stage,
)
from cloudrun.records import from_json, to_json

Record = Run | Attempt | Machine | Charge
R = TypeVar("R", Run, Attempt, Machine, Charge)
Column = str | int | float | None

TABLES: Mapping[type, str] = {Run: "runs", Attempt: "attempts", Machine: "machines", Charge: "charges"}


def to_row(record: Record) -> dict[str, Column]:
    """The columns of a whole record."""
    names = _FORMS[type(record)]
    return to_columns(type(record), {name: getattr(record, name) for name in names})


def to_columns(record: type[Record], values: Mapping[str, object]) -> dict[str, Column]:
    """The columns of some named fields. Raises TypeError for a field that the record does not have."""
    forms = _FORMS[record]
    unknown = sorted(set(values) - set(forms))
    if unknown:
        raise TypeError(f"{record.__name__} has no field {', '.join(unknown)}")
    return {name: None if value is None else forms[name][0](value) for name, value in values.items()}


def from_row(record: type[R], row: Sequence[Any]) -> R:
    """The record of a row that `selection` asked for. Raises ValueError, TypeError, KeyError or
    ArithmeticError where the row holds what no cloudrun wrote."""
    values: dict[str, Any] = {}
    for (name, (_, decode)), raw in zip(_FORMS[record].items(), row, strict=True):
        values[name] = None if raw is None else decode(raw)
    return record(**values)


def selection(record: type[Record], rest: str) -> str:
    """SELECT of whole records, their columns in the order of the fields; `rest` follows WHERE."""
    names = ", ".join(f'"{name}"' for name in _FORMS[record])
    return f"SELECT {names} FROM {TABLES[record]} WHERE {rest}"  # noqa: S608  # all names are our own


def insertion(record: type[Record], row: Mapping[str, Column]) -> str:
    """INSERT of a row, its values as ? in order."""
    names = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join("?" * len(row))
    return f"INSERT INTO {TABLES[record]} ({names}) VALUES ({marks})"  # noqa: S608  # all names are our own


def change(record: type[Record], row: Mapping[str, Column], where: str) -> str:
    """UPDATE of some columns, their values as ? in order, before those of `where`."""
    names = ", ".join(f'"{name}" = ?' for name in row)
    return f"UPDATE {TABLES[record]} SET {names} WHERE {where}"  # noqa: S608  # all names are our own


def plain_text(value: str) -> str:
    """SQLite keeps Unicode only: bytes that were no UTF-8 are written as \\udcXX, and looked for so."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def time_text(moment: datetime) -> str:
    """Raises ValueError for a time without a zone: nobody could say when that was."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _json(value: object) -> str:
    return json.dumps(to_json(value), separators=(",", ":"))


def _strings(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in json.loads(text))


def _enum_text(value: str) -> str:
    return str(value)


_Form = tuple[Callable[[Any], Column], Callable[[Any], Any]]

_BY_ANNOTATION: dict[str, _Form] = {
    "str": (plain_text, str),
    "int": (int, int),
    "float": (float, float),
    "bool": (int, bool),
    "datetime": (time_text, datetime.fromisoformat),
    "date": (date.isoformat, date.fromisoformat),
    "Decimal": (str, Decimal),
    "RunState": (_enum_text, RunState),
    "Stage": (_enum_text, Stage),
    "Outcome": (_enum_text, Outcome),
    "Market": (_enum_text, Market),
    "MachineState": (_enum_text, MachineState),
    "tuple[str, ...]": (_json, _strings),
    "tuple[tuple[str, str], ...]": (_json, _pairs),
    "Offer": (_json, lambda text: from_json(Offer, json.loads(text))),
    "SshAddress": (_json, lambda text: from_json(SshAddress, json.loads(text))),
}


def _annotation(item: Field[Any]) -> str:
    """As it is written in models.py: annotations stay text there, which keeps start-up short."""
    return str(item.type).removesuffix(" | None")


_FORMS: Mapping[type, Mapping[str, _Form]] = {
    record: {item.name: _BY_ANNOTATION[_annotation(item)] for item in fields(record)} for record in TABLES
}
