"""Azure's virtual machines as our machines: states, times, addresses, and all of it rebuilt from tags."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cloudrun.catalog.loader import find_type
from cloudrun.config import Settings
from cloudrun.errors import CloudrunError, ProviderError
from cloudrun.images import IMAGE_FACT
from cloudrun.models import Machine, MachineState, Market, OnPreempt, SshAddress
from cloudrun.providers import tags as t
from cloudrun.providers.answers import side_by_side
from cloudrun.providers.azure import power
from cloudrun.providers.azure.arm import Body, shown_or_none, state_of
from cloudrun.providers.azure.ending import GOING, delete_parts, is_standing
from cloudrun.providers.azure.errors import error_for, mapped
from cloudrun.providers.azure.identity import let_release_itself
from cloudrun.providers.azure.names import dns_name
from cloudrun.providers.azure.parts import ASKED, IMAGE, canonical, parts_of_id, stem_of
from cloudrun.providers.azure.session import Session
from cloudrun.providers.rented import fact, ssh_address, told_by

PROVIDER = "azure"
USUAL_USER = "azureuser"  # of a machine whose tag was removed
SELF_RELEASE = "self-release"  # our fact: whether the machine may deallocate itself, "yes" or "no"
DNS_LABEL = "cloudrun-dns-label"  # tag of a machine that has a DNS name
PROVISIONING = "ProvisioningState/"  # beginning of a code of the instance view
# Power states ("States and billing status of Virtual Machines"). One that was switched off from inside is
# billed on; one that is being deallocated is not.
STATES = {
    "creating": MachineState.PENDING,
    "starting": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.HALTED,
    "stopped": MachineState.HALTED,
    "deallocating": MachineState.STOPPED,
    "deallocated": MachineState.STOPPED,
}
OFF = (MachineState.STOPPED, MachineState.HALTED)


def describe(session: Session, machine: Machine) -> Machine:
    """The machine as it is now: one call. What others know of it is kept.

    One that Azure does not know is TERMINATED; a spot machine that it was to delete when it takes it is
    PREEMPTED, if what was made around it still stands. One with another token is somebody else's: TERMINATED.
    Raises NoCapacity and the like where Azure failed to make it, after having all of it deleted.
    """
    if stem_of(machine.token) != parts_of_id(machine.id).stem:
        return replace(machine, state=MachineState.TERMINATED, address=None)
    with mapped(region=machine.region, type=machine.type, what="describe"):
        vm = find_vm(session, machine.id)
        if vm is None or state_of(vm) == GOING:
            return _gone(session, machine)
    seen = machine_of(session.settings, vm)
    refuse_failed(session, vm, machine)
    seen = _with_release(session, vm, machine, seen)
    return replace(
        machine,
        state=seen.state,
        zone=seen.zone,
        address=seen.address,
        ended_at=seen.ended_at or (machine.ended_at if seen.state in OFF else None),
        disk_gb=seen.disk_gb or machine.disk_gb,
        detail=seen.detail,
    )


def list_all(session: Session) -> list[Machine]:
    """Every machine with our tags in the subscription, in all regions: one call, and one more for each."""
    with mapped(region="", what="list the machines"):
        listed = [each.as_dict() for each in session.compute.virtual_machines.list_all()]
        ours = [str(each["id"]) for each in listed if (each.get("tags") or {}).get(t.OURS) == "1"]
        found = side_by_side(lambda each: find_vm(session, each), ours)
    there = [vm for vm in found if vm is not None and state_of(vm) != GOING]
    return [machine_of(session.settings, vm) for vm in there]


def find_vm(session: Session, id: str) -> Body | None:
    """The virtual machine with its instance view, as Azure shows it; None where there is none."""
    parts = parts_of_id(id)
    return shown_or_none(session.compute.virtual_machines.get, parts.group, parts.stem, expand="instanceView")


def machine_of(settings: Settings, vm: Body) -> Machine:
    """A machine rebuilt from what Azure shows, its tags above all."""
    tags: Mapping[str, str] = vm.get("tags") or {}
    properties: Mapping[str, Any] = vm["properties"]
    size = str(properties["hardwareProfile"]["vmSize"])
    known = find_type(PROVIDER, size)
    state = _state(vm)
    name = tags.get(t.NAME, str(vm["name"]))
    return Machine(
        id=canonical(str(vm["id"])),
        name=name,
        provider=PROVIDER,
        region=str(vm["location"]),
        zone="".join(vm.get("zones") or ()),
        type=size,
        market=Market.SPOT if properties.get("priority") == "Spot" else Market.ON_DEMAND,
        state=state,
        address=_address(settings, name, vm, state),
        launched_at=_time(str(properties.get("timeCreated", ""))) or t.time_of(tags.get(ASKED, "")),
        ended_at=_changed_at(vm) if state is MachineState.STOPPED else None,
        gpu=known.gpu if known else "",
        gpu_count=known.gpu_count if known else 0,
        gpu_memory_gib=known.gpu_memory_gib if known else 0.0,
        gpu_capability=known.gpu_capability if known else None,
        detail=_detail(vm, state),
        **told_by(tags),
    )


def refuse_failed(session: Session, vm: Body, machine: Machine) -> None:
    """Raise where Azure accepted the launch and then could not do it, most often for want of capacity: all
    that was made for the machine is deleted first."""
    seen = power.look_at(vm)
    if state_of(vm) != "Failed" or seen.power:
        return
    with suppress(ProviderError):  # what counts is why; what stays is found by its tags
        delete_parts(session, parts_of_id(machine.id), region=machine.region)
    raise error_for(seen.failure, seen.words, region=machine.region, type=machine.type, what="launch")


def let_it_release_itself(session: Session, vm: Body) -> str:
    """Give the machine its right over itself. "yes", or "no" where that cannot be had (now): then it only
    switches off inside."""
    identity = (vm.get("identity") or {}).get("principalId", "")
    if not identity:
        return ""
    try:
        return "yes" if let_release_itself(session, vm["id"], identity, region=vm["location"]) else "no"
    except CloudrunError:
        return "no"


def _with_release(session: Session, vm: Body, machine: Machine, seen: Machine) -> Machine:
    """Ask for the machine's right over itself where that was not tried, as after a kill; once more when it
    runs, for a new role takes minutes to be known everywhere."""
    known = fact(machine, SELF_RELEASE)
    again = known == "no" and machine.state is MachineState.PENDING
    if seen.state is MachineState.RUNNING and (not known or again):
        known = let_it_release_itself(session, vm)
    return replace(seen, detail=(*seen.detail, (SELF_RELEASE, known))) if known else seen


def _gone(session: Session, machine: Machine) -> Machine:
    """Azure shows nothing of a machine that is gone: not when, nor why."""
    state = machine.state if machine.state.gone else MachineState.TERMINATED
    taken_for_good = fact(machine, "on-preempt") == OnPreempt.TERMINATE
    if not machine.state.gone and taken_for_good and is_standing(session, parts_of_id(machine.id)):
        state = MachineState.PREEMPTED
    deadline = machine.deadline_at
    latest = deadline if deadline and deadline < datetime.now(UTC) else None
    return replace(machine, state=state, address=None, ended_at=machine.ended_at or latest)


def _state(vm: Body) -> MachineState:
    if state_of(vm) == GOING:
        return MachineState.TERMINATED
    return STATES.get(power.look_at(vm).power, MachineState.PENDING)


def _detail(vm: Body, state: MachineState) -> tuple[tuple[str, str], ...]:
    seen = power.look_at(vm)
    tags, label = seen.tags, seen.tags.get(DNS_LABEL, "")
    image = str((vm["properties"]["storageProfile"].get("imageReference") or {}).get("id", ""))
    facts = {
        "token": tags.get(t.TOKEN, ""),
        "state": "stopping" if seen.power == power.DEALLOCATING else seen.power,
        "on-preempt": tags.get(t.ON_PREEMPT, ""),
        "fixed-address": tags.get(t.ADDRESS, ""),
        "dns": dns_name(label, str(vm["location"])) if label else "",
        IMAGE_FACT: canonical(image, IMAGE) if image else "",
    }
    why: tuple[tuple[str, str], ...] = ()
    if state is MachineState.STOPPED:
        why = power.why_off(
            tags,
            spot=vm["properties"].get("priority") == "Spot",
            failure=seen.failure,
            deadline_at=t.time_of(tags.get(t.DEADLINE, "")),
        )
    return (*((name, value) for name, value in facts.items() if value), *why)


def _address(settings: Settings, name: str, vm: Body, state: MachineState) -> SshAddress | None:
    """It was written on the machine when it was made, and never changes."""
    tags: Mapping[str, str] = vm.get("tags") or {}
    host = tags.get(t.ADDRESS, "")
    if state not in (MachineState.RUNNING, MachineState.PENDING) or not host:
        return None
    return ssh_address(settings, name, host, tags.get(t.USER, USUAL_USER))


def _changed_at(vm: Body) -> datetime | None:
    """When Azure was done with the last thing that it did to the machine."""
    view: Mapping[str, Any] = vm["properties"].get("instanceView") or {}
    statuses: list[dict[str, str]] = view.get("statuses") or []
    times = [each.get("time", "") for each in statuses if each["code"].startswith(PROVISIONING)]
    return _time(times[0]) if times else None


def _time(text: str) -> datetime | None:
    """Azure writes seven digits behind the point, which Python reads since 3.11."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
