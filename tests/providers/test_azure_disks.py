"""Disks on Azure: their kinds, and growing them, which takes a machine that is off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport
from azure_help import ON_DEMAND, SPOT, Cloud, open_cloud
from waiting import until

from cloudrun.errors import NoCapacity, NotFound, ProviderError, Refused
from cloudrun.models import LaunchOptions, Machine, MachineState
from cloudrun.providers.azure import AzureProvider, disks
from cloudrun.providers.azure.power import OFF, RESIZING

VM = "Microsoft.Compute/virtualMachines"
DEALLOCATE, START, GROW = f"{VM}/deallocate/action", f"{VM}/start/action", "Microsoft.Compute/disks/write"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def disk_of(cloud: Cloud, machine: Machine) -> dict[str, Any]:
    """The machine's own disk as it really is."""
    compute = cloud.provider()._session.compute
    group = machine.id.split("/")[4]
    [found] = [each.as_dict() for each in compute.disks.list_by_resource_group(group)]
    body: dict[str, Any] = found
    return body


def size_gb(cloud: Cloud, machine: Machine) -> int:
    return int(disk_of(cloud, machine)["properties"]["diskSizeBytes"]) // 2**30


def until_fact(cloud: Cloud, machine: Machine, name: str, value: str) -> Machine:
    provider = cloud.provider()
    return until(lambda: provider.describe(machine), lambda seen: dict(seen.detail).get(name) == value)


def tags(cloud: Cloud, machine: Machine) -> dict[str, str]:
    [found] = [each for each in cloud.double.instances() if each["id"].lower() == machine.id.lower()]
    named: dict[str, str] = found["tags"]
    return named


def grow(provider: AzureProvider, machine: Machine, gb: int) -> None:
    provider.resize_disk(machine, gb)
    for _ in range(400):
        if provider.disk_ready(machine, gb):
            return
    raise AssertionError(provider.describe(machine))


def is_fine(cloud: Cloud, machine: Machine, gb: int) -> bool:
    """On, with that size, and with no mark left."""
    seen = cloud.until(machine, MachineState.RUNNING)
    marks = tags(cloud, machine)
    assert (size_gb(cloud, machine), marks["cloudrun-disk-gb"]) == (gb, str(gb))
    assert RESIZING not in marks
    assert OFF not in marks
    return seen.disk_gb == gb


# --- growing ---


