"""Writes the budgets into config.toml: the one part of it that a command sets.

Everything else in the file stays as its owner wrote it, comments too. The file is replaced in one step, so
that a reader, or a crash, finds either the old one or the new one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from cloudrun.errors import ConfigError, Refused
from cloudrun.locks import holding

_HEADERS = ("[budget]", "[budget.projects]")


def write_budgets(home: Path, budgets: Mapping[str, Decimal]) -> None:
    """Make these the budgets: US dollars a month by project, "" for all together; none of them removes all.

    Raises ConfigError where the file cannot be read, or holds them in a form that is not ours; Refused while
    another command writes it. Idempotent.
    """
    with holding(home / "config.lock") as ours:
        if not ours:
            raise Refused("another command is changing config.toml", hint="try again in a moment")
        path = (home / "config.toml").resolve()
        text = _read(path)
        new = "".join(_without(text)).rstrip() + "\n" if text.strip() else ""
        new += ("\n" if new and budgets else "") + _tables(budgets)
        _check(path, text, new, budgets)
        _replace(path, new)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}", hint="mend or remove that file") from error


def _without(text: str) -> Iterator[str]:
    """The lines that are not in our tables."""
    inside = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = line.split("#")[0].strip() in _HEADERS
        if not inside:
            yield line


def _tables(budgets: Mapping[str, Decimal]) -> str:
    lines = ["[budget]", f'month = "{budgets[""]}"'] if "" in budgets else []
    projects = sorted(project for project in budgets if project)
    if projects:
        lines += ["", "[budget.projects]"] if lines else ["[budget.projects]"]
        lines += [f'{_quoted(project)} = "{budgets[project]}"' for project in projects]
    return "".join(line + "\n" for line in lines)


def _quoted(name: str) -> str:
    """A TOML basic string: quotes, backslashes and control characters are escaped."""
    marks = {'"': '\\"', "\\": "\\\\"}
    plain = (marks.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c) for c in name)
    return f'"{"".join(plain)}"'


def _check(path: Path, old: str, new: str, budgets: Mapping[str, Decimal]) -> None:
    """Nothing but the budgets may differ, however the file was written."""
    try:
        before, after = tomllib.loads(old), tomllib.loads(new)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="mend or remove that file") from error
    before.pop("budget", None)
    kept = after.pop("budget", {})
    found = {"": kept["month"]} if "month" in kept else {}
    found |= kept.get("projects", {})
    if before != after or found != {project: str(amount) for project, amount in budgets.items()}:
        raise ConfigError(
            f"{path}: its budget is written in a form that no command changes",
            hint="remove it there by hand, then say it again",
        )


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
