"""Read a TOML file that people write, and say what is wrong with it by file, line and key.

The TOML reader of the standard library forgets the lines of what it read. `key_lines` finds
them again in text that it has already accepted, which lets it stay small: it only has to tell
keys, strings, comments and brackets apart.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cloudrun.errors import JobError

MAX_BYTES = 256 * 1024  # a file that a person writes; anything larger is a mix-up

KeyPath = tuple[str, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # multi-line string; up to two quotes may precede its end
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*|\n|[\[\]{}=,.]"
    r"|[^\s\[\]{}=,.\"'#]+",
    re.DOTALL,
)
_AT_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$")


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """The file's content as data and as text. Raises JobError with the line where it breaks."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    if len(raw) > MAX_BYTES:
        raise JobError(
            f"{path}: {len(raw):,} bytes", hint=f"it may have {MAX_BYTES:,}; is this the right file?"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise JobError(f"{path}, line {line}: not UTF-8 text", hint="save the file as UTF-8") from error
    try:
        return tomllib.loads(text), text
    except RecursionError as error:
        raise JobError(f"{path}: brackets nested too deep", hint="close the brackets") from error
    except ValueError as error:  # TOMLDecodeError, or a number with thousands of digits
        raise _broken(path, text, str(error)) from error


def mistake(path: Path, text: str, key: Sequence[str | int], message: str, *, hint: str = "") -> JobError:
    """A JobError that names file, line and key."""
    names = tuple(str(part) for part in key)
    place = f"{path}, line {line_of(text, names)}"
    return JobError(f"{place}: {dotted(key)}: {message}" if names else f"{place}: {message}", hint=hint)


def line_of(text: str, key: KeyPath) -> int:
    """The line (from 1) where a key is set; that of its table where the key itself is not there."""
    lines = key_lines(text)
    for length in range(len(key), 0, -1):
        if key[:length] in lines:
            return lines[key[:length]]
    return 1


def key_lines(text: str) -> dict[KeyPath, int]:
    """The first line of every table header and key of a valid TOML text (keys inside inline
    tables stand on their parent's line)."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, tokens in _statements(text):
        if tokens[0] == "[":
            table = _key(tokens)
            path = table
        else:
            path = table + _key(tokens[: tokens.index("=")] if "=" in tokens else tokens)
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
    return lines


def dotted(key: Iterable[str | int]) -> str:
    """A key as a person writes it: presets.smoke.args[2]."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _broken(path: Path, text: str, message: str) -> JobError:
    found = _AT_LINE.search(message)
    line = int(found[1]) if found else text.count("\n") + 1
    reason = _AT_LINE.sub("", message).removesuffix(" (at end of document)")
    return JobError(
        f"{path}, line {line}: not valid TOML: {reason}", hint="mend that line; strings need quotes"
    )


def _statements(text: str) -> Iterable[tuple[int, list[str]]]:
    """Each header or key = value of the text as its first line and its tokens."""
    tokens: list[str] = []
    start = line = 1
    depth = 0
    for piece in _TOKEN.findall(text):
        if piece == "\n" and depth == 0 and tokens:
            yield start, tokens
            tokens = []
        elif piece != "\n" and not piece.startswith("#"):
            if not tokens:
                start = line
            tokens.append(piece)
            depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        line += piece.count("\n")
    if tokens:
        yield start, tokens


def _key(tokens: Iterable[str]) -> KeyPath:
    return tuple(token.strip("\"'") for token in tokens if token not in ("[", "]", "."))
