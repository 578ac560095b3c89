"""What happens on the road, as records for whoever watches. The CLI renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloudrun.models import Run, Stage


@dataclass(frozen=True, slots=True)
class StageStarted:
    stage: Stage
    attempt: int = 0  # 0 while planning


@dataclass(frozen=True, slots=True)
class StageEnded:
    stage: Stage
    seconds: float
    attempt: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class LogData:
    """Bytes of the job's log as they are; escape sequences are made harmless by the renderer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    what: str  # "push" | "pull" | "checkpoint"
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Note:
    message: str


@dataclass(frozen=True, slots=True)
class MetricLine:
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class StateChanged:
    run: Run


Event = StageStarted | StageEnded | LogData | Progress | Note | MetricLine | StateChanged
OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The watcher that does not watch."""
