"""Amazon EC2 as a provider: one call launches, one describes all, two end them all.

session.py                        the account: regions and clients
offers.py prices.py quotas.py     what can be had, what it costs, how much of it
images.py                         the bootable disk of a stack
launch.py launched.py tags.py     RunInstances, once, whatever kills us meanwhile
instances.py power.py             states and times; stop, start, terminate
network.py addresses.py disks.py  the security group, fixed addresses, disks that grow
snapshots.py                      images of one's own
leftovers.py foreign.py           what stays behind; what others have
errors.py answers.py              refusals in our words; answers kept for a while
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from cloudrun.config import Settings
from cloudrun.errors import Refused
from cloudrun.images import OwnImage
from cloudrun.models import Guard, LaunchSpec, Machine, Market, Offer, Stack
from cloudrun.providers.aws import (
    disks,
    foreign,
    images,
    instances,
    launch,
    leftovers,
    network,
    offers,
    power,
    prices,
    snapshots,
)
from cloudrun.providers.aws.addresses import with_address
from cloudrun.providers.aws.session import Session
from cloudrun.providers.base import Leftover, Need


class AwsProvider:
    """Six verbs, Stoppable, SelfRelease, Batch, ResizableDisk, SpotHistory, Firewalled, SnapshotImages and
    Leftovers, Shared."""

    name = instances.PROVIDER
    grows_while_on = True

    def __init__(self, settings: Settings) -> None:
        self._session = Session(settings)

    def offers(self, need: Need) -> list[Offer]:
        return offers.find_offers(self._session, need)

    def find_image(self, stack: Stack, region: str) -> str:
        return images.find_image(self._session, stack, region)

    def launch(self, spec: LaunchSpec) -> Machine:
        """Two calls in a prepared account. Raises ConnectionLost where the answer was lost on its way:
        then the machine may be there, and the same launch again tells."""
        return launch.launch(self._session, spec)[0]

    def describe(self, machine: Machine) -> Machine:
        return self.describe_many([machine])[0]

    def terminate(self, machine: Machine) -> None:
        self.terminate_many([machine])

    def list_machines(self) -> list[Machine]:
        return instances.list_all(self._session)

    # --- Batch ---

    def launch_many(self, spec: LaunchSpec, count: int) -> list[Machine]:
        return launch.launch(self._session, spec, count)

    def describe_many(self, machines: Sequence[Machine]) -> list[Machine]:
        seen = instances.describe(self._session, machines)
        return [with_address(self._session, machine) for machine in seen]

    def terminate_many(self, machines: Sequence[Machine]) -> None:
        power.terminate(self._session, machines)

    # --- Stoppable ---

    def stop(self, machine: Machine) -> None:
        """Raises Refused for one-time spot, which EC2 cannot stop."""
        power.stop(self._session, machine)

    def start(self, machine: Machine) -> Machine:
        """The machine is PENDING then, at an address not yet known. Raises NoCapacity, also while it is
        still stopping, and NotFound when it is gone."""
        return power.start(self._session, machine)

    # --- SelfRelease ---

    def release_command(self, machine: Machine) -> tuple[str, ...]:  # noqa: ARG002  # the same on all
        """What a shutdown from inside does was said at the launch: see launch.py."""
        return launch.RELEASE

    def set_guard(self, machine: Machine, guard: Guard) -> None:
        power.set_guard(self._session, machine, guard)

    def notices(self, machine: Machine) -> str:
        return self.name if machine.market is Market.SPOT else ""

    def limits(self, offer: Offer) -> str:  # noqa: ARG002  # a shutdown from inside ends every kind
        return ""

    # --- SnapshotImages ---

    def create_image(self, machine: Machine, name: str, tags: Mapping[str, str]) -> OwnImage:
        return snapshots.create_image(self._session, machine, name, tags)

    def describe_image(self, image: OwnImage) -> OwnImage:
        return snapshots.describe_image(self._session, image)

    def list_images(self) -> list[OwnImage]:
        return snapshots.list_images(self._session)

    def delete_image(self, image: OwnImage) -> None:
        snapshots.delete_image(self._session, image)

    def own_image(self, stack_hash: str, offer: Offer) -> str:
        return snapshots.own_image(self._session, stack_hash, offer)

    # --- ResizableDisk, SpotHistory, Firewalled, Leftovers, Shared ---

    def resize_disk(self, machine: Machine, disk_gb: int, disk: str = "") -> None:
        if disk:
            raise Refused("only the disk that a machine boots from grows from here", hint="leave --disk out")
        disks.resize_disk(self._session, machine, disk_gb)

    def disk_ready(self, machine: Machine, disk_gb: int, disk: str = "") -> bool:  # noqa: ARG002  # its own
        return disks.disk_ready(self._session, machine, disk_gb)

    def spot_prices(
        self, machine: Machine, since: datetime, until: datetime
    ) -> list[tuple[datetime, Decimal]]:
        return prices.spot_prices(self._session, machine, since, until)

    def open_access(self, machine: Machine) -> None:
        network.open_access(self._session, machine)

    def list_leftovers(self) -> list[Leftover]:
        return leftovers.list_leftovers(self._session)

    def free(self, leftover: Leftover) -> None:
        leftovers.free(self._session, leftover)

    def list_foreign(self) -> list[Leftover]:
        return foreign.list_foreign(self._session)
