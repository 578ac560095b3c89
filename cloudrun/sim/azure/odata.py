"""$filter of the price list: and, or, not, comparisons, contains, startswith, endswith, parentheses."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from cloudrun.sim.azure.wire import ApiError

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>[A-Za-z_]\w*)|(?P<mark>[(),]))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


def parse_filter(text: str, fields: Mapping[str, str], *, same_case: bool) -> Test:
    """What decides whether a row is wanted. Raises ApiError.

    `fields` maps what a filter may name, in small letters, to the rows' own names. same_case: capital and
    small letters of values differ.
    """
    return _Parser(text, fields, same_case).parse()


class _Parser:
    """A filter, read once from left to right."""

    def __init__(self, text: str, fields: Mapping[str, str], same_case: bool) -> None:
        self._text = text
        self._fields = fields
        self._tokens = self._split(text)
        self._at = 0
        self._fold: Callable[[Any], Any] = (lambda value: value) if same_case else _folded

    def parse(self) -> Test:
        test = self._either()
        if self._at < len(self._tokens):
            raise self._bad()
        return test

    def _split(self, text: str) -> list[str]:
        tokens, at = [], 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found:
                raise self._bad()
            tokens.append(found[0].strip())
            at = found.end()
        return tokens

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return lambda row: any(test(row) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._take("and"):
            tests.append(self._one())
        return lambda row: all(test(row) for test in tests)

    def _one(self) -> Test:
        if self._take("not"):
            test = self._one()
            return lambda row: not test(row)
        if self._take("("):
            test = self._either()
            self._expect(")")
            return test
        word = self._next()
        if word.lower() in _FUNCTIONS:
            return self._function(_FUNCTIONS[word.lower()])
        compare = _COMPARE.get(self._next().lower())
        if compare is None:
            raise self._bad()
        field, wanted, fold = self._field(word), self._fold(self._value()), self._fold
        return lambda row: _holds(compare, fold(row.get(field, "")), wanted)

    def _function(self, function: Callable[[str, str], bool]) -> Test:
        self._expect("(")
        field = self._field(self._next())
        self._expect(",")
        part = self._fold(self._value())
        self._expect(")")
        fold = self._fold
        return lambda row: function(str(fold(row.get(field, ""))), str(part))

    def _field(self, name: str) -> str:
        if name.lower() not in self._fields:
            raise self._bad()
        return self._fields[name.lower()]

    def _value(self) -> Any:
        token = self._next()
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token.lower() in ("true", "false"):
            return token.lower() == "true"
        try:
            return float(token)
        except ValueError:
            raise self._bad() from None

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise self._bad()
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at].lower() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._bad()

    def _bad(self) -> ApiError:
        return ApiError("BadRequest", f"Invalid OData parameters supplied: {self._text}", 400)


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _holds(compare: Callable[[Any, Any], bool], value: Any, wanted: Any) -> bool:
    try:
        return compare(value, wanted)
    except TypeError:  # a text against a number
        return False
