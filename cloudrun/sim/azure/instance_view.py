"""What Azure says of a machine's state: statuses in its words, codes that programs read."""

from __future__ import annotations

from cloudrun.sim.azure.life import Vm
from cloudrun.sim.azure.wire import Body, timestamp

_STATES = {
    "Creating": "Creating",
    "Updating": "Updating",
    "Deleting": "Deleting",
    "Succeeded": "Provisioning succeeded",
}


def instance_view(vm: Vm) -> Body:
    view: Body = {"disks": _disks(vm), "statuses": statuses(vm), "hyperVGeneration": vm.generation}
    if vm.power == "running":
        profile = vm.resource.properties.get("osProfile") or {}
        view |= {
            "computerName": profile.get("computerName", vm.resource.name),
            "osName": "ubuntu",
            "osVersion": "22.04",
            "vmAgent": {
                "vmAgentVersion": "2.9.1.1",
                "statuses": [
                    {
                        "code": "ProvisioningState/succeeded",
                        "level": "Info",
                        "displayStatus": "Ready",
                        "message": "Guest Agent is running",
                        "time": timestamp(vm.power_at),
                    }
                ],
                "extensionHandlers": [],
            },
        }
    return view


def statuses(vm: Vm) -> list[Body]:
    """Provisioning first; power where it has any; and whether it is an image's source alone by now."""
    found = [_provisioning(vm)]
    if vm.power:
        found.append({"code": f"PowerState/{vm.power}", "level": "Info", "displayStatus": f"VM {vm.power}"})
    if vm.generalized:
        found.append({"code": "OSState/generalized", "level": "Info", "displayStatus": "VM generalized"})
    return found


def _provisioning(vm: Vm) -> Body:
    state, time = vm.resource.state, timestamp(vm.power_at)
    if state == "Failed" and vm.failure is not None:
        return {
            "code": f"ProvisioningState/failed/{vm.failure.code}",
            "level": "Error",
            "displayStatus": "Provisioning failed",
            "message": vm.failure.message,
            "time": time,
        }
    return {
        "code": f"ProvisioningState/{state.lower()}",
        "level": "Info",
        "displayStatus": _STATES.get(state, state),
        "time": time,
    }


def _disks(vm: Vm) -> list[Body]:
    storage = vm.resource.properties["storageProfile"]
    done = {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"}
    return [
        {"name": each.get("name", ""), "statuses": [{**done, "time": timestamp(vm.resource.created_at)}]}
        for each in (storage["osDisk"], *storage.get("dataDisks", []))
    ]
