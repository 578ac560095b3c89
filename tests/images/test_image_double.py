"""CreateImage in the rehearsal's EC2: what it refuses, how the image fares, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from double_help import QUICK, Account, account, refused, until

TAGS = [{"ResourceType": kind, "Tags": [{"Key": "cloudrun", "Value": "1"}]} for kind in ("image", "snapshot")]


@pytest.fixture
def aws() -> Iterator[Account]:
    """Without machines: states move as they do with them."""
    with account(delays=replace(QUICK, imaging_s=0.05)) as made:
        yield made


def image(aws: Account, image_id: str) -> dict[str, object]:
    [found] = aws.ec2.describe_images(Owners=["self"], ImageIds=[image_id])["Images"]
    return dict(found)


def test_an_image_becomes_available_and_has_the_size_of_the_disk(aws: Account) -> None:
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 33}}
    one = aws.running(BlockDeviceMappings=[disk])
    with aws.double._running().instances[one].machine_lock:  # its disk is not read yet
        made = aws.ec2.create_image(InstanceId=one, Name="kept one", TagSpecifications=TAGS)["ImageId"]
        assert image(aws, made)["State"] == "pending"
    until(lambda: image(aws, made)["State"] == "available", "the image")
    assert aws.state(one) == "running"  # started again
    [mapping] = image(aws, made)["BlockDeviceMappings"]  # type: ignore[misc]
    assert mapping["Ebs"]["VolumeSize"] == 33
    tagged = aws.ec2.describe_snapshots(Filters=[{"Name": "tag:cloudrun", "Values": ["1"]}])["Snapshots"]
    assert [(each["SnapshotId"], each["VolumeSize"]) for each in tagged] == [
        (mapping["Ebs"]["SnapshotId"], 33)
    ]
    [other] = aws.launch(ImageId=made)
    assert aws.describe(other)["ImageId"] == made


def test_what_ec2_refuses(aws: Account) -> None:
    one = aws.running()
    aws.ec2.create_image(InstanceId=one, Name="kept")
    with refused("InvalidAMIName.Duplicate", match="already in use"):
        aws.ec2.create_image(InstanceId=one, Name="kept")
    with refused("InvalidAMIName.Malformed"):
        aws.ec2.create_image(InstanceId=one, Name="a#b")
    with refused("InvalidInstanceID.NotFound"):
        aws.ec2.create_image(InstanceId="i-0123456789abcdef0", Name="another")
    aws.ec2.terminate_instances(InstanceIds=[one])
    with refused("IncorrectState"):
        aws.ec2.create_image(InstanceId=one, Name="another")


def test_a_snapshot_stays_as_long_as_its_image(aws: Account) -> None:
    one = aws.running()
    made = aws.ec2.create_image(InstanceId=one, Name="kept")["ImageId"]
    until(lambda: image(aws, made)["State"] == "available", "the image")
    [mapping] = image(aws, made)["BlockDeviceMappings"]  # type: ignore[misc]
    snapshot = mapping["Ebs"]["SnapshotId"]
    with refused("InvalidSnapshot.InUse"):
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
    aws.ec2.deregister_image(ImageId=made)
    with refused("InvalidAMIID.NotFound"):
        aws.launch(ImageId=made)
    aws.ec2.delete_snapshot(SnapshotId=snapshot)


def test_of_a_machine_that_ends_meanwhile_nothing_comes(aws: Account) -> None:
    one = aws.running()
    with aws.double._running().instances[one].machine_lock:  # its disk is not read yet
        made = aws.ec2.create_image(InstanceId=one, Name="kept")["ImageId"]
        aws.ec2.terminate_instances(InstanceIds=[one])
    until(lambda: image(aws, made)["State"] == "failed", "the image to fail")
