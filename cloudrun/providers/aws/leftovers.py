"""What carries our tags and is no machine: disks, addresses, groups, spot requests, snapshots, images.

One call a region tells what there is, one more for each kind that is there. Images that were baked are kept
on purpose, with their snapshots: they are shown with what they cost, and are not wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from cloudrun.catalog.loader import load_billing
from cloudrun.catalog.prices import HOURS_PER_MONTH
from cloudrun.errors import ProviderError
from cloudrun.models import Machine
from cloudrun.providers import tags as t
from cloudrun.providers.aws.addresses import free_address
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.instances import PROVIDER, each_region, list_region
from cloudrun.providers.aws.network import remove_group
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import OUR_FILTER, SHOWN_NAME, tags_of
from cloudrun.providers.base import Leftover
from cloudrun.providers.launched import KEYS, free_keys, left_keys
from cloudrun.providers.rented import fact

OPEN_REQUESTS = (
    "open",
    "active",
    "disabled",
)  # they may still become a machine (EC2 user guide, spot requests)
# How the codes end for what EC2 does not know any more; an image that was removed is "Unavailable".
NOT_THERE = ("NotFound", "InvalidAMIID.Unavailable")

KEPT_STATES = ("available", "pending", "transient")  # of an image that boots machines, or is about to

Described = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _There:
    """What of ours a region has, as far as others of it need to know."""

    ec2: Any
    region: str
    machines: Sequence[Machine]
    images: Sequence[Described]

    @property
    def kept(self) -> Sequence[Described]:
        """The images that were baked."""
        return [each for each in self.images if t.IMAGE in tags_of(each) and each["State"] in KEPT_STATES]


def list_leftovers(session: Session) -> list[Leftover]:
    """Every one in every enabled region, and keys on this computer that open nothing any more."""
    found: list[tuple[list[Machine], list[Leftover]]] = each_region(session, _region)
    machines = [machine for there, _ in found for machine in there]
    return [each for _, there in found for each in there] + left_keys(session.settings, PROVIDER, machines)


def free(session: Session, leftover: Leftover) -> None:
    """Remove it. Idempotent. Raises ProviderError while something still needs it."""
    if leftover.kind == KEYS:
        free_keys(session.settings, leftover)
        return
    with mapped(region=leftover.region, what=f"free {leftover.kind} {leftover.id}"):
        try:
            _free(session, leftover)
        except ClientError as error:
            if not error.response["Error"]["Code"].endswith(NOT_THERE):
                raise


def _free(session: Session, leftover: Leftover) -> None:
    ec2, id_ = session.client("ec2", leftover.region), leftover.id
    if leftover.kind == "disk":
        ec2.delete_volume(VolumeId=id_)
    elif leftover.kind == "address":
        free_address(session, leftover.region, id_)
    elif leftover.kind == "group":
        if not remove_group(session, leftover.region, id_):
            raise ProviderError(
                f"the group {id_} in {leftover.region} is still needed",
                hint="machines that end need it for a minute more: try again then",
            )
    elif leftover.kind == "spot request":
        ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[id_])
    elif leftover.kind == "snapshot":
        ec2.delete_snapshot(SnapshotId=id_)
    elif leftover.kind == "image":
        ec2.deregister_image(ImageId=id_)
    else:
        raise ProviderError(f"no way to free {leftover.kind} {id_}", hint="delete it in the AWS console")


def _region(session: Session, region: str) -> tuple[list[Machine], list[Leftover]]:
    """The machines there, and what else is there."""
    tagged = _tagged(session, region)
    machines = list_region(session, region) if tagged else []
    ec2 = session.client("ec2", region)
    images: Sequence[Described] = ()
    if "ami" in tagged:
        images = ec2.describe_images(Owners=["self"], Filters=[OUR_FILTER])["Images"]
    there = _There(ec2, region, machines, images)
    found = [leftover for kind, describe in _KINDS.items() if kind in tagged for leftover in describe(there)]
    return machines, found


def _tagged(session: Session, region: str) -> set[str]:
    """The kinds of what carries our tag, by what stands before the dash in ids: vol, sg, eipalloc."""
    pages = session.client("ec2", region).get_paginator("describe_tags")
    filters = [{"Name": "key", "Values": [t.OURS]}, {"Name": "value", "Values": ["1"]}]
    return {
        tag["ResourceId"].partition("-")[0]
        for page in pages.paginate(Filters=filters)
        for tag in page["Tags"]
    }


def _disks(there: _There) -> list[Leftover]:
    live = {machine.id for machine in there.machines}
    answer = there.ec2.describe_volumes(Filters=[OUR_FILTER])
    return [
        _leftover(
            each,
            there.region,
            "disk",
            each["VolumeId"],
            since=each["CreateTime"],
            price=disk_price(each),
            in_use=any(a["InstanceId"] in live for a in each.get("Attachments", ())),
        )
        for each in answer["Volumes"]
    ]


def _addresses(there: _There) -> list[Leftover]:
    """An address belongs to the machine of its launch, also before that has it."""
    tokens = {machine.token for machine in there.machines}
    answer = there.ec2.describe_addresses(Filters=[OUR_FILTER])
    return [
        _leftover(
            each,
            there.region,
            "address",
            each["AllocationId"],
            price=address_price(),
            in_use=tags_of(each).get(t.TOKEN) in tokens,
        )
        for each in answer["Addresses"]
    ]


def _groups(there: _There) -> list[Leftover]:
    needed = {fact(machine, "group") for machine in there.machines}
    answer = there.ec2.describe_security_groups(Filters=[OUR_FILTER])
    return [
        _leftover(each, there.region, "group", each["GroupId"], in_use=each["GroupId"] in needed)
        for each in answer["SecurityGroups"]
    ]


def _requests(there: _There) -> list[Leftover]:
    """Those that can still cost something."""
    needed = {fact(machine, "spot-request") for machine in there.machines}
    answer = there.ec2.describe_spot_instance_requests(Filters=[OUR_FILTER])
    return [
        _leftover(each, there.region, "spot request", id_, since=each.get("CreateTime"), in_use=id_ in needed)
        for each in answer["SpotInstanceRequests"]
        for id_ in [each["SpotInstanceRequestId"]]
        if each["State"] in OPEN_REQUESTS
    ]


def _snapshots(there: _There) -> list[Leftover]:
    """Those of a baked image are known by its name too: EC2 does not show them with a pending one."""
    names = {tags_of(each)[t.IMAGE] for each in there.kept}
    needed = {disk["Ebs"].get("SnapshotId") for each in there.kept for disk in disks_of(each)}
    answer = there.ec2.describe_snapshots(OwnerIds=["self"], Filters=[OUR_FILTER])
    return [
        _leftover(
            each,
            there.region,
            "snapshot",
            each["SnapshotId"],
            since=each.get("StartTime"),
            price=snapshot_price(each),
            in_use=each["SnapshotId"] in needed or tags_of(each).get(t.IMAGE) in names,
        )
        for each in answer["Snapshots"]
    ]


def _images(there: _There) -> list[Leftover]:
    """Free of charge themselves; their snapshots are not."""
    kept = {each["ImageId"] for each in there.kept}
    return [
        _leftover(
            each,
            there.region,
            "image",
            each["ImageId"],
            since=datetime.fromisoformat(each["CreationDate"]).astimezone(UTC),
            state="kept" if each["ImageId"] in kept else each["State"],
            in_use=each["ImageId"] in kept,
        )
        for each in there.images
    ]


_KINDS: Mapping[str, Callable[[_There], list[Leftover]]] = {
    "vol": _disks,
    "eipalloc": _addresses,
    "sg": _groups,
    "sir": _requests,
    "snap": _snapshots,
    "ami": _images,
}


def _leftover(
    described: Described,
    region: str,
    kind: str,
    id_: str,
    *,
    since: datetime | None = None,
    state: str = "",
    price: Decimal | None = Decimal(0),
    in_use: bool = False,
) -> Leftover:
    tags = tags_of(described)
    return Leftover(
        provider=PROVIDER,
        region=region,
        kind=kind,
        id=id_,
        name=tags.get(SHOWN_NAME, ""),
        machine=tags.get(t.NAME, ""),
        run=tags.get(t.RUN, ""),
        since=since,
        state=state,
        price_per_month_usd=price,
        in_use=in_use,
    )


def disks_of(image: Described) -> list[Described]:
    """The disks that an image makes, of those that have a snapshot."""
    return [each for each in image.get("BlockDeviceMappings", ()) if "Ebs" in each]


def disk_price(volume: Described) -> Decimal | None:
    """A month of a volume, by its kind and size; None where the catalogue has no price."""
    monthly = list_price(f"disk {volume['VolumeType']}")
    return None if monthly is None else monthly * int(volume["Size"])


def snapshot_price(snapshot: Described) -> Decimal | None:
    """A month of what a snapshot stores. EC2 does not tell that: what its tags say, else the most that it can
    be, the size of its disk."""
    monthly, told = list_price("snapshot"), tags_of(snapshot).get(t.STORED_GB, "")
    size_gb = int(told) if told.isdecimal() else int(snapshot["VolumeSize"])
    return None if monthly is None else monthly * size_gb


def address_price() -> Decimal | None:
    hourly = list_price("public IPv4 (in use or idle)")
    return None if hourly is None else hourly * HOURS_PER_MONTH


def list_price(what: str) -> Decimal | None:
    """Today's price of billing.csv; one region's stands for all. None where it is not known."""
    rules = [rule for rule in load_billing() if (rule.provider, rule.what) == (PROVIDER, what)]
    return next((rule.price_usd for rule in rules if rule.valid_to is None), None)
