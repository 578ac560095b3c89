"""Shows the road's events as they happen: stages with their times, bars, and the job's log."""

from __future__ import annotations

import time

from cloudrun.cli import render
from cloudrun.cli.logtext import LogText
from cloudrun.cli.text import duration, size, visible
from cloudrun.events import Event, LogData, Note, Progress, StageEnded, StageStarted, StateChanged
from cloudrun.models import Run, Stage

STAGE_NUMBERS = {stage: number for number, stage in enumerate(Stage, start=1)}
BAR_CELLS = 24
BAR_EVERY_S = 0.1  # a bar that is drawn more often only costs time


class Watcher:
    """An `on_event` that draws. The log goes to stdout, or with `log_to_stderr` out of the data's way."""

    def __init__(self, *, log_to_stderr: bool = False) -> None:
        self._log = LogText()
        self._log_to_stderr = log_to_stderr
        self._bar = _Bar()
        self._attempt = 1
        self.run: Run | None = None  # as last heard

    def __call__(self, event: Event) -> None:
        match event:
            case LogData(data):
                render.log(self._log.feed(data), to_stderr=self._log_to_stderr)
            case Progress():
                self._bar.draw(event)
            case StageStarted(stage, attempt):
                self._announce(attempt)
                render.transient(f"{STAGE_NUMBERS[stage]:2d} {stage.value} ...")
            case StageEnded(stage, seconds, attempt, note):
                self._announce(attempt)
                render.say(stage_line(stage, seconds, note or self._note(stage)))
            case Note(message):
                render.say(f"   {visible(message)}")
            case StateChanged(run):
                self.run = run

    def close(self) -> None:
        """Show what the log held back."""
        render.log(self._log.close(), to_stderr=self._log_to_stderr)

    def _announce(self, attempt: int) -> None:
        if attempt > self._attempt:
            self._attempt = attempt
            render.say(f"   attempt {attempt}")

    def _note(self, stage: Stage) -> str:
        if self.run is None:
            return ""
        return {Stage.RECORD: self.run.id, Stage.LAUNCH: self.run.machine}.get(stage, "")


def stage_line(stage: Stage, seconds: float, note: str = "") -> str:
    """` 6 launch     local            0.31 s`"""
    return f"{STAGE_NUMBERS[stage]:2d} {stage.value:<10} {visible(note):<16} {duration(seconds):>12}"


class _Bar:
    """One transfer's progress with its rate since it began."""

    def __init__(self) -> None:
        self._what = ""
        self._done = 0
        self._began_at = self._drawn_at = 0.0
        self._began_bytes = 0

    def draw(self, event: Progress) -> None:
        now = time.monotonic()
        if event.what != self._what or event.done_bytes < self._done:
            self._what, self._began_at, self._began_bytes, self._drawn_at = (
                event.what,
                now,
                event.done_bytes,
                0.0,
            )
        self._done = event.done_bytes
        if now - self._drawn_at < BAR_EVERY_S and event.done_bytes < event.total_bytes:
            return
        self._drawn_at = now
        elapsed = now - self._began_at
        rate = (event.done_bytes - self._began_bytes) / elapsed if elapsed > 0.5 else 0.0  # too short to tell
        render.transient(bar_line(event, rate))


def bar_line(event: Progress, bytes_per_s: float) -> str:
    """`   push  ############------------  50 %  3.2 MB of 6.4 MB  1.1 MB/s`"""
    share = min(event.done_bytes / event.total_bytes, 1.0) if event.total_bytes else 1.0
    full = int(share * BAR_CELLS)
    amount = f"{size(event.done_bytes)} of {size(event.total_bytes)}"
    rate = f"  {size(int(bytes_per_s))}/s" if bytes_per_s else ""
    return f"   {event.what:<10} {'#' * full}{'-' * (BAR_CELLS - full)} {share:4.0%}  {amount}{rate}"
