"""Machines of the double without anything behind them: made, switched, shown, changed, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure_vm_help import (
    GEN2,
    GROUP,
    NEW_TYPE,
    QUICK,
    SPOT,
    TYPE,
    Subscription,
    quota_rows,
    refused,
    subscription,
)

from cloudrun.models import Market


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subscription]:
    with subscription(tmp_path_factory.mktemp("azure")) as made:
        yield made


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Subscription]:
    with subscription(tmp_path) as made:
        yield made


def test_a_machine_comes_with_its_disk_and_goes_with_all_that_its_delete_options_say(
    account: Subscription,
) -> None:
    made = account.put("m", tags={"cloudrun": "1"})
    assert made.provisioning_state == "Succeeded"
    assert account.statuses("m") == ["ProvisioningState/succeeded", "PowerState/running"]
    disk = account.compute.disks.get(GROUP, "m-disk")
    assert (disk.disk_size_gb, disk.disk_state, disk.managed_by) == (30, "Attached", made.id)
    assert disk.tags == {"cloudrun": "1"}
    assert account.left() == {"virtualMachines", "disks", "networkInterfaces", "publicIPAddresses"}
    account.do("m", "delete")
    assert account.left() == set()
    [gone] = account.double.instances()
    assert (gone["id"], gone["state"], gone["tags"]) == (made.id, "deleted", {"cloudrun": "1"})
    assert (gone["region"], gone["type"], gone["market"]) == ("eastus", TYPE, "on-demand")


def test_without_delete_options_everything_stays(account: Subscription) -> None:
    nic = account.nic("m", delete_address=False)
    told = {"networkInterfaces": [{"id": nic}]}
    account.put("m", nic=nic, os_disk={"deleteOption": "Detach"}, networkProfile=told)
    account.do("m", "delete")
    assert account.left() == {"disks", "networkInterfaces", "publicIPAddresses"}
    assert account.compute.disks.get(GROUP, "m-disk").disk_state == "Unattached"
    account.compute.disks.begin_delete(GROUP, "m-disk").result()
    account.network.network_interfaces.begin_delete(GROUP, "m-nic").result()


def test_power_is_switched_and_shown_in_azures_words(shared: Subscription) -> None:
    shared.put("p")
    shared.do("p", "power_off")
    assert shared.power("p") == "stopped"
    shared.do("p", "start")
    assert shared.power("p") == "running"
    shared.do("p", "deallocate")
    shared.do("p", "deallocate")
    assert shared.power("p") == "deallocated"
    with refused("OperationNotAllowed"):
        shared.do("p", "restart")
    shared.do("p", "start")
    shared.do("p", "restart")
    found = shared.compute.virtual_machines.get(GROUP, "p", expand="instanceView")
    assert found.instance_view.statuses[1].display_status == "VM running"
    shared.do("p", "delete")
    with pytest.raises(ResourceNotFoundError):
        shared.compute.virtual_machines.get(GROUP, "p")


def test_lists_show_states_only_where_azure_does(shared: Subscription) -> None:
    shared.put("one", tags={"a": "b"})
    for found in (
        shared.compute.virtual_machines.list(GROUP),
        shared.compute.virtual_machines.list_all(),
    ):
        [one] = [each for each in found if each.name == "one"]
        assert one.tags == {"a": "b"}
        assert one.instance_view is None
    [state] = shared.compute.virtual_machines.list_all(status_only="true")
    assert state.instance_view.statuses[1].code == "PowerState/running"
    with refused("InvalidParameter", 400):
        list(shared.compute.virtual_machines.list_all(expand="instanceView"))
    shared.do("one", "delete")


def test_a_shutdown_from_inside_is_stopped_and_keeps_its_room(account: Subscription) -> None:
    account.double.set_capacity(TYPE, "eastus", count=1)
    made = account.put("m")
    account.double.halt(made.id)
    assert account.power("m") == "stopped"
    with refused("AllocationFailed", 200):
        account.put("n")
    account.do("m", "deallocate")
    account.do("n", "delete")
    account.put("n")


def test_a_put_again_changes_nothing_and_a_changed_one_is_refused(shared: Subscription) -> None:
    nic = shared.nic("again")
    first = shared.put("again", nic=nic, custom_data=b"#!/bin/sh\n")
    second = shared.put("again", nic=nic, custom_data=b"#!/bin/sh\n")
    assert (first.vm_id, second.provisioning_state) == (second.vm_id, "Succeeded")
    with refused("PropertyChangeNotAllowed"):
        shared.put("again", nic=nic, custom_data=b"#!/bin/false\n")
    with refused("NicInUse", 400):
        shared.put("other", nic=nic)
    shared.do("again", "delete")


def test_tags_are_patched_and_sizes_where_the_machine_is_off(shared: Subscription) -> None:
    shared.put("t", size=NEW_TYPE, image=GEN2, tags={"a": "1"})
    change = shared.compute.virtual_machines.begin_update
    assert change(GROUP, "t", {"tags": {"b": "2"}}).result().tags == {"b": "2"}
    bigger = {"properties": {"hardwareProfile": {"vmSize": "Standard_NC8as_T4_v3"}}}
    with refused("OperationNotAllowed"):
        change(GROUP, "t", bigger).result()
    shared.do("t", "deallocate")
    assert change(GROUP, "t", bigger).result().hardware_profile.vm_size == "Standard_NC8as_T4_v3"
    shared.do("t", "delete")


def test_an_identity_is_given_and_kept(shared: Subscription) -> None:
    nic = shared.nic("id")
    made = shared.put("id", nic=nic, identity={"type": "SystemAssigned"})
    again = shared.put("id", nic=nic, identity={"type": "SystemAssigned"})
    assert made.identity.principal_id
    assert again.identity.principal_id == made.identity.principal_id
    shared.do("id", "delete")


def test_a_disk_grows_while_its_machine_is_deallocated_and_never_shrinks(shared: Subscription) -> None:
    shared.put("d", data_disks=[{"lun": 0, "createOption": "Empty", "diskSizeGB": 10, "name": "data"}])

    def resize(name: str, size_gb: int) -> int:
        told = {"properties": {"diskSizeGB": size_gb}}
        return int(shared.compute.disks.begin_update(GROUP, name, told).result().disk_size_gb)

    with refused("OperationNotAllowed", match="deallocated"):
        resize("d-disk", 64)
    assert resize("data", 20) == 20
    with refused("OperationNotAllowed", match="attached to VM"):
        shared.compute.disks.begin_delete(GROUP, "data").result()
    shared.do("d", "deallocate")
    assert shared.compute.disks.get(GROUP, "d-disk").disk_state == "Reserved"
    assert resize("d-disk", 64) == 64
    with refused("OperationNotAllowed", match="resized down"):
        resize("d-disk", 32)
    found = shared.compute.virtual_machines.get(GROUP, "d")
    assert found.storage_profile.os_disk.disk_size_gb == 64
    shared.do("d", "delete")
    assert shared.compute.disks.get(GROUP, "data").disk_state == "Unattached"
    shared.compute.disks.begin_delete(GROUP, "data").result()


def test_an_address_that_is_dynamic_is_let_go_with_the_machine(shared: Subscription) -> None:
    shared.put("dyn", nic=shared.nic("dyn", dynamic=True))
    assert address(shared, "dyn").startswith("127.")
    shared.do("dyn", "deallocate")
    assert not address(shared, "dyn")
    shared.do("dyn", "start")
    assert address(shared, "dyn").startswith("127.")
    shared.do("dyn", "delete")


def address(account: Subscription, name: str) -> str:
    return account.network.public_ip_addresses.get(GROUP, f"{name}-ip").ip_address or ""


def test_a_newer_operation_cuts_an_older_one_off(tmp_path: Path) -> None:
    with subscription(tmp_path, delays=replace(QUICK, deallocating_s=3600)) as account:
        account.put("m")
        first = account.compute.virtual_machines.begin_deallocate(GROUP, "m")
        account.do("m", "start")
        with refused("OperationPreempted", 200):
            first.result()
        assert account.power("m") == "running"


WRONG = {
    "no such size": ({"size": "Standard_NC7"}, "InvalidParameter", 400),
    "a retired size": ({"size": "Standard_NC6s_v3"}, "SkuNotAvailable", 409),
    "an image of the wrong generation": ({"image": GEN2}, "BadRequest", 400),
    "no such image": ({"image": "22_04-lts-gen3"}, "PlatformImageNotFound", 404),
    "a premium disk": (
        {"os_disk": {"managedDisk": {"storageAccountType": "Premium_LRS"}}},
        "InvalidParameter",
        400,
    ),
    "a disk smaller than the image": ({"os_disk": {"diskSizeGB": 10}}, "InvalidParameter", 400),
    "spot of a promotional size": (
        {"size": "Standard_NC6_Promo", **SPOT},
        "AzureSpotIsNotSupportedForThisVMSize",
        409,
    ),
    "an eviction policy without spot": (
        {"evictionPolicy": "Delete"},
        "EvictionPolicyCanBeSetOnlyOnAzureSpotVirtualMachines",
        409,
    ),
    "a maximum price of nothing": (
        {**SPOT, "billingProfile": {"maxPrice": 0}},
        "MaxPriceValueInvalid",
        400,
    ),
    "a maximum price below the price": (
        {**SPOT, "billingProfile": {"maxPrice": 0.01}},
        "SpotPriceGreaterThanProvidedMaxPrice",
        409,
    ),
    "a misspelt priority": ({"priority": "spot"}, "InvalidRequestContent", 400),
    "a zone that is none": ({"zones": ["4"]}, "InvalidAvailabilityZone", 400),
    "too much custom data": ({"custom_data": b"x" * 65_536}, "InvalidParameter", 400),
    "an interface that is not there": ({"nic": "/subscriptions/none"}, "InvalidResourceReference", 400),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_azure_refuses_at_once(what: str, shared: Subscription) -> None:
    more, code, status = WRONG[what]
    told = {"nic": shared_nic(shared), **more}
    with refused(code, status):
        shared.put("wrong", **told)
    assert "virtualMachines" not in shared.left()


def shared_nic(account: Subscription) -> str:
    for each in account.network.network_interfaces.list(GROUP):
        if each.name == "wrong-nic":
            return str(each.id)
    return account.nic("wrong")


def test_quotas_count_what_is_deallocated_too_and_spot_apart(account: Subscription) -> None:
    account.double.set_quota("eastus", "standardNCFamily", 12)
    account.double.set_quota("eastus", "lowPriorityCores", 6)
    account.put("a")
    account.put("b")
    account.do("b", "deallocate")
    with refused("OperationNotAllowed", match="standardNCFamily Cores quota.*Current Limit: 12"):
        account.put("c")
    account.put("s", **SPOT)
    with refused("OperationNotAllowed", match="LowPriorityCores"):
        account.put("t", **SPOT)
    rows = quota_rows(account)
    assert (rows["cores"], rows["standardNCFamily"], rows["lowPriorityCores"]) == (
        (12, 384),
        (12, 12),
        (6, 6),
    )
    account.double.set_quota("eastus", "cores", 12)
    with refused("OperationNotAllowed", match="Total Regional Cores"):
        account.put("d", size=NEW_TYPE)
    account.do("b", "delete")
    account.put("c")
    assert Market(account.double.instances()[-1]["market"]) == Market.ON_DEMAND
