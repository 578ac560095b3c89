"""docs/cli.md from the commands' own help: `python -m cloudrun.cli.reference docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cloudrun.cli import SECTIONS, app
from cloudrun.cli.lazy import LazyGroup

WIDTH = 100

INTRODUCTION = """\
# The command line

Written by `python -m cloudrun.cli.reference docs/cli.md` from the commands' own help; do not edit.

- stdout is data, stderr is progress: `cloudrun status --json | jq` and `cloudrun logs last > log` work as they stand.
- A run answers to its id, the beginning of it, or `last`; a machine to its name, its id, or the beginning of either.
- What destroys something says what it will do and asks; `-y` answers, `--dry-run` only looks. Without a terminal
  `-y` is needed, except where nothing would be lost.
- Ctrl-C stops the watching, not the run.

## Exit codes

| code | meaning |
|---|---|
| 0 | done; `submit`, `attach`, `restart`: the run succeeded |
| 1 | the run failed, was cancelled or ran out of time |
| 2 | usage: a bad job, option, name or setting, or a plan that breaks a limit |
| 3 | provider: credentials, quota, capacity, image |
| 4 | machine: it did not boot, a step failed, or it was taken away |
| 5 | remote: no connection, or a transfer failed |
| 130 | interrupted, or the question was answered with no |
| 141 | the reader of the output went away |

`ssh` and `machines exec` end with the exit code of the remote command.

## JSON

Fields are added, never renamed or dropped. Times are ISO 8601 in UTC, money is US dollars, `null` is unknown or not yet.

| record | fields |
|---|---|
| machine | name, id, provider, region, zone, type, market, state, host, stack, price_per_hour_usd, launched_at, deadline_at, cost_usd, runs |
| run | id, job, project, machine, state, stage, exit_code, message, submitted_at, started_at, ended_at, metric {name, value, direction}, attempts, outputs_bytes, cost_usd |
| offer | provider, region, zone, type, market, price_per_hour_usd, price_as_of, gpu, gpu_count, gpu_memory_gib, fits, why_not |
| output | path, size_bytes, sha256 |
| error, on stderr | error, message, hint, exit_code |
"""  # noqa: E501  # table rows


def reference() -> str:
    """The whole document."""
    root = _context(app, "cloudrun", None)
    parts = [INTRODUCTION]
    for title, entries in SECTIONS.items():
        parts.append(f"## {title}\n")
        for entry in entries:
            parts += [_chapter(context) for context in walk(entry.load(), entry.name, root)]
    return "\n".join(parts)


def walk(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """A command and all below it, each as a context that can show its help."""
    context = _context(command, name, parent)
    yield context
    if isinstance(command, LazyGroup):
        for entry in command.entries.values():
            yield from walk(entry.load(), entry.name, context)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def _chapter(context: click.Context) -> str:
    return f"### {context.command_path}\n\n```text\n{context.command.get_help(context)}\n```\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
