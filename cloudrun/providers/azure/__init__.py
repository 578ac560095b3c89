"""Microsoft Azure as a provider: a group of its own for each machine, one call that ends it all.

session.py arm.py parts.py        the account; calls that go on after their answer; a machine's parts
offers.py retail.py skus.py quotas.py   what can be had, what it costs, how much of it
images.py snapshots.py            the bootable disk of a stack; machines' disks kept as images
launch.py                         network, address, machine: once, whatever kills us meanwhile
instances.py power.py ending.py   states and times; stop means deallocate; the end of all that was made
network.py names.py disks.py      who may reach a machine, its DNS name, disks that grow
identity.py limits.py             the right to deallocate itself, and what is without it
leftovers.py foreign.py           what stays behind; what others have
errors.py codes.py                refusals in our words
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudrun.config import Settings
from cloudrun.images import OwnImage
from cloudrun.models import Guard, LaunchSpec, Machine, Offer, Stack
from cloudrun.payload import companion_path
from cloudrun.providers.azure import (
    disks,
    ending,
    foreign,
    images,
    instances,
    launch,
    leftovers,
    limits,
    network,
    offers,
    power,
    snapshots,
)
from cloudrun.providers.azure.session import Session, require_sdk
from cloudrun.providers.base import Leftover, Need


class AzureProvider:
    """Six verbs, Stoppable, SelfRelease, ResizableDisk, Firewalled, Leftovers, Shared and SnapshotImages."""

    name = instances.PROVIDER
    grows_while_on = False

    def __init__(self, settings: Settings) -> None:
        require_sdk()
        self._session = Session(settings)

    def offers(self, need: Need) -> list[Offer]:
        return offers.find_offers(self._session, need)

    def find_image(self, stack: Stack, region: str) -> str:
        return images.find_image(self._session, stack, region)

    def launch(self, spec: LaunchSpec) -> Machine:
        """Raises ConnectionLost where the answer was lost on its way: then the machine may be there, and the
        same launch again tells."""
        return launch.launch(self._session, spec)

    def describe(self, machine: Machine) -> Machine:
        """Raises NoCapacity, Quota or NotOffered where Azure accepted the launch and refused it later: all
        that was made for it is being deleted by then."""
        return instances.describe(self._session, machine)

    def terminate(self, machine: Machine) -> None:
        ending.terminate(self._session, machine)

    def list_machines(self) -> list[Machine]:
        return instances.list_all(self._session)

    # --- Stoppable ---

    def stop(self, machine: Machine) -> None:
        power.stop(self._session, machine)

    def start(self, machine: Machine) -> Machine:
        return power.start(self._session, machine)

    # --- SelfRelease ---

    def release_command(self, machine: Machine) -> tuple[str, ...]:  # noqa: ARG002  # the same on all
        """Deallocates the machine with its own identity; where that is refused it shuts down inside."""
        return launch.RELEASE

    def set_guard(self, machine: Machine, guard: Guard) -> None:
        power.set_guard(self._session, machine, guard)

    def notices(self, machine: Machine) -> str:  # noqa: ARG002  # Freeze and Reboot come to all
        return companion_path(self.name)

    def limits(self, offer: Offer) -> str:
        return limits.limits(self._session, offer)

    # --- ResizableDisk, Firewalled, Leftovers, Shared ---

    def resize_disk(self, machine: Machine, disk_gb: int, disk: str = "") -> None:
        disks.resize_disk(self._session, machine, disk_gb, disk=disk)

    def disk_ready(self, machine: Machine, disk_gb: int, disk: str = "") -> bool:
        return disks.disk_ready(self._session, machine, disk_gb, disk=disk)

    def open_access(self, machine: Machine) -> None:
        network.open_access(self._session, machine)

    def list_leftovers(self) -> list[Leftover]:
        return leftovers.list_leftovers(self._session)

    def free(self, leftover: Leftover) -> None:
        leftovers.free(self._session, leftover)

    def list_foreign(self) -> list[Leftover]:
        return foreign.list_foreign(self._session)

    # --- SnapshotImages ---

    def create_image(self, machine: Machine, name: str, tags: Mapping[str, str]) -> OwnImage:
        """The machine is deallocated, and ends as a machine with this."""
        return snapshots.create_image(self._session, machine, name, tags)

    def describe_image(self, image: OwnImage) -> OwnImage:
        return snapshots.describe_image(self._session, image)

    def list_images(self) -> list[OwnImage]:
        return snapshots.list_images(self._session)

    def delete_image(self, image: OwnImage) -> None:
        snapshots.delete_image(self._session, image)

    def own_image(self, stack_hash: str, offer: Offer) -> str:
        return snapshots.own_image(self._session, stack_hash, offer)
