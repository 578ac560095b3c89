"""What every metered stage needs at hand, and how a stage is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cloudrun.config import Settings
from cloudrun.errors import Interrupted
from cloudrun.events import OnEvent, StageEnded, StageStarted, StateChanged, ignore
from cloudrun.models import Machine, Run, RunState, Stage
from cloudrun.providers.base import Provider
from cloudrun.remote.shell import Shell
from cloudrun.runfiles import RunFiles
from cloudrun.store import Store


class CancelRequested(Interrupted):
    """The user asked for the run's end while a stage was under way."""


@dataclass(frozen=True)
class Context:
    """Store, providers and watcher of one walk. Nothing here is global."""

    settings: Settings
    store: Store
    provider: Callable[[str], Provider]
    connect: Callable[[Machine], Shell]
    on_event: OnEvent = ignore
    secrets: Mapping[str, str] = field(default_factory=dict)  # for the process, never stored

    def files(self, run: Run) -> RunFiles:
        return RunFiles(self.settings, run.id)

    @contextmanager
    def stage(self, stage: Stage, run: Run, attempt: int) -> Iterator[None]:
        """Say, store and time that the run is in this stage. A cancelled run enters no further one."""
        if stage is not Stage.RELEASE:
            self.refuse_cancelled(run)
        self.store.update_run(run.id, stage=stage)
        self.on_event(StageStarted(stage, attempt))
        started_at, tick = now(), time.monotonic()
        yield
        seconds = time.monotonic() - tick
        self.store.add_stage(run.id, attempt, stage, started_at, seconds)
        self.on_event(StageEnded(stage, seconds, attempt))

    def refuse_cancelled(self, run: Run) -> None:
        """Raise CancelRequested once the user asked for the run's end."""
        if self.store.find_run(run.id).cancel_requested:
            raise CancelRequested(f"{run.id} was cancelled")

    def update(self, run: Run, **fields: object) -> Run:
        """Change the named fields of a run in the store and tell the watcher."""
        changed = self.store.update_run(run.id, **fields)
        self.on_event(StateChanged(changed))
        return changed

    def set_state(self, run: Run, state: RunState) -> Run:
        return run if run.state is state else self.update(run, state=state)


def now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)
