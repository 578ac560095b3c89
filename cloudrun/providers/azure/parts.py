"""What a machine consists of at Azure, and what each part is called.

All names come from the launch's token, so a launch that is repeated meets its own parts. A machine has a
resource group of its own, which is deleted with it; or it lies in one that the user named, which stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cloudrun.models import LaunchSpec

STEM = "cr-"
OWN_GROUP = "cloudrun-"
ASKED = "cloudrun-asked"  # tag: when the launch was asked for, at this computer's clock

VM = "Microsoft.Compute/virtualMachines"
DISK = "Microsoft.Compute/disks"
IMAGE = "Microsoft.Compute/images"  # not a machine's: it outlives the one that it is made of
NIC = "Microsoft.Network/networkInterfaces"
IP = "Microsoft.Network/publicIPAddresses"
NSG = "Microsoft.Network/networkSecurityGroups"
VNET = "Microsoft.Network/virtualNetworks"
# Each of these needs those behind it: the order in which they can go.
IN_ORDER = (VM, NIC, DISK, IP, NSG, VNET)
SUFFIX: Mapping[str, str] = {VM: "", NIC: "-nic", DISK: "-disk", IP: "-ip", NSG: "-nsg", VNET: "-vnet"}


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a machine's parts lie, and their names."""

    group: str
    stem: str

    @property
    def own_group(self) -> bool:
        """Whether the group was made for this machine, and goes with it."""
        return self.group.lower() == own_group_of(self.stem)

    def name(self, kind: str) -> str:
        return self.stem + SUFFIX[kind]


def parts_of(spec: LaunchSpec) -> Parts:
    """The parts of the machine that is launched so."""
    stem = stem_of(spec.token)
    return Parts(spec.options.resource_group or own_group_of(stem), stem)


def parts_of_id(id: str) -> Parts:
    """The parts of the machine with that id: .../resourceGroups/GROUP/providers/.../virtualMachines/NAME."""
    words = id.split("/")
    return Parts(group=words[4], stem=words[-1])


def canonical(id: str, kind: str = VM) -> str:
    """The id of a machine, or of something else, as we keep it. Azure's are the same in capital and small
    letters, and lists show names of groups in others than the machine itself does."""
    words = id.split("/")
    return f"/subscriptions/{words[2]}/resourceGroups/{words[4].lower()}/providers/{kind}/{words[-1].lower()}"


def stem_of(token: str) -> str:
    """The machine's own name at Azure, with which those of its parts begin. 15 characters: also what its
    system is called, which may have 64."""
    return STEM + hashlib.sha256(token.encode()).hexdigest()[:12]


def own_group_of(stem: str) -> str:
    return OWN_GROUP + stem
