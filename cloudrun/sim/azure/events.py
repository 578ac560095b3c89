"""Scheduled events: what Azure tells a machine before it does something to it.

The document's form and its rules: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events,
read 2026-11. An event whose machine says StartRequests begins at once, else at its time; done, it is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from cloudrun.sim.azure.life import Vm
from cloudrun.sim.azure.store import World
from cloudrun.sim.azure.wire import Body

PREEMPT, FREEZE, REBOOT, REDEPLOY, TERMINATE = "Preempt", "Freeze", "Reboot", "Redeploy", "Terminate"
KINDS = (PREEMPT, FREEZE, REBOOT, REDEPLOY, TERMINATE)
_LASTS_S = {FREEZE: 5}  # others: -1, for that is not known
FROZEN_S = 0.1  # how long a freeze is under way here


@dataclass(eq=False, slots=True)
class Event:
    """One of them. `happen` does what it is about."""

    kind: str
    not_before: datetime
    happen: Callable[[], None]
    description: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    started: bool = False


class Events:
    """Announced, begun, and gone. All methods run under the world's lock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def announce(
        self, vm: Vm, kind: str, notice_s: float, happen: Callable[[], None], description: str = ""
    ) -> None:
        """It happens in notice_s seconds, or when the machine says that it is ready. Raises ValueError."""
        if kind not in KINDS:
            raise ValueError(f"no event {kind!r}; known: {', '.join(KINDS)}")
        if any(each.kind == kind for each in vm.events):
            return  # it has its notice, and keeps it
        event = Event(kind, datetime.now(UTC) + timedelta(seconds=notice_s), happen, description)
        vm.events.append(event)
        vm.incarnation += 1

        def due() -> None:
            with self._world.lock:
                if event in vm.events and not event.started:
                    self._begin(vm, event)

        self._world.timers.after(notice_s, due)

    def acknowledge(self, vm: Vm, ids: list[str]) -> None:
        """The machine is ready for these: they begin now. Unknown ones are passed over."""
        for event in list(vm.events):
            if event.id in ids and not event.started:
                self._begin(vm, event)

    def document(self, vm: Vm) -> Body:
        """What the machine reads."""
        return {
            "DocumentIncarnation": vm.incarnation,
            "Events": [self._show(vm, event) for event in vm.events],
        }

    def _begin(self, vm: Vm, event: Event) -> None:
        event.started = True
        vm.incarnation += 1

        def over() -> None:
            with self._world.lock:
                if event in vm.events:
                    vm.events.remove(event)
                    vm.incarnation += 1

        event.happen()
        self._world.timers.after(FROZEN_S, over)

    def _show(self, vm: Vm, event: Event) -> Body:
        return {
            "EventId": event.id,
            "EventStatus": "Started" if event.started else "Scheduled",
            "EventType": event.kind,
            "ResourceType": "VirtualMachine",
            "Resources": [vm.resource.name],
            "NotBefore": "" if event.started else format_datetime(event.not_before, usegmt=True),
            "Description": event.description,
            "EventSource": "Platform",
            "DurationInSeconds": _LASTS_S.get(event.kind, -1),
        }
