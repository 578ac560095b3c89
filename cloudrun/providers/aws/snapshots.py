"""Images of one's own: CreateImage keeps a machine's disk, and launches take the newest that fits.

One call makes an image, with its tags and those of its snapshots; one a region lists them; one for the image
and one for each of its snapshots removes it. Calls used beside launch.py's:

    ec2:CreateImage ec2:CreateTags ec2:DescribeImages ec2:DeregisterImage ec2:DeleteSnapshot
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from cloudrun.images import ImageState, OwnImage
from cloudrun.models import Machine, Offer
from cloudrun.providers import tags as t
from cloudrun.providers.answers import forget, kept
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.instances import PROVIDER, YOUNG, each_region
from cloudrun.providers.aws.leftovers import NOT_THERE, list_price
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import OUR_FILTER, SHOWN_NAME, specifications, tags_of, to_aws
from cloudrun.providers.rented import image_told_by

OWN_AGE = timedelta(minutes=10)  # another computer's bake is taken so much later
NAME_TAKEN = "InvalidAMIName.Duplicate"
SNAPSHOTS = "snapshots"  # fact of an image: ids, between blanks
# EC2 API reference, Image.state; the rest is not ready yet, or not any more.
STATES = {"available": ImageState.AVAILABLE, "pending": ImageState.PENDING, "transient": ImageState.PENDING}

Described = Mapping[str, Any]


def create_image(session: Session, machine: Machine, name: str, tags: Mapping[str, str]) -> OwnImage:
    """EC2 stops the system, keeps the disk as it is then, and starts it again. A repeated call finds the
    image by its name."""
    region = machine.region
    told = {**tags, SHOWN_NAME: name}
    forget(session, _answer_name(region, tags.get(t.STACK_HASH, "")))  # also should nobody ask how it fares
    with mapped(region=region, what=f"make image {name}"):
        try:
            answer = session.client("ec2", region).create_image(
                InstanceId=machine.id,
                Name=name,
                Description=f"cloudrun: stack {tags.get(t.STACK, '')} {tags.get(t.STACK_HASH, '')[:12]}",
                NoReboot=False,  # else the file system is kept in the middle of its work
                TagSpecifications=specifications(told, "image", "snapshot"),
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != NAME_TAKEN:
                raise
            found = _ask(session, region, {f"tag:{t.IMAGE}": [name]})
            if not found:  # somebody else's of that name
                raise
            return _image(region, found[0])
    fresh = {"ImageId": answer["ImageId"], "Name": name, "State": "pending", "Tags": to_aws(told)}
    return _image(region, {**fresh, "CreationDate": datetime.now(UTC).isoformat()})


def describe_image(session: Session, image: OwnImage) -> OwnImage:
    """As it is now. Within five minutes of its making EC2 may not know it everywhere."""
    with mapped(region=image.region, what=f"look at image {image.name}"):
        found = _ask(session, image.region, {"image-id": [image.id]})
    if found:
        seen = _image(image.region, found[0])
        if seen.state is not ImageState.PENDING:
            forget(session, _answer_name(image.region, image.stack_hash))
        return seen
    pending = image.state is ImageState.PENDING and image.created_at
    if pending and datetime.now(UTC) - pending < YOUNG:
        return image
    return OwnImage(PROVIDER, image.region, image.id, image.name, ImageState.FAILED, why="it is gone")


def list_images(session: Session) -> list[OwnImage]:
    found: list[list[OwnImage]] = each_region(session, _list_region)
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted((each for there in found for each in there), key=lambda one: one.created_at or oldest)


def delete_image(session: Session, image: OwnImage) -> None:
    """First the image, which needs its snapshots. They are asked for: one that was pending got them late."""
    ec2 = session.client("ec2", image.region)
    with mapped(region=image.region, what=f"delete image {image.name}"):
        [*described] = _ask(session, image.region, {"image-id": [image.id]})
        known = dict(image.detail).get(SNAPSHOTS, "").split()
        _unless_gone(ec2.deregister_image, ImageId=image.id)
        for snapshot in dict.fromkeys([*known, *(id_ for each in described for id_ in _snapshots(each))]):
            _unless_gone(ec2.delete_snapshot, SnapshotId=snapshot)
    forget(session, _answer_name(image.region, image.stack_hash))


def own_image(session: Session, stack_hash: str, offer: Offer) -> str:
    region = offer.region

    def ask() -> str:
        with mapped(region=region, what="look for an image of your own"):
            found = _ask(session, region, {f"tag:{t.STACK_HASH}": [stack_hash], "state": ["available"]})
        return str(max(found, key=lambda each: str(each["CreationDate"]))["ImageId"]) if found else ""

    return str(kept(session, _answer_name(region, stack_hash), OWN_AGE, ask).value)


def _list_region(session: Session, region: str) -> list[OwnImage]:
    return [_image(region, each) for each in _ask(session, region, {})]


def _ask(session: Session, region: str, filters: Mapping[str, Sequence[str]]) -> list[Described]:
    """This account's own that carry our tag."""
    asked = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    answer = session.client("ec2", region).describe_images(Owners=["self"], Filters=[OUR_FILTER, *asked])
    found: list[Described] = answer["Images"]
    return [each for each in found if t.IMAGE in tags_of(each)]


def _image(region: str, described: Described) -> OwnImage:
    tags = tags_of(described)
    disks = [each["Ebs"] for each in described.get("BlockDeviceMappings", ()) if "Ebs" in each]
    size_gb = sum(int(each.get("VolumeSize", 0)) for each in disks)
    return OwnImage(
        provider=PROVIDER,
        region=region,
        id=described["ImageId"],
        name=tags.get(t.IMAGE, "") or described.get("Name", ""),
        state=STATES.get(described["State"], ImageState.FAILED),
        created_at=datetime.fromisoformat(described["CreationDate"]).astimezone(UTC),
        why=described.get("StateReason", {}).get("Message", ""),
        detail=((SNAPSHOTS, " ".join(_snapshots(described))),),
        **image_told_by(tags, size_gb, list_price("snapshot")),
    )


def _snapshots(described: Described) -> list[str]:
    disks = (each.get("Ebs", {}) for each in described.get("BlockDeviceMappings", ()))
    return [each["SnapshotId"] for each in disks if each.get("SnapshotId")]


def _unless_gone(call: Any, **named: str) -> None:
    try:
        call(**named)
    except ClientError as error:
        if not error.response["Error"]["Code"].endswith(NOT_THERE):
            raise


def _answer_name(region: str, stack_hash: str) -> str:
    return f"own-image-{region}-{stack_hash[:16]}"
