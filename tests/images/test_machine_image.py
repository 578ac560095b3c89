"""A rehearsal machine's disk kept, and other machines that begin with it, of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from machine_help import Client, Rehearsal, need

from cloudrun.errors import MachineError

RUNCMD = {"runcmd": ["echo first >>/root/events"]}


@pytest.fixture(scope="module", params=["namespace", "embedded"])
def rehearsal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path_factory.mktemp(request.param), need(request.param))
    yield made
    made.host.close()


def like(rehearsal: Rehearsal, image: Path, *, disk_gb: int = 4) -> Client:
    """A machine that boots for the first time with that disk."""
    client = rehearsal.create(RUNCMD, disk_gb=disk_gb)
    client.machine.destroy()
    spec = replace(client.spec, id=f"{client.spec.id}-copy", image=image)
    keys = rehearsal.settings.keys_dir
    (keys / client.spec.id).rename(keys / spec.id)
    client.machine = rehearsal.host.create(spec, on_off=client.switched_off.append)
    client.spec, client.folder = spec, client.folder.with_name(spec.id)
    client.machine.boot()
    return client


def events(client: Client) -> str:
    return client.run("sudo cat /root/events .system/root/events 2>/dev/null", check=False)


def test_a_machine_begins_with_what_was_installed_on_another(rehearsal: Rehearsal) -> None:
    first = rehearsal.boot(RUNCMD)
    first.run("echo installed >~/installed; mkdir -p ~/folder; ln -s ../installed ~/folder/link")
    with pytest.raises(MachineError, match="runs"):
        rehearsal.host.capture(first.spec.id, "one")
    first.machine.power_off()
    image = rehearsal.host.capture(first.spec.id, "one")
    first.machine.destroy()
    second, third = like(rehearsal, image), like(rehearsal, image)
    assert second.run("cat ~/folder/link") == third.run("cat ~/folder/link") == "installed"
    second.run("echo changed >~/installed")
    assert third.run("cat ~/installed") == "installed"
    assert events(second).split() == ["first", "first"]  # its user data was new to it
    assert second.shown_host_key() not in (first.public_key.split()[1], third.public_key.split()[1])
    rehearsal.host.discard("one")
    rehearsal.host.discard("one")
    assert not image.exists()
    second.machine.power_off()
    second.machine.boot()
    assert second.run("cat ~/installed") == "changed"
    for client in (second, third):
        client.machine.destroy()


def test_its_name_is_its_own_and_its_disk_may_be_bigger(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, need("namespace"))
    first = rehearsal.boot()
    number = first.run("cat /etc/machine-id")
    first.machine.power_off()
    image = rehearsal.host.capture(first.spec.id, "two")
    bigger = like(rehearsal, image, disk_gb=6)
    assert bigger.run("hostname; cat /etc/hostname").split() == [bigger.spec.hostname] * 2
    assert bigger.run("cat /etc/machine-id") != number
    assert int(bigger.run("df --output=size -BM / | tail -1").rstrip("M")) > 5 * 1024
    first.machine.boot()  # beside its copy
    assert first.run("cat /etc/machine-id") == number
    rehearsal.host.close()


def test_what_is_kept_goes_with_its_host(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, "embedded")
    client = rehearsal.boot()
    client.machine.power_off()
    image = rehearsal.host.capture(client.spec.id, "three")
    with pytest.raises(MachineError, match="no i-none"):
        rehearsal.host.capture("i-none", "four")
    rehearsal.host.close()
    assert not image.exists()


def test_a_machine_whose_image_is_gone_does_not_boot(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="image"):
        like(rehearsal, tmp_path / "gone")
