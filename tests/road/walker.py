"""A client that kills itself (SIGKILL) at a named point of the road: `walker.py HOME JOB POINT`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cloudrun import bundle, supervise
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.context import Context
from cloudrun.events import Event, LogData, Progress, StageEnded, StageStarted
from cloudrun.providers.base import Provider


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_event(point: str) -> Callable[[Event], None]:
    """Points: `before STAGE`, `after STAGE`, `log`, `push`, `pull`."""

    def watch(event: Event) -> None:
        named = {
            StageStarted: lambda: f"before {event.stage}",
            StageEnded: lambda: f"after {event.stage}",
            LogData: lambda: "log",
            Progress: lambda: event.what,
        }.get(type(event), lambda: "")()
        if named == point:
            die()

    return watch


class DiesAroundLaunch:
    """The real provider; `launch` dies before asking, or with the machine up and its answer unstored."""

    def __init__(self, provider: Provider, point: str) -> None:
        self._provider, self._point = provider, point

    def __getattr__(self, name: str) -> object:
        return getattr(self._provider, name)

    def launch(self, spec):
        if self._point == "asking":
            die()
        machine = self._provider.launch(spec)
        if self._point == "answered":
            die()
        return machine

    def terminate(self, machine):
        self._provider.terminate(machine)
        if self._point == "terminated":
            die()


def deadly(ctx: Context, point: str) -> Context:
    if point in ("asking", "answered", "terminated"):
        return replace(ctx, provider=lambda name: DiesAroundLaunch(original(name), point))
    return replace(ctx, on_event=at_event(point))


home, job, point = sys.argv[1:]
client = Client(Settings(home=Path(home), poll_s=0.2))
context = client.context()
original = context.provider
plan = client.plan(job, type="local")
if point == "before record":
    bundle.save_manifest = lambda *_: die()
supervise.submit(deadly(context, point), plan, detach=False)
sys.exit("the point was never reached")
