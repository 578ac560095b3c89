"""What is written on everything that we make at a cloud, so that a machine can be rebuilt from it alone.

    cloudrun=1                        ours
    cloudrun-name                     the machine; the base name of several launched at once
    cloudrun-token                    the launch; makes it idempotent
    cloudrun-owner                    whose it is: user@host and a number for the home folder
    cloudrun-stack, -price, -disk-gb, -user, -on-preempt, -run-owned, -address
    cloudrun-run, cloudrun-project    given by whoever launches for a run
    cloudrun-deadline, -idle-minutes  the guard's policy; absent = none

An image of ours has of these the first, -owner and -stack, and three of its own:

    cloudrun-image                    its name
    cloudrun-stack-hash               stacks.stack_hash of what stands on it
    cloudrun-stored-gb                what was in use of the disk; about that much is stored and billed

Keys hold only letters and dashes, and values no more than 256 characters: every cloud takes those.
"""

from __future__ import annotations

import getpass
import hashlib
import re
import socket
from datetime import datetime
from pathlib import Path

from cloudrun.config import Settings
from cloudrun.models import Guard, LaunchSpec, OnPreempt

OURS, NAME, TOKEN = "cloudrun", "cloudrun-name", "cloudrun-token"
OWNER, STACK, PRICE, USER = "cloudrun-owner", "cloudrun-stack", "cloudrun-price", "cloudrun-user"
DISK_GB, ON_PREEMPT = "cloudrun-disk-gb", "cloudrun-on-preempt"
RUN_OWNED, ADDRESS = "cloudrun-run-owned", "cloudrun-address"
RUN = "cloudrun-run"
IMAGE, STACK_HASH, STORED_GB = "cloudrun-image", "cloudrun-stack-hash", "cloudrun-stored-gb"
DEADLINE, IDLE_MINUTES = "cloudrun-deadline", "cloudrun-idle-minutes"

# Characters of a tag's value (EC2 user guide, tag restrictions; Azure Resource Manager, tag limitations).
MOST_VALUE = 256
MACHINE_ID = Path("/etc/machine-id")  # systemd's, of this installation
NOT_IN_RULES = re.compile(r"[^A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]")  # EC2's alphabet of rule descriptions

Tags = dict[str, str]


def launch_tags(
    spec: LaunchSpec, *, owner: str, user: str, disk_gb: int, on_preempt: OnPreempt | None
) -> Tags:
    """Everything that `list_machines` needs to know; what a cloud adds of its own is in `spec.tags`."""
    price = spec.offer.price_per_hour_usd
    known = {
        OURS: "1",
        NAME: spec.name,
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


def image_tags(stack: str, stack_hash: str, name: str, *, owner: str, stored_gb: int) -> Tags:
    """What an image and all that is stored for it carries."""
    told = {IMAGE: name, OWNER: owner, STACK: stack[:MOST_VALUE], STACK_HASH: stack_hash}
    return {OURS: "1", **told, STORED_GB: str(stored_gb)}


def guard_tags(guard: Guard) -> Tags:
    """ "" where the policy has none: such a tag is removed."""
    idle = guard.idle_minutes
    return {
        DEADLINE: guard.deadline_at.isoformat() if guard.deadline_at else "",
        IDLE_MINUTES: "" if idle is None else f"{idle:g}",
    }


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
