"""Microsoft's own clients on a running ARM double, and a machine with all that it needs around it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from arm_help import REGION, SCOPE
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from quick_azure import QUICK
from waiting import until

from cloudrun.sim.azure import AzureDouble, Delays

TYPE = "Standard_NC6"
NEW_TYPE = "Standard_NC4as_T4_v3"
GEN1, GEN2 = "22_04-lts", "22_04-lts-gen2"
USER = "azureuser"
SPOT = {"priority": "Spot", "evictionPolicy": "Deallocate", "billingProfile": {"maxPrice": -1}}
GROUP = "g"


class Subscription:
    """One resource group with a network in it, in the one region of these tests."""

    def __init__(self, double: AzureDouble, region: str = REGION) -> None:
        self.double = double
        self.region = region
        told = double.environment()
        self.id = told["AZURE_SUBSCRIPTION_ID"]
        self.credential = ClientSecretCredential(
            told["AZURE_TENANT_ID"],
            told["AZURE_CLIENT_ID"],
            told["AZURE_CLIENT_SECRET"],
            authority=double.url,
            disable_instance_discovery=True,
            connection_verify=told["REQUESTS_CA_BUNDLE"],
        )
        self.compute: Any = self.client(ComputeManagementClient)
        self.network: Any = self.client(NetworkManagementClient)
        self.resources: Any = self.client(ResourceManagementClient)
        self.resources.resource_groups.create_or_update(GROUP, {"location": region})
        network = {
            "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
            "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}],
        }
        body = {"location": region, "properties": network}
        self.network.virtual_networks.begin_create_or_update(GROUP, "v", body).result()
        self.subnet = self.network.subnets.get(GROUP, "v", "s").id

    def client(self, kind: Callable[..., Any]) -> Any:
        return kind(
            self.credential,
            self.id,
            base_url=self.double.url,
            credential_scopes=[SCOPE],
            connection_verify=str(self.double.ca_path),
            retry_total=0,
        )

    def nic(self, name: str, *, delete_address: bool = True, dynamic: bool = False) -> str:
        """A network interface with a public address; its id."""
        kind = {"sku": {"name": "Basic"}} if dynamic else {"sku": {"name": "Standard"}}
        how = "Dynamic" if dynamic else "Static"
        told = {"location": self.region, **kind, "properties": {"publicIPAllocationMethod": how}}
        address = self.network.public_ip_addresses.begin_create_or_update(GROUP, f"{name}-ip", told).result()
        public = {"id": address.id, "properties": {"deleteOption": "Delete" if delete_address else "Detach"}}
        configuration = {"subnet": {"id": self.subnet}, "publicIPAddress": public}
        body = {"ipConfigurations": [{"name": "c", "properties": configuration}]}
        told = {"location": self.region, "properties": body}
        made = self.network.network_interfaces.begin_create_or_update(GROUP, f"{name}-nic", told).result()
        return str(made.id)

    def body(self, name: str, **more: Any) -> dict[str, Any]:
        """The PUT of a machine. Properties replace ours; tags, zones and identity stand beside them."""
        size = more.pop("size", TYPE)
        sku = more.pop("image", GEN1)
        beside = {key: more.pop(key) for key in ("tags", "zones", "identity") if key in more}
        os_disk = {
            "name": f"{name}-disk",
            "createOption": "FromImage",
            "deleteOption": "Delete",
            "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
            **more.pop("os_disk", {}),
        }
        key = {"path": f"/home/{USER}/.ssh/authorized_keys", "keyData": "ssh-ed25519 AAAA"}
        profile = {
            "computerName": name,
            "adminUsername": USER,
            "customData": base64.b64encode(more.pop("custom_data", b"#cloud-config\n")).decode(),
            "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
        }
        image = {"publisher": "Canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": sku}
        nic = more.pop("nic", "")
        properties = {
            "hardwareProfile": {"vmSize": size},
            "storageProfile": {
                "imageReference": {**image, "version": "latest"},
                "osDisk": os_disk,
                "dataDisks": more.pop("data_disks", []),
            },
            "osProfile": profile,
            "networkProfile": {"networkInterfaces": [{"id": nic, "properties": {"deleteOption": "Delete"}}]},
            **more,
        }
        return {"location": self.region, **beside, "properties": properties}

    def put(self, name: str, *, wait: bool = True, **more: Any) -> Any:
        """A machine, made and waited for."""
        more.setdefault("nic", "")
        more["nic"] = more["nic"] or self.nic(name)
        body = self.body(name, **more)
        poller = self.compute.virtual_machines.begin_create_or_update(
            GROUP, name, body, polling=wait or False
        )
        return poller.result() if wait else poller

    def statuses(self, name: str) -> list[str]:
        view = self.compute.virtual_machines.instance_view(GROUP, name)
        return [status.code for status in view.statuses]

    def power(self, name: str) -> str:
        codes = self.statuses(name)
        return codes[1].partition("/")[2] if len(codes) > 1 else ""

    def wait_power(self, name: str, power: str) -> None:
        until(lambda: self.power(name), lambda found: found == power)

    def do(self, name: str, action: str, **more: Any) -> None:
        """start, deallocate, power_off, restart, redeploy, delete: waited for."""
        getattr(self.compute.virtual_machines, f"begin_{action}")(GROUP, name, **more).result()

    def left(self) -> set[str]:
        """Types of what is in the group beside the network."""
        found = {
            each.type.rpartition("/")[2] for each in self.resources.resources.list_by_resource_group(GROUP)
        }
        return found - {"virtualNetworks"}

    def allow_itself(self, machine: Any, *actions: str) -> None:
        """A role that lets that machine's identity do these things to the machine."""
        client = self.client(AuthorizationManagementClient)
        name = "00000000-0000-4000-8000-00000000aaaa"
        scope = f"/subscriptions/{self.id}"
        properties = {
            "roleName": "itself",
            "type": "CustomRole",
            "permissions": [{"actions": list(actions)}],
            "assignableScopes": [scope],
        }
        role = client.role_definitions.create_or_update(scope, name, {"properties": properties})
        told = {"properties": {"roleDefinitionId": role.id, "principalId": machine.identity.principal_id}}
        client.role_assignments.create(machine.id, "00000000-0000-4000-8000-00000000bbbb", told)


@contextmanager
def subscription(
    folder: Path, host: Any = None, *, delays: Delays = QUICK, region: str = REGION
) -> Iterator[Subscription]:
    with AzureDouble(host, folder=folder, delay_s=delays) as double:
        yield Subscription(double, region)


@contextmanager
def refused(code: str, status: int = 409, match: str | None = None) -> Iterator[Any]:
    """The call inside is answered with that error code; late ones carry status 200."""
    with pytest.raises(HttpResponseError, match=match) as caught:
        yield caught
    assert (caught.value.error.code, caught.value.status_code) == (code, status)


def quota_rows(account: Subscription) -> Mapping[str, tuple[int, int]]:
    """Name of each quota: in use, limit."""
    return {
        each.name.value: (each.current_value, each.limit)
        for each in account.compute.usage.list(account.region)
    }
