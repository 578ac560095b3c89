"""What every rehearsal machine does, of either kind, seen through a real SSH client."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from machine_help import PORT, USER, Client, Rehearsal, free_address, need, wait_for

from cloudrun.errors import BootFailed, ConnectFailed, MachineError, RemoteError
from cloudrun.guard import policy
from cloudrun.keys import make_keys
from cloudrun.models import Guard
from cloudrun.payload import user_data

PER_BOOT = "/var/lib/cloud/scripts/per-boot"


@pytest.fixture(scope="module", params=["namespace", "embedded"])
def rehearsal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path_factory.mktemp(request.param), need(request.param))
    yield made
    made.host.close()


@pytest.fixture
def client(rehearsal: Rehearsal) -> Iterator[Client]:
    booted = rehearsal.boot()
    yield booted
    booted.machine.destroy()


def system_file(client: Client, path: str) -> str:
    """What a file of root's holds, wherever it lies on that kind of machine; "" while it is not there."""
    return client.run(f"sudo cat {path} .system{path} 2>/dev/null", check=False)


def event(what: str, *, name: str = "", mode: str = "0755") -> dict[str, str]:
    return {
        "path": f"{PER_BOOT}/{name or what}",
        "content": f"#!/bin/sh\necho {what} >>/root/events\n",
        "permissions": mode,
    }


