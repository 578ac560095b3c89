"""The one place where an error becomes a message, a hint and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from cloudrun.cli import render
from cloudrun.errors import CloudrunError, Interrupted, UsageError

EXIT_PIPE = 141  # 128 + SIGPIPE: what a shell shows for a program whose reader went away


def report(error: BaseException, argv: Sequence[str]) -> int:
    """Say what went wrong on stderr and return the exit code."""
    if isinstance(error, BrokenPipeError):
        return _pipe_closed()
    own = _translate(error)
    render.error(own, as_json=wants_json(argv))
    if os.environ.get("CLOUDRUN_DEBUG"):
        render.say("".join(traceback.format_exception(error)).rstrip())
    return own.exit_code


def wants_json(argv: Sequence[str]) -> bool:
    """Was --json given to us, and not to the job behind `--`?"""
    ours = list(argv)
    return "--json" in (ours[: ours.index("--")] if "--" in ours else ours)


def _translate(error: BaseException) -> CloudrunError:
    if isinstance(error, CloudrunError):
        return error
    if isinstance(error, click.ClickException):
        return UsageError(_first_lower(error.format_message()), hint=_usage_hint(error))
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Interrupted("interrupted")
    if isinstance(error, OSError):
        return CloudrunError(_os_message(error), hint=_os_hint(error))
    return _unexpected(error)


def _first_lower(message: str) -> str:
    return message[:1].lower() + message[1:].removesuffix(".")


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context else "see `cloudrun --help`"


def _os_message(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return ": ".join([" -> ".join(names), reason]) if names else reason


def _os_hint(error: OSError) -> str:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space and give the same command again; what arrived already is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "check the rights of that path, or choose another folder with CLOUDRUN_HOME"
    return "CLOUDRUN_DEBUG=1 shows where it happened"


def _unexpected(error: BaseException) -> CloudrunError:
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    try:
        path = _write_report(error)
    except (OSError, CloudrunError):
        return CloudrunError(f"an error in cloudrun itself: {kind}", hint="CLOUDRUN_DEBUG=1 shows where")
    return CloudrunError(
        f"an error in cloudrun itself: {kind}",
        hint=f"the report is in {path}; please send it with your question",
    )


def _write_report(error: BaseException) -> Path:
    from cloudrun.config import load_settings

    folder = load_settings().home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"error-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    return path


def _pipe_closed() -> int:
    """The reader of our output went away: no message, and none from Python's own flush at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError):
            continue
    return EXIT_PIPE
