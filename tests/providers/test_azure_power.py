"""Machines on Azure off and on again: stopping is deallocating, whoever switched them off before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure_help import ON_DEMAND, SPOT, Cloud, open_cloud
from waiting import until

from cloudrun.errors import CloudrunError, Credentials, NoCapacity, NotFound, ProviderError
from cloudrun.models import Guard, LaunchOptions, Machine, MachineState
from cloudrun.providers.azure import power
from cloudrun.providers.azure.power import OFF, RESIZING

VM = "Microsoft.Compute/virtualMachines"
DEALLOCATE, START, WRITE = f"{VM}/deallocate/action", f"{VM}/start/action", f"{VM}/write"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def until_fact(cloud: Cloud, machine: Machine, name: str, value: str) -> Machine:
    provider = cloud.provider()
    return until(lambda: provider.describe(machine), lambda seen: dict(seen.detail).get(name) == value)


def tags(cloud: Cloud, machine: Machine) -> dict[str, str]:
    [found] = [each for each in cloud.double.instances() if each["id"].lower() == machine.id.lower()]
    named: dict[str, str] = found["tags"]
    return named


def facts(machine: Machine) -> dict[str, str]:
    return dict(machine.detail)


def stopped(cloud: Cloud, **more: Any) -> Machine:
    machine = cloud.launch_running(**more)
    cloud.provider().stop(machine)
    return off(cloud, machine)


def off(cloud: Cloud, machine: Machine) -> Machine:
    return until_fact(cloud, machine, "state", "deallocated")


# --- stop ---


def test_a_stop_deallocates_and_can_be_repeated(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.calls()
    for _ in range(2):
        cloud.provider().stop(machine)
    seen = off(cloud, machine)
    assert (seen.state, seen.address) == (MachineState.STOPPED, None)
    cloud.provider().stop(machine)
    called = cloud.calls()
    assert called[DEALLOCATE] == 1
    assert not [operation for operation in called if "powerOff" in operation]
    assert tags(cloud, machine)[OFF] == "1"
    assert tags(cloud, machine)["cloudrun-name"] == machine.name


def test_one_that_was_switched_off_inside_is_deallocated_too(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.halt(machine.id)
    halted = cloud.until(machine, MachineState.HALTED)
    cloud.provider().stop(halted)
    assert off(cloud, halted).state is MachineState.STOPPED


def test_it_is_off_even_where_the_mark_is_refused(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.fault(WRITE, "AuthorizationFailed")
    with pytest.raises(Credentials):
        cloud.provider().stop(machine)
    assert off(cloud, machine).state is MachineState.STOPPED


def test_the_mark_waits_for_what_is_under_way(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.fault(WRITE, "Conflict", times=2)
    cloud.provider().stop(machine)
    assert tags(cloud, machine)[OFF] == "1"
    cloud.double.fault(WRITE, "InternalExecutionError", status=400)
    with pytest.raises(ProviderError):
        cloud.provider().set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=7))


def test_a_change_that_fails_later_is_told(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.fault(WRITE, "InternalExecutionError", late=True)
    with pytest.raises(ProviderError, match="InternalExecutionError"):
        cloud.provider().set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=7))


def test_a_machine_that_starts_takes_a_new_policy(cloud: Cloud) -> None:
    machine = stopped(cloud, offer=ON_DEMAND)
    cloud.delay(starting_s=30.0)
    cloud.provider().start(machine)
    cloud.provider().set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=7))
    [seen] = cloud.provider().list_machines()
    assert (seen.state, seen.idle_minutes) == (MachineState.PENDING, 7)


def test_what_is_gone_is_neither_stopped_nor_started(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.delay(deleting_s=0.5)
    cloud.provider().terminate(machine)
    for ask in (cloud.provider().stop, cloud.provider().start):
        with pytest.raises(NotFound, match="gone"):
            ask(machine)  # on its way
    cloud.until_empty()
    with pytest.raises(NotFound, match="gone"):
        cloud.provider().start(machine)


# --- start ---


def test_a_start_finds_address_and_name_as_they_were(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, options=LaunchOptions(dns_label="my-k80"))
    cloud.provider().stop(machine)
    seen = off(cloud, machine)
    started = cloud.provider().start(seen)
    assert (started.state, started.ended_at) == (MachineState.PENDING, None)
    again = cloud.until(started, MachineState.RUNNING)
    assert machine.address is not None
    assert again.address is not None
    assert again.address.host == machine.address.host
    assert facts(again)["dns"] == facts(machine)["dns"]
    assert OFF not in tags(cloud, machine)
    assert cloud.provider().start(again).id == machine.id


def test_one_that_was_switched_off_inside_is_started(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.halt(machine.id)
    halted = cloud.until(machine, MachineState.HALTED)
    assert cloud.until(cloud.provider().start(halted), MachineState.RUNNING).address


def test_a_start_that_cannot_be_yet_says_why(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.delay(deallocating_s=30.0)
    cloud.provider().stop(machine)
    with pytest.raises(NoCapacity, match="still stopping"):
        cloud.provider().start(machine)


def test_a_start_without_capacity_leaves_it_stopped(cloud: Cloud) -> None:
    machine = stopped(cloud, offer=SPOT)
    cloud.double.fault(START, "AllocationFailed", status=409)
    with pytest.raises(NoCapacity, match="AllocationFailed"):
        cloud.provider().start(machine)
    seen = cloud.provider().describe(machine)
    assert seen.state is MachineState.STOPPED
    assert tags(cloud, machine)[OFF] == "1"  # by us still, nobody took it
    assert "preempted" not in facts(seen)


def test_a_start_that_fails_later_shows_why(cloud: Cloud) -> None:
    machine = stopped(cloud, offer=SPOT)
    cloud.double.fault(START, "AllocationFailed", late=True)
    cloud.provider().start(machine)
    seen = until_fact(cloud, machine, "failure", "AllocationFailed")
    assert seen.state is MachineState.STOPPED
    assert "preempted" not in facts(seen)
    assert cloud.until(cloud.provider().start(seen), MachineState.RUNNING).address


# --- taken, or stopped by us ---


def test_an_evicted_machine_waits_with_its_disk(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=SPOT)
    cloud.double.preempt(machine.id, notice_s=0)
    seen = until_fact(cloud, machine, "preempted", "deallocate")
    off(cloud, machine)
    again = cloud.until(cloud.provider().start(seen), MachineState.RUNNING)
    assert "preempted" not in facts(again)


def test_one_that_we_stopped_was_not_taken(cloud: Cloud) -> None:
    assert "preempted" not in facts(stopped(cloud, offer=SPOT))


def test_one_that_we_stop_after_it_was_taken_is_stopped(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=SPOT)
    cloud.double.preempt(machine.id, notice_s=0)
    seen = until_fact(cloud, machine, "preempted", "deallocate")
    cloud.provider().stop(seen)
    assert "preempted" not in facts(cloud.provider().describe(seen))


LATER, EARLIER = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
TAKEN = (("preempted", "deallocate"),)


@pytest.mark.parametrize(
    ("marks", "spot", "failure", "deadline_at", "why"),
    [
        ({}, True, "", None, TAKEN),
        ({}, True, "", LATER, TAKEN),
        ({}, True, "", EARLIER, ()),  # its guard did it
        ({}, False, "", None, ()),  # only spot is taken
        ({OFF: "1"}, True, "", None, ()),
        ({RESIZING: "128"}, True, "", None, (("resizing", "128"),)),
        ({}, True, "AllocationFailed", None, (("failure", "AllocationFailed"),)),
    ],
)
def test_why_it_is_off(
    marks: dict[str, str], spot: bool, failure: str, deadline_at: datetime | None, why: tuple[object, ...]
) -> None:
    assert power.why_off(marks, spot=spot, failure=failure, deadline_at=deadline_at) == why


# --- the guard's policy ---


def test_a_changed_policy_is_kept_in_the_tags(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    before = tags(cloud, machine)
    guard = Guard(issued_at=datetime.now(UTC), deadline_at=LATER, idle_minutes=None)
    cloud.provider().set_guard(machine, guard)
    [seen] = cloud.provider().list_machines()
    assert (seen.deadline_at, seen.idle_minutes) == (LATER, None)
    changed = {"cloudrun-deadline", "cloudrun-idle-minutes"}
    now = tags(cloud, machine)
    assert {key: now[key] for key in now if key not in changed} == {
        key: before[key] for key in before if key not in changed
    }
    cloud.calls()
    cloud.provider().set_guard(machine, guard)
    assert WRITE not in cloud.calls()


def test_a_lost_answer_is_no_word_about_the_machine(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.fault(DEALLOCATE, lose_answer=True, times=9)
    with pytest.raises(CloudrunError):
        cloud.provider().stop(machine)
    cloud.double.clear_faults()
    cloud.provider().stop(replace(machine, state=MachineState.RUNNING))
    assert off(cloud, machine).state is MachineState.STOPPED
