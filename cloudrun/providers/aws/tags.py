"""Our tags (providers/tags.py) as EC2 takes and shows them, and two of its own.

Name                              the machine, where AWS's own console shows it
cloudrun-count                    how many were launched at once (NAME-1 to NAME-count)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudrun.models import LaunchSpec, OnPreempt
from cloudrun.providers import tags as t

COUNT = "cloudrun-count"
SHOWN_NAME = "Name"
OUR_FILTER = {"Name": f"tag:{t.OURS}", "Values": ["1"]}


def launch_tags(
    spec: LaunchSpec, *, owner: str, user: str, disk_gb: int, on_preempt: OnPreempt | None, count: int | None
) -> t.Tags:
    """Everything that `list_machines` needs to know."""
    tags = t.launch_tags(spec, owner=owner, user=user, disk_gb=disk_gb, on_preempt=on_preempt)
    tags[SHOWN_NAME] = tags[t.NAME]
    if count:
        tags[COUNT] = str(count)
    return tags


def specifications(tags: Mapping[str, str], *kinds: str) -> list[dict[str, Any]]:
    """The same tags for several kinds of things, as a create call takes them."""
    return [{"ResourceType": kind, "Tags": to_aws(tags)} for kind in kinds]


def to_aws(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_of(described: Mapping[str, Any]) -> t.Tags:
    """The tags of anything that AWS describes."""
    listed: Sequence[Mapping[str, str]] = described.get("Tags") or ()
    return {tag["Key"]: tag["Value"] for tag in listed}
