"""Stop, start, and the guard's policy in the tags.

A machine that is stopped here is always deallocated: one that was only switched off is billed on (Azure's
"States and billing status of Virtual Machines"). Azure does not say who deallocated a machine, so a stop of
ours is marked first; without the mark a spot machine that is off was taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from cloudrun.errors import NoCapacity, NotFound
from cloudrun.models import Guard, Machine, MachineState
from cloudrun.providers import tags as t
from cloudrun.providers.azure.arm import DONE, USUAL_WAIT_S, Begun, Body, begin, shown_or_none, state_of
from cloudrun.providers.azure.errors import codes_of, error_for, mapped
from cloudrun.providers.azure.parts import parts_of_id
from cloudrun.providers.azure.session import Session

OFF = "cloudrun-off"  # "1" on a machine that was stopped from here
RESIZING = "cloudrun-resizing"  # the GB of a disk for which the machine is off; see disks.py
POWER, FAILED = "PowerState/", "ProvisioningState/failed/"  # beginnings of the codes of an instance view
DEALLOCATED, DEALLOCATING = "deallocated", "deallocating"
ON = ("running", "starting")
ENDED_BADLY = ("Failed", "Canceled")  # statuses of an operation
GOING = "Deleting"  # provisioning state
# A change of tags meets an operation that is still under way, e.g. a start: 409 with one of these.
BUSY = ("Conflict", "AnotherOperationInProgress", "RetryableError")
BUSY_FOR_S = 60.0  # past this, something else is in the way

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """A machine as Azure has it at one moment."""

    body: Body
    power: str  # running, starting, stopping, stopped, deallocating, deallocated; "" before it has any
    failure: str  # code of the last operation where that failed, else ""
    words: str  # what Azure says of that
    tags: Tags


def stop(session: Session, machine: Machine) -> None:
    """Deallocate it, disk and address kept: soon nothing but those is billed. Idempotent, and right for one
    that was switched off from inside. Raises NotFound when it is gone."""
    with mapped(region=machine.region, type=machine.type, what="stop"):
        seen = look(session, machine)
        try:
            change_tags(session, machine, seen, {OFF: "1", RESIZING: ""})
        finally:  # also where the mark is refused: a machine that is on costs more than a wrong word about it
            if seen.power not in (DEALLOCATED, DEALLOCATING):
                deallocate(session, machine)


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
        change_tags(session, machine, seen, {OFF: "", RESIZING: ""})
        try:
            if seen.power not in ON:
                turn_on(session, machine)
        except Exception:
            with suppress(Exception):  # what counts is why it does not start
                marks = {key: seen.tags.get(key, "") for key in (OFF, RESIZING)}
                change_tags(session, machine, look(session, machine), marks)
            raise
    return replace(machine, state=MachineState.PENDING, ended_at=None)


def set_guard(session: Session, machine: Machine, guard: Guard) -> None:
    """Keep the changed policy in the tags, for whoever rebuilds the machine from them. Idempotent."""
    with mapped(region=machine.region, what="tag"):
        change_tags(session, machine, look(session, machine), t.guard_tags(guard))


def deallocate(session: Session, machine: Machine) -> None:
    """Ask for it and return at once."""
    parts = parts_of_id(machine.id)
    begin(session.compute.virtual_machines.begin_deallocate, parts.group, parts.stem)


def turn_on(session: Session, machine: Machine) -> None:
    """Ask for it and return at once."""
    parts = parts_of_id(machine.id)
    begin(session.compute.virtual_machines.begin_start, parts.group, parts.stem)


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
    body = _body(session, machine)
    if body is None or state_of(body) == GOING:
        raise NotFound(f"the machine {machine.name} is gone", hint="launch a new one")
    return look_at(body)


def look_at(body: Body) -> Look:
    """What the body of a machine says, as it is with its instance view."""
    view = body["properties"].get("instanceView") or {}
    statuses: Sequence[Body] = view.get("statuses") or ()
    failure, words = _status(statuses, FAILED)
    return Look(body, _status(statuses, POWER)[0], failure, words, dict(body.get("tags") or {}))


def change_tags(session: Session, machine: Machine, seen: Look, changes: Tags) -> None:
    """Set these tags, and remove those that are to be ""; the others stay. No call where all is so already.

    Blocks for a moment: a machine takes one change at a time, and the next call would meet this one. Where
    another one is still under way it waits for that, for a minute at most.
    """
    wanted = {key: value for key, value in {**seen.tags, **changes}.items() if value}
    if wanted == dict(seen.tags):
        return
    parts, machines = parts_of_id(machine.id), session.compute.virtual_machines
    change = {"tags": wanted}
    begun = _once_free(session, lambda: begin(machines.begin_update, parts.group, parts.stem, change))
    _await_end(session, machine, begun)


def look_again_s(session: Session) -> float:
    """Between two looks at what takes a moment, where Azure names no time."""
    return min(USUAL_WAIT_S, session.settings.poll_s)


def has_code(error: HttpResponseError, codes: Sequence[str]) -> bool:
    """Whether Azure refused with one of these, wherever in its answer that stands."""
    return any(code in codes for code, _ in codes_of(error))


def _once_free(session: Session, change: Callable[[], Begun]) -> Begun:
    give_up_at = time.monotonic() + BUSY_FOR_S
    while True:
        try:
            return change()
        except HttpResponseError as error:
            if not has_code(error, BUSY) or time.monotonic() > give_up_at:
                raise
        time.sleep(look_again_s(session))


def _await_end(session: Session, machine: Machine, begun: Begun) -> None:
    """Until Azure is done with the change of the tags. The machine's own state would not tell: it may be
    starting meanwhile."""
    give_up_at, wait_s = time.monotonic() + BUSY_FOR_S, 0.0
    while begun.ask and time.monotonic() < give_up_at:
        time.sleep(wait_s)
        answer = session.compute.send_request(HttpRequest("GET", begun.ask))
        answer.raise_for_status()
        told: Body = answer.json()
        if told["status"] == DONE:
            return
        if told["status"] in ENDED_BADLY:
            why = told.get("error") or {}
            raise error_for(why.get("code", ""), why.get("message", ""), region=machine.region, what="tag")
        wait_s = min(begun.after_s, session.settings.poll_s)


def _body(session: Session, machine: Machine) -> Body | None:
    parts = parts_of_id(machine.id)
    machines = session.compute.virtual_machines
    return shown_or_none(machines.get, parts.group, parts.stem, expand="instanceView")


def _status(statuses: Sequence[Body], beginning: str) -> tuple[str, str]:
    """Rest of the code and message of the first status whose code begins so."""
    for status in statuses:
        if str(status["code"]).startswith(beginning):
            return str(status["code"]).removeprefix(beginning), str(status.get("message", ""))
    return "", ""
