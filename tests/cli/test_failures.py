"""Every failure is a message, a hint and the exit code of its branch; never a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest
from commandline import Cli
from hypothesis import given
from hypothesis import strategies as st

from cloudrun import errors
from cloudrun.cli import failures


def subclasses(kind: type[errors.CloudrunError]) -> list[type[errors.CloudrunError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in subclasses(below))]


@pytest.mark.parametrize(
    "kind",
    [kind for kind in subclasses(errors.CloudrunError) if kind is not errors.CommandFailed],
    ids=lambda k: k.__name__,
)
def test_every_error_of_ours(kind: type[errors.CloudrunError], capsys: pytest.CaptureFixture[str]) -> None:
    code = failures.report(kind("it broke", hint="mend it"), ["status", "--json"])
    shown = json.loads(capsys.readouterr().err)
    assert shown == {"error": kind.__name__, "message": "it broke", "hint": "mend it", "exit_code": code}
    assert failures.report(kind("it broke", hint="mend it"), ["status"]) == kind.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert "it broke" in said.err
    assert "mend it" in said.err


def test_json_behind_the_dashes_is_the_jobs() -> None:
    assert failures.wants_json(["submit", "x", "--json"])
    assert not failures.wants_json(["submit", "x", "--", "--json"])


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            "/data/x: no space left",
            "free some space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", b"/root/y"),
            "/root/y: permission denied",
            "CLOUDRUN_HOME",
        ),
        (click.BadParameter("'x' is no number."), "'x' is no number", "--help"),
    ],
)
def test_errors_of_others(
    error: Exception, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures.report(error, []) == (2 if isinstance(error, click.ClickException) else 1)
    shown = capsys.readouterr().err
    assert message in shown
    assert hint in shown
    assert "Traceback" not in shown


def test_what_nobody_expected_leaves_a_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(ZeroDivisionError("division by zero"), []) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (written,) = (home / "reports").iterdir()
    assert str(written) in shown
    assert "ZeroDivisionError" in written.read_text()


def test_debug_shows_the_traceback(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDRUN_DEBUG", "1")
    failures.report(ZeroDivisionError("division by zero"), [])
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_messages_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(errors.JobError("a\x1b[2Jb\nline two"), [])
    assert capsys.readouterr().err == "error: a\\x1b[2Jb\nline two\n"


def test_ctrl_c_is_130_and_no_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(KeyboardInterrupt(), []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_home_that_cannot_be_made(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "file" / "home"))
    said = cli("status")
    assert said.code in (1, 2)
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ")


@given(
    st.lists(
        st.sampled_from(
            ["--json", "--spot", "status", "submit", "-y", "machines", "--limit", "x", "--", "-q", ""]
        ),
        max_size=4,
    )
)
def test_no_command_line_is_a_traceback(words: list[str]) -> None:
    """Parsed only: nothing of this may reach a provider."""
    from cloudrun.cli import app

    with suppress(click.ClickException, click.exceptions.Exit):
        app.make_context("cloudrun", list(words))


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`cloudrun status --json | true`, with the pipe closed before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "cloudrun", "status", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "CLOUDRUN_HOME": str(tmp_path)},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (failures.EXIT_PIPE, b"")
