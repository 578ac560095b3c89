"""What stays behind when machines go is found by its tags, priced, and freed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from aws_help import CPU, ON_DEMAND, SPOT, ZONE, Cloud, open_cloud
from waiting import until

from cloudrun.errors import ConnectionLost, ProviderError
from cloudrun.images import ImageState
from cloudrun.models import LaunchOptions
from cloudrun.providers.aws.tags import specifications, to_aws
from cloudrun.providers.base import Leftover
from cloudrun.providers.launched import load_launched
from cloudrun.providers.tags import image_tags

OURS = {"cloudrun": "1", "cloudrun-name": "old", "Name": "old", "cloudrun-token": "old-token"}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def test_an_empty_account_has_none_and_costs_one_call_a_region(cloud: Cloud) -> None:
    provider = cloud.provider()
    assert provider.list_leftovers() == []
    assert cloud.calls() == {"DescribeTags": 3}


def test_what_a_live_machine_needs_is_in_use(cloud: Cloud) -> None:
    cloud.launch_running(offer=SPOT, options=LaunchOptions(fixed_address=True))
    found = cloud.provider().list_leftovers()
    assert sorted(each.kind for each in found) == ["address", "disk", "group", "spot request"]
    assert all(each.in_use for each in found)
    by_kind = {each.kind: each for each in found}
    assert by_kind["disk"].price_per_month_usd == 64 * Decimal("0.08")
    assert by_kind["address"].price_per_month_usd == Decimal("0.005") * 730
    assert (by_kind["disk"].machine, by_kind["disk"].region) == ("k80", "us-east-1")


def test_every_kind_is_found_and_freed(cloud: Cloud) -> None:
    ec2 = cloud.ec2("us-west-2")
    tags = to_aws(OURS)
    disk = ec2.create_volume(
        AvailabilityZone="us-west-2a",
        Size=100,
        VolumeType="gp3",
        TagSpecifications=specifications(OURS, "volume"),
    )
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=specifications(OURS, "elastic-ip"))
    snapshot = ec2.create_snapshot(
        VolumeId=disk["VolumeId"], TagSpecifications=specifications(OURS, "snapshot")
    )
    image = ec2.register_image(Name="old", RootDeviceName="/dev/sda1")
    ec2.create_tags(Resources=[image["ImageId"]], Tags=tags)
    [default] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    group = ec2.create_security_group(
        GroupName="cloudrun",
        Description="old",
        VpcId=default["VpcId"],
        TagSpecifications=specifications(OURS, "security-group"),
    )
    foreign = ec2.create_volume(AvailabilityZone="us-west-2a", Size=1)
    provider = cloud.provider()
    found = provider.list_leftovers()
    assert {each.kind: each.id for each in found} == {
        "disk": disk["VolumeId"],
        "address": address["AllocationId"],
        "snapshot": snapshot["SnapshotId"],
        "image": image["ImageId"],
        "group": group["GroupId"],
    }
    assert not any(each.in_use for each in found)
    assert {each.kind for each in found if each.since is None} == {"address", "group"}
    assert all(age(each) < timedelta(minutes=5) for each in found if each.since and each.kind != "image")
    assert {each.kind: each.price_per_month_usd for each in found} == {
        "disk": 100 * Decimal("0.08"),
        "address": Decimal("3.65"),
        "snapshot": 100 * Decimal("0.05"),
        "image": 0,
        "group": 0,
    }
    for each in found:
        assert (each.machine, each.region, each.ours) == ("old", "us-west-2", True)
        provider.free(each)
        provider.free(each)
    assert provider.list_leftovers() == []
    assert [each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]] == [foreign["VolumeId"]]


def test_a_disk_of_a_kind_without_a_known_price_has_none(cloud: Cloud) -> None:
    cloud.ec2().create_volume(
        AvailabilityZone=ZONE,
        Size=10,
        VolumeType="io2",
        Iops=100,
        TagSpecifications=specifications(OURS, "volume"),
    )
    [found] = cloud.provider().list_leftovers()
    assert found.price_per_month_usd is None


def test_a_request_that_would_become_a_machine_again(cloud: Cloud) -> None:
    """Somebody ended a persistent machine in the console: EC2 launches another, and so on."""
    machine = cloud.launch_running(offer=SPOT, run_owned=False)
    cloud.delay(refill_s=3600)
    cloud.ec2().terminate_instances(InstanceIds=[machine.id])
    until(lambda: cloud.request()["State"], lambda state: state == "open")
    provider = cloud.provider()
    [found] = [each for each in provider.list_leftovers() if each.kind == "spot request"]
    assert (found.machine, found.in_use) == ("k80", False)
    provider.free(found)
    assert cloud.request()["State"] == "cancelled"
    assert "spot request" not in [each.kind for each in provider.list_leftovers()]


def test_a_group_that_is_needed_stays(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(offer=CPU)
    [group] = [each for each in provider.list_leftovers() if each.kind == "group"]
    assert group.in_use
    with pytest.raises(ProviderError, match="still needed"):
        provider.free(group)
    provider.terminate(machine)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "terminated")
    assert [each.in_use for each in provider.list_leftovers()] == [False]
    provider.free(group)
    assert provider.list_leftovers() == []


def test_what_a_killed_launch_left(cloud: Cloud) -> None:
    """Keys, and an address that was made before the call that never came."""
    cloud.double.fault("RunInstances", "InternalError", status=500)
    with pytest.raises(ConnectionLost):
        cloud.launch(offer=ON_DEMAND, options=LaunchOptions(fixed_address=True))
    provider = cloud.provider()
    found = {each.kind: each for each in provider.list_leftovers()}
    assert sorted(found) == ["address", "group", "keys"]
    assert found["keys"].in_use  # it may be going on this very moment
    assert not found["address"].in_use
    make_old(cloud.settings.keys_dir / "k80")
    found = {each.kind: each for each in provider.list_leftovers()}
    assert (found["keys"].in_use, found["keys"].machine) == (False, "k80")
    for each in found.values():
        provider.free(each)
    assert provider.list_leftovers() == []
    assert list(cloud.settings.keys_dir.iterdir()) == []


def test_keys_of_machines_that_live_are_none(cloud: Cloud) -> None:
    cloud.launch(offer=CPU)
    make_old(cloud.settings.keys_dir / "k80")
    assert "keys" not in [each.kind for each in cloud.provider().list_leftovers()]


def test_an_unknown_kind_is_said_so(cloud: Cloud) -> None:
    with pytest.raises(ProviderError, match="balloon"):
        cloud.provider().free(Leftover("aws", "us-east-1", "balloon", "b-1"))


def test_baked_images_are_kept_with_their_snapshots(cloud: Cloud) -> None:
    """A snapshot whose image is gone is not."""
    machine = cloud.launch_running(offer=CPU)
    provider = cloud.provider()
    made = [
        provider.create_image(machine, name, image_tags("none", "0" * 64, name, owner="me", stored_gb=7))
        for name in ("kept", "gone")
    ]
    until(
        lambda: {provider.describe_image(each).state for each in made},
        lambda states: states == {ImageState.AVAILABLE},
    )
    cloud.ec2().deregister_image(ImageId=made[1].id)
    found = [each for each in provider.list_leftovers() if each.kind in ("image", "snapshot")]
    assert [(each.kind, each.name, each.in_use, each.price_per_month_usd) for each in found] == [
        ("snapshot", "kept", True, 7 * Decimal("0.05")),
        ("snapshot", "gone", False, 7 * Decimal("0.05")),
        ("image", "kept", True, 0),
    ]
    assert all(age(each) < timedelta(minutes=5) for each in found)
    provider.free(found[1])
    assert {each.name for each in provider.list_leftovers() if each.kind == "snapshot"} == {"kept"}
    assert provider.describe_image(made[0]).state is ImageState.AVAILABLE


def test_what_others_have_is_shown_and_priced(cloud: Cloud) -> None:
    ec2 = cloud.ec2("us-west-2")
    known = {each.id for each in cloud.provider().list_foreign()}
    cloud.launch_running(offer=CPU)
    disk = ec2.create_volume(AvailabilityZone="us-west-2a", Size=100, VolumeType="gp3")["VolumeId"]
    name = [{"Key": "Name", "Value": "theirs"}]
    machine = ec2.run_instances(
        ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        InstanceType="g4dn.xlarge",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": name}],
    )["Instances"][0]["InstanceId"]
    snapshot = ec2.create_snapshot(VolumeId=disk)["SnapshotId"]
    image = ec2.register_image(Name="theirs", RootDeviceName="/dev/sda1")["ImageId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    provider = cloud.provider()
    found = {each.id: each for each in provider.list_foreign() if each.id not in known}
    found = {id_: each for id_, each in found.items() if id_ in (machine, disk, snapshot, image, address)}
    assert {each.id: each.kind for each in found.values()} == {
        machine: "machine",
        disk: "disk",
        snapshot: "snapshot",
        image: "image",
        address: "address",
    }
    assert all((each.ours, each.region) == (False, "us-west-2") for each in found.values())
    assert {id_: each.price_per_month_usd for id_, each in found.items()} == {
        machine: Decimal("0.526") * 730,
        disk: 100 * Decimal("0.08"),
        snapshot: 100 * Decimal("0.05"),
        image: 0,
        address: Decimal("3.65"),
    }
    assert found[machine].name == "theirs"
    assert found[address].state == "idle"
    ec2.stop_instances(InstanceIds=[machine])
    stopped = until(
        lambda: {each.id: each for each in provider.list_foreign()}[machine],
        lambda each: each.state == "stopped",
    )
    assert stopped.price_per_month_usd == 0
    assert not {each.id for each in provider.list_leftovers()} & {*found}
    assert not [
        each for each in provider.list_foreign() if each.region == "us-east-1" and each.id not in known
    ]


def age(leftover: Leftover) -> timedelta:
    assert leftover.since is not None
    return datetime.now(UTC) - leftover.since


def make_old(folder: Path) -> None:
    known = load_launched(folder)
    assert known
    replace(known, asked_at=datetime.now(UTC) - timedelta(days=1)).save(folder)