def test_user_data_is_done_as_often_as_cloud_init_does_it(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot(
        {
            "bootcmd": ["echo bootcmd >>/root/events", ["sh", "-c", "echo 'a list' >>/root/events"]],
            "write_files": [event("second"), event("first"), event("no-program", mode="0644")],
            "runcmd": ["echo runcmd >>/root/events", ["false"]],
            "packages": ["cowsay"],
        }
    )
    first_boot = ["bootcmd", "a list", "first", "second", "runcmd"]
    assert system_file(client, "/root/events").split("\n") == first_boot
    client.machine.power_off()
    client.machine.boot()
    assert system_file(client, "/root/events").split("\n") == first_boot + first_boot[:-1]
    assert "key 'packages' is not known here" in client.log()
    assert "runcmd ended with 1" in client.log()
    assert "no-program is not executable" in client.log()
    client.machine.destroy()


def test_files_come_with_content_and_rights(rehearsal: Rehearsal) -> None:
    odd = bytes(range(256))
    client = rehearsal.boot(
        {
            "write_files": [
                {"path": "/root/plain", "content": "text\n"},
                {"path": "/root/a/b/odd", "content": base64.b64encode(odd).decode(), "encoding": "b64"},
                {
                    "path": "/root/packed",
                    "content": base64.b64encode(gzip.compress(odd)).decode(),
                    "encoding": "gz+b64",
                    "permissions": "0750",
                },
                {"path": "/root/plain", "content": "more\n", "append": True},
                {"path": "/home/ubuntu/later", "content": "", "owner": "ubuntu:ubuntu", "defer": True},
            ]
        }
    )
    root = "/root" if rehearsal.kind == "namespace" else "$HOME/.system/root"
    sums = client.run(f"sudo sha256sum {root}/a/b/odd {root}/packed").split()[::2]
    assert sums == [hashlib.sha256(odd).hexdigest()] * 2
    assert client.run(f"sudo stat -c %a {root}/plain {root}/a/b/odd {root}/packed").split() == [
        "644",
        "644",
        "750",
    ]
    assert system_file(client, "/root/plain") == "text\nmore"
    owner = USER if rehearsal.kind == "namespace" else client.run("id -un")
    assert client.run("stat -c %U later") == owner
    client.machine.destroy()


def test_the_payload_of_a_launch_arms_the_guard(rehearsal: Rehearsal) -> None:
    keys = make_keys(rehearsal.settings.keys_dir / "i-payload", comment="i-payload")
    guard = Guard(issued_at=datetime.now(UTC), deadline_at=None, idle_minutes=30.0)
    payload = user_data(keys, user=USER, policy=policy(guard, ("sudo", "shutdown", "-h", "now")))
    client = rehearsal.boot(user_data=payload, name="i-payload")
    wait_for(lambda: client.run("cat .cloudrun/guard.json", check=False))
    armed = json.loads(client.run("cat .cloudrun/guard.json"))
    assert armed["policy"]["idle_s"] == 1800
    wait_for(lambda: client.run("ps ax -o args | grep '[a]gent-.*boot\\|[a]gent-.*guard'", check=False))
    client.machine.destroy()


def test_another_host_key_is_not_accepted(client: Client) -> None:
    client.public_key = make_keys(client.settings.home / "other", comment="x").host_public
    with pytest.raises(RemoteError, match="key"):
        client.run("true")


def test_the_disk_outlives_the_power(client: Client) -> None:
    client.run("echo kept >file; sudo sync")
    client.machine.power_off()
    assert not client.machine.running
    with pytest.raises(ConnectFailed):
        client.run("true")
    client.machine.boot()
    assert client.machine.running
    assert client.run("cat file") == "kept"
    assert client.switched_off == []


def test_a_moved_machine_answers_there_from_the_next_boot_on(client: Client) -> None:
    there = free_address()
    client.machine.move(there)
    assert client.run("echo still here") == "still here"
    client.machine.power_off()
    client.machine.boot()
    assert client.shell(host=there).run("echo there").text == "there"
    with pytest.raises(ConnectFailed):
        client.run("true")


@pytest.mark.parametrize("command", ["sudo shutdown -h now", "sudo -n /sbin/poweroff", "shutdown -P +0"])
def test_it_switches_itself_off(client: Client, command: str) -> None:
    if "sbin" in command and client.run("command -v sudo") != "/usr/bin/sudo":
        command = "poweroff"  # on an embedded machine only PATH leads to its own
    client.switch(command)
    assert client.told.wait(20)
    assert client.switched_off == [client.spec.id]
    assert not client.machine.running
    client.machine.boot()
    assert client.run("echo again") == "again"


def test_a_scheduled_shutdown_can_be_called_off(client: Client) -> None:
    client.run("shutdown +97")  # as nothing else on this computer does: an embedded machine sees it all
    assert client.run("pgrep -f 'sleep 582[0]'") != ""
    client.run("shutdown -c")
    assert client.run("pgrep -f 'sleep 582[0]'", check=False) == ""
    assert client.machine.running


def test_a_wrong_shutdown_says_so(client: Client) -> None:
    answer = client.shell().run("shutdown tomorrow", check=False)
    assert answer.exit_code == 1
    assert b"not tomorrow" in answer.stderr


def test_it_reboots(client: Client) -> None:
    client.run("nohup sleep 1000 >/dev/null 2>&1 & echo $! >pid")
    client.switch("sudo reboot")
    wait_for(lambda: _up_without(client, "pgrep -x sleep -F pid"))
    assert client.machine.running
    assert client.switched_off == []


def _up_without(client: Client, command: str) -> bool:
    try:
        return not client.shell().run(command, check=False)
    except RemoteError:
        return False


def test_switched_off_from_outside_with_a_grace_period(client: Client) -> None:
    saving = "trap 'echo saved >saved; exit' TERM; touch ready; while :; do sleep 0.05; done"
    client.shell().run("cat >save.sh; nohup sh save.sh >log 2>&1 &", input=saving.encode())
    wait_for(lambda: client.run("ls ready", check=False))
    client.machine.power_off(grace_s=10)
    client.machine.boot()
    assert client.run("cat saved") == "saved"
    assert client.switched_off == []


def test_switched_off_at_once_whatever_resists(client: Client) -> None:
    resisting = "trap '' TERM; touch ready; while :; do sleep 0.05; done"
    client.shell().run("cat >resist.sh; nohup sh resist.sh >log 2>&1 &", input=resisting.encode())
    wait_for(lambda: client.run("ls ready", check=False))
    began = time.monotonic()
    client.machine.power_off()
    assert time.monotonic() - began < 60
    with pytest.raises(ConnectFailed):
        client.run("true")


def test_metadata_takes_a_token(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot(metadata={"instance-id": "i-42"})
    ask = """
import os, urllib.error, urllib.request
base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
def get(path, **headers):
    method = headers.pop("method", "GET")
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(base + path, method=method, headers=names)
    try:
        return urllib.request.urlopen(request, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        return str(error.code)
token = get("/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
print(get("/latest/meta-data/instance-id"))
print(get("/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token))
print(get("/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token))
"""
    answer = client.shell().run("python3 -", input=ask.encode())
    assert answer.text.splitlines() == ["401", "i-42", "404"]
    client.machine.destroy()


def test_a_slow_script_holds_nobody_up(rehearsal: Rehearsal) -> None:
    client = rehearsal.create({"runcmd": ["echo here >>/root/events; sleep 100", "echo late >>/root/events"]})
    began = time.monotonic()
    client.machine.boot()
    assert time.monotonic() - began < 60
    assert system_file(client, "/root/events") == "here"
    client.machine.power_off()
    client.machine.boot()
    assert system_file(client, "/root/events") == "here"  # as there: it is not done again
    client.machine.destroy()


def test_megabytes_pass_in_both_directions(client: Client) -> None:
    data = os.urandom(8_000_000)
    answer = client.shell().run(
        "tee copy | sha256sum; cat copy copy | tail -c 8000000", input=data, timeout_s=60
    )
    digest, _, back = answer.stdout.partition(b"\n")
    assert digest.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert back == data


def test_an_address_in_use_is_named(rehearsal: Rehearsal) -> None:
    client = rehearsal.create()
    with socket.create_server((client.spec.host, PORT)), pytest.raises(BootFailed, match="20022") as caught:
        client.machine.boot()
    assert "CLOUDRUN_SSH_PORT" in caught.value.hint
    assert not client.machine.running
    client.machine.boot()
    assert client.run("echo now") == "now"
    client.machine.destroy()


def test_destroyed_is_gone_and_stays_gone(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot()
    client.machine.destroy()
    client.machine.destroy()
    assert not client.folder.exists()
    assert not client.machine.running
    with pytest.raises(BootFailed, match="gone"):
        client.machine.boot()
    assert not client.folder.exists()
    assert client.switched_off == []


def test_ids_name_folders_once(rehearsal: Rehearsal) -> None:
    client = rehearsal.create()
    with pytest.raises(MachineError, match="exists already"):
        rehearsal.create(name=client.spec.id)
    with pytest.raises(MachineError, match="cannot name"):
        rehearsal.create(name="../up")
    client.machine.destroy()
