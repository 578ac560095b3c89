"""Events on the screen: stages with their times, bars on a terminal only, and a log made harmless."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import pytest
from cli_samples import a_run

from cloudrun.cli import render
from cloudrun.cli.table import Column
from cloudrun.cli.watch import Watcher, bar_line
from cloudrun.events import LogData, Note, Progress, StageEnded, StageStarted, StateChanged
from cloudrun.models import Stage

Terminal = Callable[[Callable[[], None]], str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """terminal(act): what act() leaves on a terminal of 60 columns that is both stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "60")

    def show(act: Callable[[], None]) -> str:
        reader, writer = pty.openpty()
        with os.fdopen(reader, "rb", buffering=0) as seen, os.fdopen(writer, "w", buffering=1) as screen:
            with redirect_stdout(screen), redirect_stderr(screen):
                act()
                render.say("END")
            screen.flush()
            shown = b""
            while not shown.endswith(b"END\r\n"):
                shown += seen.read(1 << 16)
        return shown.decode().replace("\r\n", "\n").removesuffix("END\n")

    return show


def test_stages_go_to_stderr_and_the_log_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher()
    watcher(StateChanged(a_run()))
    watcher(StageStarted(Stage.LAUNCH, 1))
    watcher(StageEnded(Stage.LAUNCH, 0.31, 1))
    watcher(LogData(b"epoch 1 \x1b[31mgood\x1b[0m\n"))
    watcher(Note("a\x1b[2Jnote"))
    watcher(StageEnded(Stage.LAUNCH, 0.5, 2))
    watcher.close()
    said = capsys.readouterr()
    assert said.out == "epoch 1 good\n"
    assert said.err.splitlines() == [
        " 6 launch     bench                  0.31 s",
        "   a\\x1b[2Jnote",
        "   attempt 2",
        " 6 launch     bench                  0.50 s",
    ]


def test_with_json_the_log_stays_out_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher(log_to_stderr=True)
    watcher(LogData(b"epoch 1\n"))
    assert capsys.readouterr() == ("", "epoch 1\n")


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Watcher()(Progress("push", 10, 100))
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_wiped_before_the_next_line(terminal: Terminal) -> None:
    def act() -> None:
        watcher = Watcher()
        watcher(Progress("push", 50, 100))
        watcher(StageEnded(Stage.START, 1.0, 1))

    shown = terminal(act)
    assert " 50%" in shown
    assert shown.endswith(f"{render.WIPE} 8 start                             1.00 s\n")


def test_a_stage_line_does_not_run_into_an_open_line_of_the_log(terminal: Terminal) -> None:
    def act() -> None:
        watcher = Watcher()
        watcher(LogData(b"10 %"))
        watcher(Progress("checkpoint", 5, 10))  # no bar may overwrite the job's own
        watcher(StageEnded(Stage.FOLLOW, 1.0, 1))

    assert terminal(act).startswith("10 %\n 9 follow")


def test_bars_fit_and_never_pass_the_end() -> None:
    assert bar_line(Progress("push", 3_200_000, 6_400_000), 1_100_000) == (
        "   push       ############------------  50%  3.2 MB of 6.4 MB  1.1 MB/s"
    )
    assert "100%" in bar_line(Progress("pull", 12, 10), 0)
    assert "100%" in bar_line(Progress("pull", 0, 0), 0)


def test_states_are_coloured_on_a_terminal_unless_asked_not_to(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        render.table((Column("STATE", 0),), [["failed"]])

    assert "\x1b[31mfailed\x1b[0m" in terminal(act)
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal(act) == "STATE\nfailed\n"
