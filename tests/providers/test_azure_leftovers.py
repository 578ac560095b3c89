"""What stays behind at Azure: found by tags from any computer, priced, and freed in an order that works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from azure_help import CPU, ON_DEMAND, REGION, SPOT, Cloud, open_cloud
from waiting import until

from cloudrun.errors import ConnectionLost, ProviderError
from cloudrun.models import LaunchOptions, MachineState, OnPreempt
from cloudrun.providers.azure import session as sessions
from cloudrun.providers.azure.parts import ASKED, parts_of_id
from cloudrun.providers.base import Leftover
from cloudrun.providers.launched import load_launched

VM = "Microsoft.Compute/virtualMachines/write"
LONG_AGO = (datetime.now(UTC) - timedelta(days=1)).isoformat()
OURS = {"cloudrun": "1", "cloudrun-name": "old", "cloudrun-token": "old-token", ASKED: LONG_AGO}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def make_team(cloud: Cloud) -> None:
    """A group of the user's, with what a machine of ours left in it."""
    session = cloud.session()
    session.resources.resource_groups.create_or_update("team", {"location": REGION})
    network, place = session.network, {"location": REGION, "tags": OURS}
    quick = {"polling_interval": 0.01}
    space = {
        "addressSpace": {"addressPrefixes": ["10.0.0.0/24"]},
        "subnets": [{"name": "machines", "properties": {"addressPrefix": "10.0.0.0/24"}}],
    }
    network.virtual_networks.begin_create_or_update(
        "team", "vnet", {**place, "properties": space}, **quick
    ).result()
    group = network.network_security_groups.begin_create_or_update("team", "nsg", place, **quick).result()
    address = network.public_ip_addresses.begin_create_or_update(
        "team",
        "ip",
        {**place, "sku": {"name": "Standard"}, "properties": {"publicIPAllocationMethod": "Static"}},
        **quick,
    ).result()
    subnet = network.subnets.get("team", "vnet", "machines")
    told = {"subnet": {"id": subnet["id"]}, "publicIPAddress": {"id": address["id"]}}
    interface = {
        "ipConfigurations": [{"name": "main", "properties": told}],
        "networkSecurityGroup": {"id": group["id"]},
    }
    network.network_interfaces.begin_create_or_update(
        "team", "nic", {**place, "properties": interface}, **quick
    ).result()
    make_disk(cloud, "disk", tags=OURS)


def make_disk(
    cloud: Cloud,
    name: str,
    *,
    tags: dict[str, str],
    size_gb: int = 100,
    sku: str = "StandardSSD_LRS",
) -> None:
    body = {
        "location": REGION,
        "tags": tags,
        "sku": {"name": sku},
        "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": size_gb},
    }
    disks = cloud.session().compute.disks
    disks.begin_create_or_update("team", name, body, polling_interval=0.01).result()


def make_old(cloud: Cloud, name: str) -> None:
    """The launch of that name was asked for yesterday."""
    folder = cloud.settings.keys_dir / name
    known = load_launched(folder)
    assert known
    replace(known, asked_at=datetime.now(UTC) - timedelta(days=1)).save(folder)
    groups = cloud.session().resources.resource_groups
    for group in groups.list():
        tags = {**(group["tags"] or {}), ASKED: LONG_AGO}
        groups.create_or_update(group["name"], {"location": group["location"], "tags": tags})
    network = cloud.session().network
    for address in network.public_ip_addresses.list_all():
        tags = {**(address["tags"] or {}), ASKED: LONG_AGO}
        network.public_ip_addresses.update_tags(
            parts_of_id(address["id"]).group, address["name"], {"tags": tags}
        )


def test_a_live_machine_needs_what_it_has(cloud: Cloud, tmp_path: Path) -> None:
    cloud.launch_running(offer=ON_DEMAND, disk_gb=100)
    cloud.calls()
    found = cloud.provider(home=tmp_path / "other").list_leftovers()
    assert sum(cloud.calls().values()) == 5
    assert {each.kind for each in found} == {"resource group", "disk", "address"}
    assert all(each.in_use and each.ours and each.machine == "t4" for each in found)
    prices = {each.kind: each.price_per_month_usd for each in found}
    assert prices == {
        "resource group": 0,
        "disk": 100 * Decimal("0.075"),
        "address": Decimal("0.005") * 730,
    }
    assert {each.region for each in found} == {REGION}
    assert all(each.since and datetime.now(UTC) - each.since < timedelta(minutes=5) for each in found)


def test_every_kind_is_found_and_freed_in_the_order_of_the_list(cloud: Cloud) -> None:
    make_team(cloud)
    make_disk(cloud, "foreign", tags={})
    provider = cloud.provider()
    found = provider.list_leftovers()
    assert [each.kind for each in found] == [
        "network interface",
        "disk",
        "address",
        "security group",
        "network",
    ]
    assert not any(each.in_use for each in found)
    assert [each.price_per_month_usd for each in found] == [0, Decimal("7.5"), Decimal("3.65"), 0, 0]
    for each in found:
        assert (each.machine, each.region, each.ours) == ("old", REGION, True)
        provider.free(each)
        provider.free(each)
    assert provider.list_leftovers() == []
    assert cloud.everything() == ["team", "foreign"]
    assert [each.name for each in provider.list_foreign()] == ["foreign"]


