"""A virtual machine of the double with a real machine behind it, reached over SSH at its public address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure_vm_help import GROUP, SPOT, USER, Subscription, subscription
from machine_help import PORT, need, wait_for
from quick_azure import QUICK

from cloudrun.config import Settings
from cloudrun.errors import ConnectFailed
from cloudrun.keys import make_keys
from cloudrun.models import SshAddress
from cloudrun.payload import companion_path, user_data
from cloudrun.remote.connect import connect
from cloudrun.sim.machine import MachineHost


class Rented:
    """A subscription whose machines are real, and the client's side of one."""

    def __init__(self, account: Subscription, folder: Path, kind: str) -> None:
        self.account = account
        self.kind = kind
        self.settings = Settings(home=folder / "home", ssh_port=PORT)
        self.keys = make_keys(self.settings.keys_dir / "m", comment="m")

    def put(self, name: str = "m", *, config: dict[str, Any] | None = None, **more: Any) -> Any:
        whole = {
            "ssh_keys": {"ed25519_private": self.keys.host_private, "ed25519_public": self.keys.host_public},
            "ssh_authorized_keys": [self.keys.login_public],
            **(config or {}),
        }
        more.setdefault("custom_data", b"#cloud-config\n" + json.dumps(whole).encode())
        return self.account.put(name, **more)

    def run(self, command: str, *, check: bool = True, name: str = "m") -> str:
        host = self.account.network.public_ip_addresses.get(GROUP, f"{name}-ip").ip_address
        key = self.settings.keys_dir / "m" / "id_ed25519"
        address = SshAddress(host=host, port=PORT, user=USER, key_path=key, host_key=self.keys.host_public)
        return connect(address, self.settings, machine=name).run(command, check=check, timeout_s=60).text


@pytest.fixture(params=["namespace", "embedded"])
def rented(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rented]:
    host = MachineHost(tmp_path / "machines", ssh_port=PORT, kind=need(request.param))
    try:
        with subscription(tmp_path, host, delays=QUICK) as account:
            yield Rented(account, tmp_path, request.param)
    finally:
        host.close()


def test_a_machine_boots_with_its_custom_data_keeps_its_disk_and_grows(rented: Rented) -> None:
    rented.put(config={"runcmd": ["echo made >/root/mark"]}, os_disk={"diskSizeGB": 30})
    wait_for(lambda: rented.run("sudo cat /root/mark .system/root/mark 2>/dev/null", check=False) == "made")
    rented.run("echo kept >kept")
    rented.account.do("m", "deallocate")
    with pytest.raises(ConnectFailed):
        rented.run("true")
    told = {"properties": {"diskSizeGB": 40}}
    rented.account.compute.disks.begin_update(GROUP, "m-disk", told).result()
    rented.account.do("m", "start")
    assert rented.run("cat kept") == "kept"
    if rented.kind == "namespace":
        assert rented.run("hostname") == "m"
        assert rented.run("whoami") == USER
        assert int(rented.run("df --output=size -BG / | tail -1").rstrip("G")) >= 36


def test_a_machine_boots_for_the_first_time_from_the_disk_of_another(rented: Rented) -> None:
    rented.put()
    rented.run("echo kept >kept")
    rented.account.do("m", "deallocate")
    compute = rented.account.compute
    compute.virtual_machines.generalize(GROUP, "m")
    source = {"id": compute.virtual_machines.get(GROUP, "m").id}
    told = {"location": rented.account.region, "properties": {"sourceVirtualMachine": source}}
    image = compute.images.begin_create_or_update(GROUP, "image", told).result()
    rented.account.do("m", "delete")
    kept = {"imageReference": {"id": image.id}, "osDisk": {"createOption": "FromImage", "diskSizeGB": 40}}
    mark = {"runcmd": ["echo made >/root/mark"]}
    for name in ("n", "o"):
        rented.put(name, config=mark, storageProfile=kept)
        assert rented.run("cat kept", name=name) == "kept"
        command = "sudo cat /root/mark .system/root/mark 2>/dev/null"
        wait_for(lambda: rented.run(command, check=False, name=name) == "made")  # noqa: B023  # called here
    rented.run("rm kept", name="o")
    assert rented.run("cat kept", name="n") == "kept"
    if rented.kind == "namespace":
        assert rented.run("hostname", name="n") == "n"
        assert int(rented.run("df --output=size -BG / | tail -1", name="n").rstrip("G")) >= 36
    compute.images.begin_delete(GROUP, "image").result()
    assert rented.run("cat kept", name="n") == "kept"


def test_a_shutdown_from_inside_is_stopped_and_billed_on(rented: Rented) -> None:
    rented.put()
    rented.run("(sleep 0.2; sudo shutdown -h now) >/dev/null 2>&1 &", check=False)
    rented.account.wait_power("m", "stopped")
    rented.account.do("m", "start")
    assert rented.run("echo on") == "on"


ASK = """\
import json, os, sys, urllib.request as web
where = os.environ["CLOUDRUN_AZURE_METADATA_ENDPOINT"]
def ask(path, body=None):
    told = web.Request(where + path, body, {"Metadata": "true"})
    return json.loads(web.urlopen(told).read() or "{}")
events = "/metadata/scheduledevents?api-version=2020-07-01"
found = ask(events)["Events"]
print(ask("/metadata/instance/compute?api-version=2021-02-01")["vmId"], *[e["EventType"] for e in found])
if "ready" in sys.argv:
    ask(events, json.dumps({"StartRequests": [{"EventId": each["EventId"]} for each in found]}).encode())
"""


def test_inside_it_reads_of_its_eviction_and_says_that_it_is_ready(rented: Rented) -> None:
    made = rented.put(config={"write_files": [{"path": f"/home/{USER}/ask.py", "content": ASK}]}, **SPOT)
    assert rented.run("python3 ask.py") == made.vm_id
    rented.account.double.preempt(made.id)
    assert rented.run("python3 ask.py") == f"{made.vm_id} Preempt"
    rented.run("setsid python3 ask.py ready </dev/null >/dev/null 2>&1 &", check=False)
    rented.account.wait_power("m", "deallocated")


def test_the_agents_companion_lets_it_deallocate_itself(rented: Rented) -> None:
    policy: dict[str, object] = {"keep": True}
    payload = user_data(rented.keys, user=USER, policy=policy, companion="azure", most_bytes=65_535)
    made = rented.put(custom_data=payload, identity={"type": "SystemAssigned"})
    rented.account.allow_itself(
        made,
        "Microsoft.Compute/virtualMachines/deallocate/action",
        "Microsoft.Compute/virtualMachines/read",
    )
    path = companion_path("azure")
    place = path if rented.kind == "namespace" else f"$HOME/.system{path}"
    rented.run(f"sudo setsid python3 {place} release </dev/null >/dev/null 2>&1 &", check=False)
    rented.account.wait_power("m", "deallocated")