def test_it_grows_and_the_machine_is_on_again(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.calls()
    grow(cloud.provider(), machine, 128)
    called = cloud.calls()
    assert [called[each] for each in (DEALLOCATE, GROW, START)] == [1, 1, 1]
    assert is_fine(cloud, machine, 128)


def test_nothing_happens_where_it_has_that_size(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.calls()
    grow(cloud.provider(), machine, 64)
    called = cloud.calls()
    assert not called[DEALLOCATE] + called[GROW] + called[START]


@pytest.mark.parametrize(("gb", "words"), [(32, "none smaller"), (5000, "too much")])
def test_impossible_sizes_are_refused_before_anything_happens(cloud: Cloud, gb: int, words: str) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    with pytest.raises(Refused, match=words):
        cloud.provider().resize_disk(machine, gb)
    assert cloud.provider().describe(machine).state is MachineState.RUNNING


def test_while_it_grows_nobody_took_it(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=SPOT, disk_gb=64)
    cloud.provider().resize_disk(machine, 128)
    seen = cloud.until(machine, MachineState.STOPPED)
    facts = dict(until_fact(cloud, seen, "state", "deallocated").detail)
    assert facts["resizing"] == "128"
    assert "preempted" not in facts
    grow(cloud.provider(), machine, 128)
    assert is_fine(cloud, machine, 128)


def test_a_stopped_machine_stays_off(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.provider().stop(machine)
    until_fact(cloud, machine, "state", "deallocated")
    grow(cloud.provider(), machine, 128)
    assert size_gb(cloud, machine) == 128
    assert cloud.provider().describe(machine).state is MachineState.STOPPED


def test_a_machine_that_still_starts_is_waited_for(cloud: Cloud) -> None:
    cloud.delay(creating_s=1.0)
    machine = cloud.launch(offer=ON_DEMAND, disk_gb=64)
    grow(cloud.provider(), machine, 128)
    assert is_fine(cloud, machine, 128)


def test_a_stop_meanwhile_counts(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.provider().resize_disk(machine, 128)
    cloud.provider().stop(machine)
    until_fact(cloud, machine, "state", "deallocated")
    grow(cloud.provider(), machine, 128)
    assert cloud.provider().describe(machine).state is MachineState.STOPPED


# --- refusals on the way ---


@pytest.mark.parametrize("late", [False, True])
def test_a_size_that_is_refused_leaves_the_machine_on(cloud: Cloud, late: bool) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.double.fault(GROW, "OperationNotAllowed", late=late)
    with pytest.raises(ProviderError):
        grow(cloud.provider(), machine, 128)
    cloud.until(machine, MachineState.RUNNING)
    assert size_gb(cloud, machine) == 64
    assert RESIZING not in tags(cloud, machine)
    grow(cloud.provider(), machine, 128)
    assert is_fine(cloud, machine, 128)


@pytest.mark.parametrize("late", [False, True])
def test_a_start_that_is_refused_is_told_and_can_be_repeated(cloud: Cloud, late: bool) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.double.fault(START, "AllocationFailed", late=late)
    with pytest.raises(NoCapacity, match="AllocationFailed"):
        grow(cloud.provider(), machine, 128)
    seen = cloud.provider().describe(machine)
    assert (seen.state, dict(seen.detail)["resizing"]) == (MachineState.STOPPED, "128")
    grow(cloud.provider(), machine, 128)
    assert is_fine(cloud, machine, 128)


def test_a_start_by_hand_ends_it(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    cloud.provider().resize_disk(machine, 128)
    until_fact(cloud, machine, "state", "deallocated")
    cloud.provider().start(machine)
    cloud.until(machine, MachineState.RUNNING)
    assert RESIZING not in tags(cloud, machine)
    assert size_gb(cloud, machine) == 64


# --- killed at any point ---


class Killed(Exception):
    """The process is gone: from here on none of its calls goes out."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, answered: bool) -> Iterator[list[str]]:
    """The process dies at its change of that number, before it goes out or once Azure has done it; dying at a
    mere question is the same as dying after the last change. Yields the changes up to there."""
    really, changes, dead = RequestsTransport.send, list[str](), list[bool]()

    def send(transport: Any, request: Any, **more: Any) -> Any:
        if dead:
            raise Killed
        if request.method == "GET" or "oauth2" in request.url:
            return really(transport, request, **more)
        changes.append(f"{request.method} {request.url.partition('?')[0].rpartition('/')[2]}")
        if len(changes) <= number:
            return really(transport, request, **more)
        dead.append(True)
        if answered:
            really(transport, request, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RequestsTransport, "send", send)
        yield changes


@pytest.mark.parametrize("answered", [False, True])
def test_killed_at_any_change_and_repeated_it_ends_right(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    stem, all_changes = machine.id.rpartition("/")[2], 5
    deaths: list[str] = []
    for number in range(all_changes + 1):
        gb = 65 + number
        with killed_at(monkeypatch, number, answered=answered) as changes, suppress(Killed):
            grow(cloud.provider(), machine, gb)
            assert number == all_changes
        deaths.append(changes[-1])
        grow(cloud.provider(), machine, gb)
        assert is_fine(cloud, machine, gb)
    assert deaths == [
        f"PATCH {stem}",  # marked
        "POST deallocate",
        f"PATCH {stem}-disk",
        "POST start",
        f"PATCH {stem}",  # the mark is gone
        f"PATCH {stem}",  # nobody was killed
    ]


# --- data disks ---


def attach_data_disk(cloud: Cloud, machine: Machine, gb: int) -> None:
    compute, parts = cloud.provider()._session.compute, machine.id.split("/")
    vm = compute.virtual_machines.get(parts[4], parts[-1]).as_dict()
    added = {"lun": 0, "name": "data-1", "createOption": "Empty", "diskSizeGB": gb}
    change = {"properties": {"storageProfile": {"dataDisks": [added]}}}
    compute.virtual_machines.begin_update(parts[4], vm["name"], change, polling_interval=0.05).result()


@pytest.mark.parametrize(("gb", "went_off"), [(256, False), (5000, True)])
def test_data_disks_grow_on_line_up_to_a_size(cloud: Cloud, gb: int, went_off: bool) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    attach_data_disk(cloud, machine, 128)
    session = cloud.provider()._session
    cloud.calls()
    disks.resize_disk(session, machine, gb, disk="data-1")
    for _ in range(400):
        if disks.disk_ready(session, machine, gb, disk="data-1"):
            break
    assert bool(cloud.calls()[DEALLOCATE]) is went_off
    cloud.until(machine, MachineState.RUNNING)
    compute = session.compute
    sizes = {each.name: each.disk_size_gb for each in compute.disks.list()}
    assert sizes["data-1"] == gb
    assert sorted(sizes.values()) == [64, gb]


def test_there_is_no_such_disk(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=64)
    with pytest.raises(NotFound, match="no such disk"):
        disks.resize_disk(cloud.provider()._session, machine, 128, disk="data-7")


# --- kinds ---


def test_kinds_of_disks(cloud: Cloud) -> None:
    session = cloud.provider()._session
    small = replace(ON_DEMAND, type="Standard_NC4as_T4_v3")
    assert disks.disk_type(session, small, "") == "StandardSSD_LRS"
    assert disks.disk_type(session, small, "Standard_LRS") == "Standard_LRS"
    assert disks.disk_type(session, small, "Premium_LRS") == "Premium_LRS"
    old = replace(small, type="Standard_NC6", gpu="K80", gpu_count=1)
    assert disks.disk_type(session, old, "") == "StandardSSD_LRS"
    with pytest.raises(Refused, match="Standard_NC6 takes no premium disks") as caught:
        disks.disk_type(session, old, "Premium_LRS")
    assert "Standard_NC4as_T4_v3" in caught.value.hint
    assert "Standard_NC12" not in caught.value.hint


def test_a_machine_has_the_disk_that_was_asked_for(cloud: Cloud) -> None:
    old = replace(ON_DEMAND, type="Standard_NC6")
    machine = cloud.launch_running(offer=ON_DEMAND, options=LaunchOptions(disk_type="Premium_LRS"))
    assert disk_of(cloud, machine)["sku"]["name"] == "Premium_LRS"
    cloud.calls()
    with pytest.raises(Refused, match="no premium"):
        cloud.launch("old", offer=old, options=LaunchOptions(disk_type="Premium_LRS"))
    assert not [operation for operation in cloud.calls() if operation.endswith("/write")]
