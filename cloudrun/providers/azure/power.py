"""Stop, start, and the guard's policy in the tags.

A machine that is stopped here is always deallocated: one that was only switched off is billed on (Azure's
"States and billing status of Virtual Machines"). Azure does not say who deallocated a machine, so a stop of
ours is marked first; without the mark a spot machine that is off was taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cloudrun.errors import NoCapacity, NotFound
from cloudrun.models import Guard, Machine, MachineState
from cloudrun.providers import tags as t
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.session import Session

OFF = "cloudrun-off"  # "1" on a machine that was stopped from here
RESIZING = "cloudrun-resizing"  # the GB of a disk for which the machine is off; see disks.py
POWER, FAILED = "PowerState/", "ProvisioningState/failed/"  # beginnings of the codes of an instance view
DEALLOCATED, DEALLOCATING = "deallocated", "deallocating"
# A change of tags meets an operation that is still under way, e.g. a start: 409 with one of these.
BUSY = ("Conflict", "AnotherOperationInProgress", "RetryableError")
BUSY_FOR_S = 60.0  # past this, something else is in the way
QUICK_S = 1.0

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """A machine as Azure has it at one moment."""

    group: str
    name: str
    power: str  # running, starting, stopping, stopped, deallocating, deallocated; "" before it has any
    failure: str  # code of the last operation where that failed, else ""
    words: str  # what Azure says of that
    tags: Tags
    vm: Any


def stop(session: Session, machine: Machine) -> None:
    """Deallocate it, disk and address kept: at once nothing but those is billed. Idempotent, and right for
    one that was switched off from inside. Raises NotFound when it is gone."""
    with mapped(region=machine.region, type=machine.type, what="stop"):
        seen = look(session, machine)
        change_tags(session, seen, {OFF: "1", RESIZING: ""})
        if seen.power not in (DEALLOCATED, DEALLOCATING):
            session.compute.virtual_machines.begin_deallocate(seen.group, seen.name, polling=False)


def start(session: Session, machine: Machine) -> Machine:
    """Turn it on again, also after its provider has taken it back; its address and DNS name are as they
    were. Idempotent.

    Raises NotFound when it is gone, NoCapacity where Azure refuses at once, also while it is still stopping.
    Where Azure accepts and fails later the machine is STOPPED again, with detail "failure".
    """
    with mapped(region=machine.region, type=machine.type, what="start"):
        seen = look(session, machine)
        if seen.power == DEALLOCATING:
            raise NoCapacity(f"{machine.name} is still stopping", hint="try again in a moment")
        change_tags(session, seen, {OFF: "", RESIZING: ""})
        try:
            session.compute.virtual_machines.begin_start(seen.group, seen.name, polling=False)
        except Exception:
            with suppress(Exception):  # what counts is why it does not start
                change_tags(session, look(session, machine), _marks(seen.tags))
            raise
    return replace(machine, state=MachineState.PENDING, ended_at=None)


def set_guard(session: Session, machine: Machine, guard: Guard) -> None:
    """Keep the changed policy in the tags, for whoever rebuilds the machine from them. Idempotent."""
    with mapped(region=machine.region, what="tag"):
        change_tags(session, look(session, machine), t.guard_tags(guard))


def why_off(
    tags: Tags, *, spot: bool, failure: str, deadline_at: datetime | None
) -> tuple[tuple[str, str], ...]:
    """Facts about a deallocated machine that Azure does not tell as such: ("resizing", GB) while its disk
    grows, ("failure", code) where it could not be started, ("preempted", "deallocate") where Azure took it
    back: then it waits with its disk, and does not start by itself."""
    facts = {"resizing": tags.get(RESIZING, ""), "failure": failure}
    ended_itself = deadline_at is not None and deadline_at <= datetime.now(UTC)
    if spot and not ended_itself and not tags.get(OFF) and not any(facts.values()):
        facts["preempted"] = "deallocate"
    return tuple((name, value) for name, value in facts.items() if value)


def look(session: Session, machine: Machine) -> Look:
    """The machine as it is now: one call. Raises NotFound when it is gone."""
    from azure.core.exceptions import ResourceNotFoundError

    group, name = group_and_name(machine.id)
    try:
        vm = session.compute.virtual_machines.get(group, name, expand="instanceView")
    except ResourceNotFoundError as error:
        raise NotFound(f"the machine {machine.name} is gone", hint="launch a new one") from error
    power = _status(vm, POWER)[0]
    failure, words = _status(vm, FAILED)
    return Look(group, name, power, failure, words, dict(vm.tags or {}), vm)


def change_tags(session: Session, seen: Look, changes: Tags) -> Look:
    """Set these tags, and remove those that are to be ""; the others stay. No call where all is so already.

    Blocks for a moment: a machine takes one change at a time, and the next call would meet this one.
    """
    wanted = {key: value for key, value in {**seen.tags, **changes}.items() if value}
    if wanted == dict(seen.tags):
        return seen
    machines = session.compute.virtual_machines
    once_free(
        session,
        lambda: machines.begin_update(
            seen.group, seen.name, {"tags": wanted}, polling_interval=look_again_s(session)
        ).result(),
    )
    return replace(seen, tags=wanted)


def once_free(session: Session, change: Callable[[], object]) -> None:
    """Do the change; again after a while where another one is still under way."""
    from azure.core.exceptions import HttpResponseError

    give_up_at = time.monotonic() + BUSY_FOR_S
    while True:
        try:
            change()
            return
        except HttpResponseError as error:
            if error.error is None or error.error.code not in BUSY or time.monotonic() > give_up_at:
                raise
        time.sleep(look_again_s(session))


def look_again_s(session: Session) -> float:
    """Between two looks at an operation that takes a moment, where Azure names no time."""
    return min(QUICK_S, session.settings.poll_s)


def group_and_name(id: str) -> tuple[str, str]:
    """Resource group and name in the id of a resource: .../resourceGroups/GROUP/providers/KIND/NAME."""
    parts = id.split("/")
    return parts[4], parts[-1]


def _marks(tags: Tags) -> Tags:
    return {key: tags.get(key, "") for key in (OFF, RESIZING)}


def _status(vm: Any, beginning: str) -> tuple[str, str]:
    """Rest of the code and message of the first status of the instance view whose code begins so."""
    statuses = (vm.instance_view.statuses if vm.instance_view else None) or ()
    for status in statuses:
        if str(status.code).startswith(beginning):
            return str(status.code).removeprefix(beginning), str(status.message or "")
    return "", ""
