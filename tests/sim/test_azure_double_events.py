"""What a machine reads at 169.254.169.254: about itself, of what will happen to it, a token of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from azure_vm_help import GROUP, SPOT, TYPE, Subscription, refused, subscription
from waiting import until

from cloudrun.errors import BootFailed
from cloudrun.sim.spec import MachineSpec, OnOff

HEADERS = {"metadata": "true"}
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
TOKEN = (
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
)


class Still:
    """A machine that does nothing, and says what it was told to."""

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.told: list[str] = []
        self.running = False

    def boot(self) -> None:
        self.running = True
        self.told.append("boot")

    def power_off(self, *, grace_s: float = 0) -> None:
        self.running = False
        self.told.append(f"off {grace_s:g}")

    def move(self, host: str) -> None:
        self.told.append(f"move {host}")

    def grow(self, disk_gb: int) -> None:
        self.told.append(f"grow {disk_gb}")

    def destroy(self) -> None:
        self.told.append("destroy")

    def ask(
        self, path: str, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] = HEADERS
    ) -> tuple[int, Any]:
        status, raw, *_ = self.spec.respond(method, path, headers, body)
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def events(self) -> list[dict[str, Any]]:
        status, document = self.ask(EVENTS)
        assert status == 200
        return list(document["Events"])


class Host:
    """Makes such machines."""

    def __init__(self) -> None:
        self.machines: list[Still] = []

    def create(self, spec: MachineSpec, *, on_off: OnOff) -> Still:
        self.machines.append(Still(spec))
        return self.machines[-1]


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def account(host: Host, tmp_path: Path) -> Iterator[Subscription]:
    with subscription(tmp_path, host) as made:
        yield made


def test_a_machine_gets_what_the_put_said(account: Subscription, host: Host) -> None:
    account.put("m", custom_data=b"#!/bin/sh\necho\n", os_disk={"diskSizeGB": 64})
    spec = host.machines[0].spec
    assert spec.host == account.network.public_ip_addresses.get(GROUP, "m-ip").ip_address
    assert (spec.hostname, spec.user, spec.disk_gb) == ("m", "azureuser", 64)
    assert spec.user_data == b"#!/bin/sh\necho\n"
    assert set(spec.environ) == {"CLOUDRUN_AZURE_METADATA_ENDPOINT", "CLOUDRUN_AZURE_ENDPOINT"}


def test_its_power_is_the_machines(account: Subscription, host: Host) -> None:
    account.put("m")
    [machine] = host.machines
    account.do("m", "deallocate")
    told = {"properties": {"diskSizeGB": 50}}
    account.compute.disks.begin_update(GROUP, "m-disk", told).result()
    account.do("m", "start")
    account.do("m", "delete")
    where = machine.spec.host
    until(lambda: machine.told, lambda told: told[-1] == "destroy")
    assert machine.told == ["boot", "off 0", "grow 50", f"move {where}", "boot", "destroy"]


def test_it_reads_about_itself(account: Subscription, host: Host) -> None:
    made = account.put("m", tags={"a": "1", "b": "2"}, **SPOT)
    [machine] = host.machines
    status, found = machine.ask("/metadata/instance?api-version=2021-02-01")
    compute = found["compute"]
    assert status == 200
    assert (compute["resourceId"], compute["vmId"], compute["name"]) == (made.id, made.vm_id, "m")
    assert (compute["vmSize"], compute["priority"], compute["evictionPolicy"]) == (TYPE, "Spot", "Deallocate")
    assert (compute["tags"], compute["location"]) == ("a:1;b:2", "eastus")
    assert compute["storageProfile"]["osDisk"]["diskSizeGB"] == "30"
    [interface] = found["network"]["interface"]
    assert interface["ipv4"]["ipAddress"][0]["publicIpAddress"] == machine.spec.host
    assert interface["ipv4"]["ipAddress"][0]["privateIpAddress"].startswith("10.0.0.")
    name = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
    assert machine.ask(name) == (200, "m")
    assert machine.ask("/metadata/instance/compute/none?api-version=2021-02-01")[0] == 404


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (EVENTS, {}),
        (EVENTS, {"metadata": "false"}),
        (EVENTS, {"metadata": "true", "x-forwarded-for": "192.0.2.1"}),
        (EVENTS.partition("?")[0], HEADERS),
        (TOKEN, {}),
    ],
)
def test_it_answers_to_who_asks_properly_alone(
    path: str, headers: dict[str, str], account: Subscription, host: Host
) -> None:
    account.put("m", identity={"type": "SystemAssigned"})
    assert host.machines[0].ask(path, headers=headers)[0] == 400
    assert host.machines[0].ask(path)[0] == (200 if "?" in path else 400)


def test_a_preemption_is_announced_and_begins_when_the_machine_is_ready(
    account: Subscription, host: Host
) -> None:
    made = account.put("m", **SPOT)
    [machine] = host.machines
    _, before = machine.ask(EVENTS)
    assert before["Events"] == []
    account.double.preempt(made.id)
    _, after = machine.ask(EVENTS)
    assert after["DocumentIncarnation"] > before["DocumentIncarnation"]
    [event] = after["Events"]
    assert (event["EventType"], event["EventStatus"], event["Resources"]) == ("Preempt", "Scheduled", ["m"])
    assert (event["ResourceType"], event["EventSource"]) == ("VirtualMachine", "Platform")
    assert parsedate_to_datetime(event["NotBefore"]).tzinfo is not None
    told = json.dumps({"StartRequests": [{"EventId": event["EventId"]}]}).encode()
    assert machine.ask(EVENTS, "POST", told)[0] == 200
    account.wait_power("m", "deallocated")
    assert machine.told[-1] == "off 0"


def test_other_events_come_and_go(account: Subscription, host: Host) -> None:
    made = account.put("m")
    [machine] = host.machines
    account.double.event(made.id, "Freeze", notice_s=60)
    [freeze] = machine.events()
    assert (freeze["EventType"], freeze["DurationInSeconds"]) == ("Freeze", 5)
    told = json.dumps({"StartRequests": [{"EventId": freeze["EventId"]}]}).encode()
    machine.ask(EVENTS, "POST", told)
    until(machine.events, lambda found: found == [] or found[0]["EventStatus"] == "Started")
    until(machine.events, lambda found: found == [])
    assert machine.told == ["boot"]
    account.double.event(made.id, "Reboot", notice_s=60)
    [reboot] = machine.events()
    told = json.dumps({"StartRequests": [{"EventId": reboot["EventId"]}]}).encode()
    machine.ask(EVENTS, "POST", told)
    until(lambda: machine.told, lambda told: told == ["boot", "off 0", "boot"])
    account.double.event(made.id, "Terminate", notice_s=0.1)
    until(account.left, lambda found: found == set())
    with pytest.raises(ValueError, match="no instance"):
        account.double.event(made.id, "Freeze")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"StartRequests": [{}]}', b"[]"])
def test_an_answer_that_is_none_is_refused(body: bytes, account: Subscription, host: Host) -> None:
    made = account.put("m", **SPOT)
    account.double.preempt(made.id)
    assert host.machines[0].ask(EVENTS, "POST", body)[0] == 400
    assert host.machines[0].events()[0]["EventStatus"] == "Scheduled"


def test_a_machine_deallocates_itself_where_a_role_lets_it(account: Subscription, host: Host) -> None:
    made = account.put("m", identity={"type": "SystemAssigned"})
    other = account.put("o", identity={"type": "SystemAssigned"})
    machine = host.machines[0]
    token = machine.ask(TOKEN)[1]["access_token"]
    bearer = {"authorization": f"Bearer {token}"}
    place = f"{made.id}/deallocate?api-version=2024-07-01"
    assert machine.ask(place, "POST", headers=HEADERS)[0] == 401
    status, answer = machine.ask(place, "POST", headers=bearer)
    assert (status, answer["error"]["code"]) == (403, "AuthorizationFailed")
    account.allow_itself(made, "Microsoft.Compute/virtualMachines/deallocate/action")
    assert machine.ask(f"{other.id}/deallocate?api-version=2024-07-01", "POST", headers=bearer)[0] == 403
    assert machine.ask(f"{made.id}/start?api-version=2024-07-01", "POST", headers=bearer)[0] == 403
    assert machine.ask(place, "POST", headers=bearer)[0] == 202
    account.wait_power("m", "deallocated")


def test_without_an_identity_there_is_no_token(account: Subscription, host: Host) -> None:
    account.put("m")
    status, answer = host.machines[0].ask(TOKEN)
    assert (status, answer["error_description"]) == (400, "Identity not found")


def test_a_system_that_ends_while_it_starts_leaves_a_stopped_machine(
    account: Subscription, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Still, "boot", lambda machine: machine.told.append("boot and off"))
    account.put("m")
    assert account.power("m") == "stopped"


def test_a_machine_that_does_not_boot_has_failed(
    account: Subscription, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Still) -> None:
        raise BootFailed("no address", hint="none")

    monkeypatch.setattr(Still, "boot", broken)
    with refused("OSProvisioningTimedOut", 200):
        account.put("m")
    assert account.statuses("m")[0] == "ProvisioningState/failed/OSProvisioningTimedOut"
    account.do("m", "delete")
    assert account.left() == set()


def test_what_is_deleted_while_it_starts_stays_deleting(account: Subscription, host: Host) -> None:
    body = account.body("m", nic=account.nic("m"))
    account.compute.virtual_machines.begin_create_or_update(GROUP, "m", body, polling=False)
    account.resources.resource_groups.begin_delete(GROUP, polling=False)
    until(account.double.instances, lambda found: found[0]["state"] == "deleted")
    until(lambda: host.machines, lambda made: not made or made[0].told[-1] == "destroy")
