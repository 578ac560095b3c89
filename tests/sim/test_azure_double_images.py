"""Images of one's own in the double: made of a generalized machine, kept without it, booted from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure_vm_help import GEN2, GROUP, NEW_TYPE, TYPE, Subscription, refused, subscription
from delays import delayed
from waiting import until

NOT_FOUND = "00000000-0000-4000-8000-00000000cccc"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subscription]:
    """One for all tests, with a machine "v1" and one "v2" that were generalized."""
    with subscription(tmp_path_factory.mktemp("azure")) as made:
        for name, more in {"v1": {}, "v2": {"size": NEW_TYPE, "image": GEN2}}.items():
            generalized(made, name, **more)
        yield made


def generalized(account: Subscription, name: str, **more: Any) -> Any:
    made = account.put(name, **more)
    account.do(name, "deallocate")
    account.compute.virtual_machines.generalize(GROUP, name)
    return made


def body(account: Subscription, machine: str, **more: Any) -> dict[str, Any]:
    properties = {"sourceVirtualMachine": {"id": account.compute.virtual_machines.get(GROUP, machine).id}}
    return {"location": account.region, "tags": {"a": "b"}, "properties": {**properties, **more}}


def make(account: Subscription, name: str, machine: str = "v1", **more: Any) -> Any:
    told = body(account, machine, **more)
    return account.compute.images.begin_create_or_update(GROUP, name, told).result()


def boots(account: Subscription, name: str, image: str, **more: Any) -> Any:
    """A machine from an image of that id."""
    disk = {"name": f"{name}-disk", "createOption": "FromImage", **more.pop("disk", {})}
    return account.put(name, storageProfile={"imageReference": {"id": image}, "osDisk": disk}, **more)


def test_an_image_outlives_its_machine_and_others_boot_from_it(account: Subscription) -> None:
    source = generalized(account, "source", os_disk={"diskSizeGB": 50})
    assert account.statuses("source") == [
        "ProvisioningState/succeeded",
        "PowerState/deallocated",
        "OSState/generalized",
    ]
    made = make(account, "kept", "source")
    assert (made.provisioning_state, made.hyper_v_generation, made.tags) == ("Succeeded", "V1", {"a": "b"})
    assert made.source_virtual_machine.id == source.id
    disk = made.storage_profile.os_disk
    assert (disk.disk_size_gb, disk.os_state, disk.os_type) == (50, "Generalized", "Linux")
    assert disk.storage_account_type == "StandardSSD_LRS"
    assert disk.managed_disk.id == source.storage_profile.os_disk.managed_disk.id
    account.do("source", "delete")
    assert "kept" in [each.name for each in account.compute.images.list()]
    again = boots(account, "again", made.id)
    assert again.storage_profile.image_reference.id == made.id
    assert again.storage_profile.os_disk.disk_size_gb == 50
    view = account.compute.virtual_machines.instance_view(GROUP, "again")
    assert view.hyper_v_generation == "V1"
    account.compute.images.begin_delete(GROUP, "kept").result()
    account.compute.images.begin_delete(GROUP, "kept").result()
    with pytest.raises(ResourceNotFoundError):
        account.compute.images.get(GROUP, "kept")
    assert account.power("again") == "running"


def test_a_generalized_machine_is_not_started_again(account: Subscription) -> None:
    with refused("OperationNotAllowed", match="since the VM is generalized"):
        account.do("v1", "start")
    account.put("on")
    with refused("OperationNotAllowed", match="since the VM is running"):
        account.compute.virtual_machines.generalize(GROUP, "on")
    account.do("on", "power_off")
    account.compute.virtual_machines.generalize(GROUP, "on")
    with refused("OperationNotAllowed", match="since the VM is generalized"):
        account.do("on", "restart")


def test_only_a_generalized_machine_becomes_an_image(account: Subscription) -> None:
    account.put("whole")
    account.do("whole", "deallocate")
    with refused("OperationNotAllowed", match="requires the Virtual Machine 'whole' to be Generalized"):
        make(account, "no", "whole")


def test_an_image_has_the_generation_of_its_machine(account: Subscription) -> None:
    with refused("InvalidParameter", 400, "'V1' does not match with the .* 'Gen2'"):
        make(account, "no", "v2")
    with refused("InvalidParameter", 400, "'V2' does not match with the .* 'Gen1'"):
        make(account, "no", "v1", hyperVGeneration="V2")
    made = make(account, "second", "v2", hyperVGeneration="V2")
    with refused("BadRequest", 400, "cannot boot Hypervisor Generation '2'"):
        boots(account, "old", made.id, size=TYPE)
    assert boots(account, "new", made.id, size=NEW_TYPE).provisioning_state == "Succeeded"


def test_machine_and_image_are_in_one_region(account: Subscription) -> None:
    images = account.compute.images
    with refused("NotFound", 404, "Source Virtual Machine 'v1'"):
        images.begin_create_or_update(GROUP, "no", {**body(account, "v1"), "location": "westus2"})
    made = make(account, "here")
    told = account.body("there", nic="none", size=NEW_TYPE)
    told["location"], told["properties"]["storageProfile"]["imageReference"] = "westus2", {"id": made.id}
    with refused("NotFound", 404, "cannot be found in 'westus2' region"):
        account.compute.virtual_machines.begin_create_or_update(GROUP, "there", told)


def test_a_machine_with_trusted_launch_becomes_no_image(account: Subscription) -> None:
    secure = {"securityProfile": {"securityType": "TrustedLaunch"}}
    generalized(account, "secure", size=NEW_TYPE, image=GEN2, **secure)
    with refused("OperationNotAllowed", match="TrustedLaunch"):
        make(account, "no", "secure", hyperVGeneration="V2")


def test_a_machine_needs_an_image_that_is_there_and_a_disk_as_big(account: Subscription) -> None:
    made = make(account, "small")
    with refused("NotFound", 404, "cannot be found"):
        boots(account, "lost", made.id + NOT_FOUND)
    with refused("NotFound", 404, "cannot be found"):
        boots(account, "lost", account.compute.virtual_machines.get(GROUP, "v1").id)
    with refused("InvalidParameter", 400, "smaller than the size of the corresponding disk"):
        boots(account, "lost", made.id, disk={"diskSizeGB": 20})
    assert boots(account, "wide", made.id, disk={"diskSizeGB": 80}).provisioning_state == "Succeeded"


def test_an_image_that_azure_fails_to_make_boots_nothing(account: Subscription) -> None:
    account.double.fault("Microsoft.Compute/images/write", "InternalExecutionError", late=True)
    images = account.compute.images
    with delayed(account.double, disk_s=2.0):
        images.begin_create_or_update(GROUP, "broken", body(account, "v1"), polling=False)
    assert images.get(GROUP, "broken").provisioning_state == "Creating"
    with refused("OperationNotAllowed", match="until Image has been successfully created"):
        boots(account, "early", images.get(GROUP, "broken").id)
    until(lambda: images.get(GROUP, "broken").provisioning_state, lambda state: state == "Failed")
    images.begin_delete(GROUP, "broken").result()


def test_tags_change_and_the_source_does_not(account: Subscription) -> None:
    make(account, "fixed")
    changed = account.compute.images.begin_update(GROUP, "fixed", {"tags": {"c": "d"}}).result()
    assert changed.tags == {"c": "d"}
    assert make(account, "fixed").tags == {"a": "b"}
    with refused("PropertyChangeNotAllowed"):
        make(account, "fixed", "v2")


def test_what_no_schema_knows_is_refused(account: Subscription) -> None:
    with refused("InvalidRequestContent", 400, "colour"):
        make(account, "no", colour="blue")


def test_whoever_boots_from_an_image_may_read_it(account: Subscription) -> None:
    made = make(account, "secret")
    nic = account.nic("x")
    account.double.allow(["Microsoft.Compute/virtualMachines/*", "Microsoft.Network/*"])
    try:
        with refused("LinkedAuthorizationFailed", 403, "Microsoft.Compute/images/read"):
            boots(account, "x", made.id, nic=nic)
    finally:
        account.double.allow(None)