def test_what_is_needed_stays(cloud: Cloud) -> None:
    make_team(cloud)
    provider = cloud.provider()
    network = next(each for each in provider.list_leftovers() if each.kind == "network")
    with pytest.raises(ProviderError, match="network"):
        provider.free(network)
    assert "vnet" in cloud.everything()


def test_a_disk_of_ours_is_known_by_its_name_too(cloud: Cloud) -> None:
    cloud.session().resources.resource_groups.create_or_update("team", {"location": REGION})
    make_disk(cloud, "cr-0123456789ab-disk", tags={}, sku="Premium_LRS")
    [found] = cloud.provider().list_leftovers()
    assert (found.kind, found.price_per_month_usd, found.in_use) == ("disk", None, False)
    cloud.provider().free(found)
    assert cloud.everything() == ["team"]


def test_what_a_machine_that_was_taken_for_good_leaves(cloud: Cloud) -> None:
    """Its group with network and security group: free of charge, and freed with one call."""
    options = LaunchOptions(on_preempt=OnPreempt.TERMINATE)
    machine = cloud.launch_running(offer=SPOT, options=options)
    cloud.double.preempt(machine.id, notice_s=0)
    cloud.until(machine, MachineState.PREEMPTED)
    until(cloud.everything, lambda found: len(found) == 3)
    provider = cloud.provider()
    make_old(cloud, "t4")
    found = {each.kind: each for each in provider.list_leftovers()}
    assert sorted(found) == ["keys", "resource group"]
    assert not found["resource group"].in_use
    for each in found.values():
        provider.free(each)
        provider.free(each)
    assert provider.list_leftovers() == []
    cloud.until_empty()
    assert list(cloud.settings.keys_dir.iterdir()) == []


def test_what_a_killed_launch_left(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the machine, and keys: it may be going on this very moment, later it is nobody's."""
    monkeypatch.setattr(sessions, "RETRIES", 0)
    cloud.double.fault(VM, "InternalServerError", status=500, times=None)
    with pytest.raises(ConnectionLost):
        cloud.launch(offer=ON_DEMAND)
    provider = cloud.provider()
    found = {each.kind: each for each in provider.list_leftovers()}
    assert sorted(found) == ["address", "keys", "resource group"]
    assert all(each.in_use for each in found.values())
    make_old(cloud, "t4")
    found = {each.kind: each for each in provider.list_leftovers()}
    assert sorted(found) == ["address", "keys", "resource group"]
    assert not any(each.in_use for each in found.values())
    for each in provider.list_leftovers():
        provider.free(each)
    assert provider.list_leftovers() == []
    cloud.until_empty()


def test_keys_of_another_clouds_launches_are_left_alone(cloud: Cloud) -> None:
    cloud.launch(offer=CPU)
    make_old(cloud, "t4")
    folder = cloud.settings.keys_dir / "t4"
    known = load_launched(folder)
    assert known
    replace(known, provider="aws", token="another").save(folder)
    assert "keys" not in [each.kind for each in cloud.provider().list_leftovers()]


def test_a_group_that_goes_is_no_leftover(cloud: Cloud) -> None:
    cloud.delay(group_s=1.0)
    machine = cloud.launch_running(offer=CPU)
    cloud.provider().terminate(machine)
    assert cloud.provider().list_leftovers() == []
    until(cloud.everything, lambda found: not found)


def test_what_others_have_is_shown_and_priced(cloud: Cloud) -> None:
    """Their machine is one of ours that lost its tags, but for its disk, which has its name."""
    provider = cloud.provider()
    machine = cloud.launch_running(offer=ON_DEMAND)
    assert provider.list_foreign() == []
    session, place = cloud.session(), parts_of_id(machine.id)
    quick = {"polling_interval": 0.01}
    session.compute.virtual_machines.begin_update(
        place.group, place.stem, {"tags": {"team": "x"}}, **quick
    ).result()
    for address in session.network.public_ip_addresses.list_all():
        session.network.public_ip_addresses.update_tags(place.group, address["name"], {"tags": {}})
    make_team(cloud)
    make_disk(cloud, "theirs", tags={}, sku="Standard_LRS")
    found = {each.kind: each for each in provider.list_foreign()}
    assert {kind: each.price_per_month_usd for kind, each in found.items()} == {
        "machine": Decimal("0.526") * 730,
        "address": Decimal("3.65"),
        "disk": 100 * Decimal("0.045"),
    }
    assert (found["machine"].name, found["machine"].state) == (place.stem, "running")
    assert all((each.ours, each.region) == (False, REGION) for each in found.values())
    assert all(
        each.since and datetime.now(UTC) - each.since < timedelta(minutes=5) for each in found.values()
    )
    session.compute.virtual_machines.begin_deallocate(place.group, place.stem, **quick).result()
    found = {each.kind: each for each in provider.list_foreign()}
    assert (found["machine"].state, found["machine"].price_per_month_usd) == ("deallocated", 0)


def test_an_unknown_kind_is_said_so(cloud: Cloud) -> None:
    with pytest.raises(ProviderError, match="balloon"):
        cloud.provider().free(Leftover("azure", REGION, "balloon", "/subscriptions/x"))
