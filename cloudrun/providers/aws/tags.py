"""What is written on everything that we make at AWS, so that a machine can be rebuilt from it alone.

    cloudrun=1                        ours
    cloudrun-name, Name               the machine; the base name of several launched at once
    cloudrun-count                    how many were launched at once (NAME-1 to NAME-count)
    cloudrun-token                    the launch; makes it idempotent
    cloudrun-owner                    whose it is: user@host and a number for the home folder
    cloudrun-stack, -price, -disk-gb, -user, -on-preempt, -run-owned, -address
    cloudrun-run, cloudrun-project    given by whoever launches for a run
    cloudrun-deadline, -idle-minutes  the guard's policy; absent = none

Keys hold only letters and dashes: they can be read at the machine's metadata service.
"""

from __future__ import annotations

import getpass
import hashlib
import re
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cloudrun.config import Settings
from cloudrun.models import Guard, LaunchSpec, OnPreempt

OURS, NAME, COUNT, TOKEN = "cloudrun", "cloudrun-name", "cloudrun-count", "cloudrun-token"
OWNER, STACK, PRICE, USER = "cloudrun-owner", "cloudrun-stack", "cloudrun-price", "cloudrun-user"
DISK_GB, ON_PREEMPT = "cloudrun-disk-gb", "cloudrun-on-preempt"
RUN_OWNED, ADDRESS = "cloudrun-run-owned", "cloudrun-address"
DEADLINE, IDLE_MINUTES = "cloudrun-deadline", "cloudrun-idle-minutes"
SHOWN_NAME = "Name"  # what AWS's own console shows

OUR_FILTER = {"Name": f"tag:{OURS}", "Values": ["1"]}
MOST_VALUE = 256  # characters of a tag's value (EC2 user guide, tag restrictions)
MACHINE_ID = Path("/etc/machine-id")  # systemd's, of this installation
NOT_IN_RULES = re.compile(r"[^A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]")  # EC2's alphabet of rule descriptions

Tags = dict[str, str]


def launch_tags(
    spec: LaunchSpec, *, owner: str, user: str, disk_gb: int, on_preempt: OnPreempt | None, count: int | None
) -> Tags:
    """Everything that `list_machines` needs to know."""
    price = spec.offer.price_per_hour_usd
    known = {
        OURS: "1",
        SHOWN_NAME: spec.name,
        NAME: spec.name,
        COUNT: str(count) if count else "",
        TOKEN: spec.token,
        OWNER: owner,
        STACK: spec.stack.name,
        PRICE: "" if price is None else str(price),
        DISK_GB: str(disk_gb),
        USER: user,
        ON_PREEMPT: on_preempt.value if on_preempt else "",
        RUN_OWNED: "1" if spec.run_owned else "",
        **guard_tags(spec.guard),
        **dict(spec.tags),
    }
    return {key: value[:MOST_VALUE] for key, value in known.items() if value}


def guard_tags(guard: Guard) -> Tags:
    """ "" where the policy has none: such a tag is removed."""
    idle = guard.idle_minutes
    return {
        DEADLINE: guard.deadline_at.isoformat() if guard.deadline_at else "",
        IDLE_MINUTES: "" if idle is None else f"{idle:g}",
    }


def specifications(tags: Mapping[str, str], *kinds: str) -> list[dict[str, Any]]:
    """The same tags for several kinds of things, as a create call takes them."""
    return [{"ResourceType": kind, "Tags": to_aws(tags)} for kind in kinds]


def to_aws(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_of(described: Mapping[str, Any]) -> Tags:
    """The tags of anything that AWS describes."""
    listed: Sequence[Mapping[str, str]] = described.get("Tags") or ()
    return {tag["Key"]: tag["Value"] for tag in listed}


def time_of(text: str) -> datetime | None:
    """A time as we wrote it; None for none, or where somebody else wrote it."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def owner_of(settings: Settings) -> str:
    """This user on this computer with this home folder, as tags and firewall rules name it."""
    try:
        installation = MACHINE_ID.read_text().strip()
    except OSError:
        installation = ""
    number = hashlib.sha256(f"{installation}\n{settings.home}".encode()).hexdigest()[:8]
    return NOT_IN_RULES.sub("_", f"{getpass.getuser()}@{socket.gethostname()} {number}")
