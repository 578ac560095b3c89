"""What an instance reads about itself below /latest/meta-data/, as EC2 words it.

Paths: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html, read 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC

from cloudrun.models import Market
from cloudrun.sim.aws.world import SimInstance, World
from cloudrun.sim.metadata import Imds
from cloudrun.sim.spec import Respond

_TAGS = "tags/instance"


def service(world: World, instance: SimInstance) -> Respond:
    """The metadata service of one instance."""
    return Imds(content(world, instance)).respond


def content(world: World, instance: SimInstance) -> Callable[[str], str | None]:
    """A path below meta-data/ -> text, None for one that is not there."""

    def look_up(path: str) -> str | None:
        with world.lock:
            if path == _TAGS or path.startswith(_TAGS + "/"):
                return _tag(world, instance, path)
            found = _values(world, instance).get(path)
        return found or None

    return look_up


def _values(world: World, instance: SimInstance) -> dict[str, str]:
    known = world.backend.instance(instance.region, instance.id)
    if known is None:
        return {}
    return {
        "instance-id": instance.id,
        "instance-type": instance.type,
        "instance-life-cycle": "spot" if instance.market == Market.SPOT else "on-demand",
        "ami-id": str(known.image_id),
        "ami-launch-index": str(instance.index),
        "reservation-id": instance.reservation,
        "hostname": known.private_dns_name,
        "local-hostname": known.private_dns_name,
        "local-ipv4": known.private_ip or "",
        "public-ipv4": known.public_ip or "",
        "security-groups": "\n".join(str(group.name) for group in known.security_groups),
        "placement/availability-zone": instance.zone,
        "placement/region": instance.region,
        **_notice(instance),
    }


def _notice(instance: SimInstance) -> dict[str, str]:
    """The interruption notice, for as long as it stands."""
    if instance.notice is None:
        return {}
    action, at = instance.notice
    second = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # the metadata service has no fractions
    told = {
        "spot/instance-action": json.dumps({"action": action, "time": second}),
        "events/recommendations/rebalance": json.dumps({"noticeTime": second}),
    }
    if action == "terminate":
        told["spot/termination-time"] = second
    return told


def _tag(world: World, instance: SimInstance, path: str) -> str | None:
    """Tags, where the launch asked for them to be readable."""
    if instance.form.get("MetadataOptions.InstanceMetadataTags") != "enabled":
        return None
    tags = world.backend.tags(instance.region, instance.id)
    key = path.removeprefix(_TAGS).removeprefix("/")
    return tags.get(key) if key else "\n".join(sorted(tags))
