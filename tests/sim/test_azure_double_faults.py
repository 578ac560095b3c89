"""Launches that go wrong: at once, late, for want of room, by quota, by restriction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_vm_help import GROUP, NEW_TYPE, SPOT, TYPE, Subscription, refused, subscription

WRITE = "Microsoft.Compute/virtualMachines/write"
START = "Microsoft.Compute/virtualMachines/start/action"


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Subscription]:
    with subscription(tmp_path) as made:
        yield made


def test_a_late_failure_leaves_the_machine_and_its_disk_to_be_deleted(account: Subscription) -> None:
    account.double.fault(WRITE, "ZonalAllocationFailed", late=True)
    with refused("ZonalAllocationFailed", 200):
        account.put("m")
    found = account.compute.virtual_machines.get(GROUP, "m")
    assert found.provisioning_state == "Failed"
    assert account.statuses("m") == ["ProvisioningState/failed/ZonalAllocationFailed"]
    assert account.left() == {"virtualMachines", "disks", "networkInterfaces", "publicIPAddresses"}
    account.do("m", "delete")
    assert account.left() == set()


def test_a_failed_machine_is_made_by_the_next_put(account: Subscription) -> None:
    nic = account.nic("m")
    account.double.fault(WRITE, "AllocationFailed", late=True)
    with refused("AllocationFailed", 200):
        account.put("m", nic=nic)
    account.put("m", nic=nic)
    assert account.power("m") == "running"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, "AllocationFailed"),
        ({"zones": ["1"]}, "ZonalAllocationFailed"),
        (SPOT, "OverconstrainedAllocationRequest"),
        ({**SPOT, "zones": ["1"]}, "OverconstrainedZonalAllocationRequest"),
    ],
)
def test_where_there_is_no_room_the_operation_fails(
    more: dict[str, object], code: str, account: Subscription
) -> None:
    account.double.set_capacity(TYPE, count=0)
    with refused(code, 200, match="Allocation failed"):
        account.put("m", **more)
    account.double.set_capacity(TYPE, count=None)
    account.do("m", "delete")
    account.put("m", **more)


def test_room_is_of_a_region_and_a_market(account: Subscription) -> None:
    account.double.set_capacity(TYPE, "eastus", "spot", 0)
    account.double.set_capacity(TYPE, "westus2", count=0)
    account.put("m")
    with refused("OverconstrainedAllocationRequest", 200):
        account.put("s", **SPOT)


def test_a_start_needs_room_again(account: Subscription) -> None:
    account.put("m")
    account.do("m", "deallocate")
    account.double.set_capacity(TYPE, count=0)
    with refused("AllocationFailed", 200):
        account.do("m", "start")
    assert account.power("m") == "deallocated"
    account.double.set_capacity(TYPE, count=None)
    account.do("m", "start")
    assert account.power("m") == "running"


def test_a_restricted_size_is_listed_so_and_refused(account: Subscription) -> None:
    account.double.restrict(TYPE, "eastus")
    with refused("SkuNotAvailable", match="aka.ms/azureskunotavailable"):
        account.put("m")
    [row] = [
        each
        for each in account.compute.resource_skus.list(filter="location eq 'eastus'")
        if each.name == TYPE
    ]
    assert row.restrictions[0].reason_code == "NotAvailableForSubscription"
    account.double.restrict(TYPE, "eastus", "")
    account.put("m")


def test_faults_may_be_about_a_size_and_a_market(account: Subscription) -> None:
    account.double.fault(WRITE, "SkuNotAvailable", type=NEW_TYPE, market="spot", times=2)
    account.put("m")
    account.put("n", size=NEW_TYPE)
    for name in ("o", "p"):
        with refused("SkuNotAvailable"):
            account.put(name, size=NEW_TYPE, **SPOT)
    account.put("q", size=NEW_TYPE, **SPOT)


def test_a_start_fails_late_too(account: Subscription) -> None:
    account.put("m")
    account.do("m", "deallocate")
    account.double.fault(START, "AllocationFailed", late=True, type=TYPE)
    with refused("AllocationFailed", 200):
        account.do("m", "start")
    assert account.statuses("m")[1] == "PowerState/deallocated"


def test_the_calls_of_machines_have_their_rights_names(account: Subscription) -> None:
    account.double.forget_calls()
    account.put("m")
    account.do("m", "deallocate")
    told = {each.operation for each in account.double.calls()}
    assert {WRITE, "Microsoft.Compute/virtualMachines/deallocate/action"} <= told
    [put] = [each for each in account.double.calls() if (each.method, each.operation) == ("PUT", WRITE)]
    assert "Microsoft.Network/networkInterfaces/join/action" in put.linked
    account.double.allow(["Microsoft.Compute/*/read"])
    with refused("AuthorizationFailed", 403, match="virtualMachines/start/action"):
        account.do("m", "start")


@pytest.mark.parametrize(
    "told",
    [
        ("set_capacity", ("Standard_X",)),
        ("set_capacity", (TYPE, "nowhere")),
        ("set_capacity", (TYPE, "", "cheap")),
        ("set_capacity", (TYPE, "", "", -1)),
        ("set_quota", ("eastus", "none", 1)),
        ("set_quota", ("eastus", "cores", -1)),
        ("set_spot_price", (TYPE, "eastus", 0)),
        ("restrict", ("Standard_X", "eastus")),
        ("preempt", ("/subscriptions/none",)),
        ("halt", ("/subscriptions/none",)),
        ("event", ("/subscriptions/none", "Freeze")),
    ],
)
def test_mistakes_in_steering_are_said(told: tuple[str, tuple[object, ...]], account: Subscription) -> None:
    name, arguments = told
    with pytest.raises(ValueError):
        getattr(account.double, name)(*arguments)
