"""Disks that grow while the machine runs. The file system on them is a provisioning step's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from cloudrun.errors import NotFound, Refused
from cloudrun.models import Machine
from cloudrun.providers import tags as t
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import to_aws

# A volume is changed once in six hours; EC2 says so with either code.
TOO_SOON = ("VolumeModificationRateExceeded", "IncorrectModificationState")
NEVER_CHANGED = "InvalidVolumeModification.NotFound"
USABLE = ("optimizing", "completed")  # from `optimizing` on the new size is there


def resize_disk(session: Session, machine: Machine, disk_gb: int) -> None:
    """Ask for it and return at once; nothing happens when it has that size or is getting it.

    Raises Refused for less than it has, ProviderError within six hours of the last change.
    """
    ec2 = session.client("ec2", machine.region)
    with mapped(region=machine.region, type=machine.type, what="resize the disk"):
        volume = _root_volume(ec2, machine)
        if disk_gb < volume["Size"]:
            raise Refused(
                f"the disk of {machine.name} has {volume['Size']} GB, and AWS makes none smaller",
                hint="launch another machine with a smaller --disk-gb",
            )
        if disk_gb > volume["Size"]:
            try:
                ec2.modify_volume(VolumeId=volume["VolumeId"], Size=disk_gb)
            except ClientError as error:
                asked_gb, _ = _last_change(ec2, volume["VolumeId"])
                if error.response["Error"]["Code"] not in TOO_SOON or asked_gb != disk_gb:
                    raise
        ec2.create_tags(Resources=[machine.id], Tags=to_aws({t.DISK_GB: str(disk_gb)}))


def disk_ready(session: Session, machine: Machine, disk_gb: int) -> bool:
    """Whether the machine sees a disk of that size by now."""
    ec2 = session.client("ec2", machine.region)
    with mapped(region=machine.region, what="look at the disk"):
        volume = _root_volume(ec2, machine)
        asked_gb, state = _last_change(ec2, volume["VolumeId"])
        if state and state not in USABLE and asked_gb >= disk_gb:
            return False
        return int(volume["Size"]) >= disk_gb


def _root_volume(ec2: Any, machine: Machine) -> Mapping[str, Any]:
    """The volume that was made with the machine: it carries the launch's tags."""
    filters = {"attachment.instance-id": machine.id, f"tag:{t.OURS}": "1"}
    answer = ec2.describe_volumes(
        Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()]
    )
    volumes: list[Mapping[str, Any]] = answer["Volumes"]
    if not volumes:
        raise NotFound(f"{machine.name} has no disk of ours (any more)", hint="cloudrun machines list --all")
    return volumes[0]


def _last_change(ec2: Any, volume: str) -> tuple[int, str]:
    """The size last asked for and how far that is: modifying | optimizing | completed | failed; (0, "")
    for a volume that was never changed."""
    try:
        answer = ec2.describe_volumes_modifications(VolumeIds=[volume])
    except ClientError as error:
        if error.response["Error"]["Code"] != NEVER_CHANGED:
            raise
        return 0, ""
    changes = answer["VolumesModifications"]
    return (int(changes[-1]["TargetSize"]), str(changes[-1]["ModificationState"])) if changes else (0, "")
