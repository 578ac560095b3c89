"""The interface between the road and a provider: six verbs, and abilities as small protocols.

Providers never wait, retry, print or choose: execute does. They take and return our frozen
records, and map every error of their SDK to one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Protocol, runtime_checkable

from cloudrun.images import OwnImage
from cloudrun.models import GpuNeed, Guard, LaunchSpec, Machine, Market, Offer, Stack


@dataclass(frozen=True, slots=True)
class Need:
    """What offers are wanted for. Empty fields do not restrict."""

    gpu: GpuNeed = field(default_factory=GpuNeed)
    type: str = ""
    market: Market | None = None
    regions: tuple[str, ...] = ()
    currency: str = ""  # quote prices in this one too, where the provider can

    @property
    def markets(self) -> tuple[Market, ...]:
        """The one that is wanted, else those that cost money."""
        return (self.market,) if self.market else (Market.ON_DEMAND, Market.SPOT)


class Provider(Protocol):
    """One account at one provider. Constructed with `Settings`; construction does no I/O."""

    name: str

    def offers(self, need: Need) -> list[Offer]:
        """Offers, cheapest first; live prices where the account can ask, else the catalogue's
        with their date. Blocking, no side effects. A missing price is None."""
        ...

    def find_image(self, stack: Stack, region: str) -> str:
        """The id of a bootable disk for the stack, "" where there is nothing to choose.
        Raises ImageNotFound."""
        ...

    def launch(self, spec: LaunchSpec) -> Machine:
        """Ask for one machine and return at once (address may be None). Idempotent by
        spec.token: a second call returns the same machine. Raises NoCapacity, Quota,
        Credentials, NotOffered."""
        ...

    def describe(self, machine: Machine) -> Machine:
        """The machine as it is now, with the provider's own times. PREEMPTED is distinct
        from TERMINATED; a machine that the provider no longer knows is TERMINATED."""
        ...

    def terminate(self, machine: Machine) -> None:
        """End it and free all that was made for it. Idempotent: silent when already gone."""
        ...

    def list_machines(self) -> list[Machine]:
        """Everything of ours (our tags) in every configured region, whoever launched it."""
        ...


@runtime_checkable
class Stoppable(Protocol):
    """Machines that keep their disk while off. Both return at once and are idempotent."""

    def stop(self, machine: Machine) -> None: ...
    def start(self, machine: Machine) -> Machine: ...


@runtime_checkable
class SelfRelease(Protocol):
    """How the guard ends the machine from inside."""

    def release_command(self, machine: Machine) -> tuple[str, ...]:
        """argv that the guard runs on the machine when its time is over; () where it cannot."""
        ...

    def set_guard(self, machine: Machine, guard: Guard) -> None:
        """Record a changed policy where the provider keeps one (tags); the agent is told by execute."""
        ...

    def notices(self, machine: Machine) -> str:
        """The metadata service that announces a preemption to the machine, by the agent's name for it
        ("aws"); "" where there is none."""
        ...

    def limits(self, offer: Offer) -> str:
        """What on such a machine does not end by itself, in one line for the plan; "" where all does.
        May ask the account what it may do (kept for a while). Raises nothing: what cannot be told is said."""
        ...


@runtime_checkable
class Batch(Protocol):
    """Many machines in few calls. Each is idempotent as its one-machine twin is."""

    def launch_many(self, spec: LaunchSpec, count: int) -> list[Machine]:
        """Machines of one kind, named NAME-1 to NAME-count; all of them or an error."""
        ...

    def describe_many(self, machines: Sequence[Machine]) -> list[Machine]:
        """As they are now, in the order given."""
        ...

    def terminate_many(self, machines: Sequence[Machine]) -> None: ...


@runtime_checkable
class ResizableDisk(Protocol):
    """Disks that grow. The file system on them is grown by a provisioning step, over SSH.

    `disk` names one that was attached beside the machine's own, which is "".
    """

    grows_while_on: bool  # False: the machine goes off and on again meanwhile

    def resize_disk(self, machine: Machine, disk_gb: int, disk: str = "") -> None:
        """Ask for it and return at once; nothing happens when it has that size. Raises Refused for less."""
        ...

    def disk_ready(self, machine: Machine, disk_gb: int, disk: str = "") -> bool:
        """Whether the machine can use that size by now. Takes the next step where that takes several; raises
        what the provider says where it refuses one of them."""
        ...


@runtime_checkable
class SpotHistory(Protocol):
    """What spot really cost while a machine ran."""

    def spot_prices(
        self, machine: Machine, since: datetime, until: datetime
    ) -> list[tuple[datetime, Decimal]]:
        """(from when, USD an hour) by time, the first at or before `since`. Empty when it cannot be told."""
        ...


@runtime_checkable
class Firewalled(Protocol):
    """Machines that only this computer's address may reach."""

    def open_access(self, machine: Machine) -> None:
        """Let this computer's address of now in, and its earlier one no more. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something at a provider and no machine of ours: a disk, address, group, spot request, image; and what
    belongs to somebody else of the same account, machines too."""

    provider: str
    region: str
    kind: str
    id: str
    name: str = ""
    ours: bool = True  # it carries our tags
    machine: str = ""  # name of the machine that it was made for
    run: str = ""  # id of the run that it was made for
    since: datetime | None = None  # made then; None where that is not told
    state: str = ""  # what else there is to say, in a word or two
    price_per_month_usd: Decimal | None = Decimal(0)  # None = unknown
    in_use: bool = False  # a live machine needs it, or somebody wants to keep it


@runtime_checkable
class Leftovers(Protocol):
    """What stays behind when machines go."""

    def list_leftovers(self) -> list[Leftover]:
        """Everything in every configured region that carries our tags and is no machine."""
        ...

    def free(self, leftover: Leftover) -> None:
        """Remove it. Idempotent. Raises ProviderError while something still needs it."""
        ...


@runtime_checkable
class SnapshotImages(Protocol):
    """Providers that keep a machine's disk as an image from which others boot.

    A machine that boots from one is a new one: host keys, users and boot payload are its own. A live machine
    that was launched from one says so in its detail, under images.IMAGE_FACT.
    """

    def create_image(self, machine: Machine, name: str, tags: Mapping[str, str]) -> OwnImage:
        """Ask for an image of the machine's own disk and return at once, its state PENDING. The tags
        (providers.tags.image_tags) go on it and on all that is stored for it. Idempotent by name: a second
        call returns the same image. The machine may be switched off for it; terminating it comes next.
        Raises Credentials, Quota, ProviderError."""
        ...

    def describe_image(self, image: OwnImage) -> OwnImage:
        """As it is now. Takes the next step where making one takes several. One that its provider does not
        know (any more) is FAILED."""
        ...

    def list_images(self) -> list[OwnImage]:
        """Everything with our tags in every region in use, of whatever state, oldest first."""
        ...

    def delete_image(self, image: OwnImage) -> None:
        """Remove it and all that is stored for it. Idempotent, also for one that is not ready yet."""
        ...

    def own_image(self, stack_hash: str, offer: Offer) -> str:
        """The id of the newest AVAILABLE one in the offer's region with that hash which its type boots, ""
        where there is none. It may be minutes old: a launch with one that is gone raises ImageNotFound. What
        this provider made available or deleted here is known at once."""
        ...


@runtime_checkable
class Shared(Protocol):
    """Accounts in which others work, too."""

    def list_foreign(self) -> list[Leftover]:
        """The machines, disks, snapshots, images and addresses in every configured region without our tags,
        with what they cost as far as the catalogue tells. To be shown, and never touched."""
        ...


@runtime_checkable
class Attachable(Protocol):
    """Providers whose machines exist already and are only made known to us."""

    def attach(self, name: str, target: str, *, host_key: str, key_path: str = "") -> Machine:
        """Make user@host[:port] known under name. host_key is the confirmed key line."""
        ...

    def scan_host_key(self, target: str) -> str:
        """The host key line that the host shows now, for the user to confirm."""
        ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a bucket. `key` is below the place that was opened; sha256 is "" where a listing does
    not tell (S3)."""

    key: str
    size: int  # bytes
    sha256: str  # hex
    modified_at: datetime


class Bucket(Protocol):
    """A place for objects: a bucket of S3 or a container of Azure Blob Storage, below a prefix.

    All methods block. They raise NotFound for a bucket or object that is not there, Credentials without
    credentials or rights, ProviderError where nobody answers, TransferFailed for content that is not what
    was stored. Safe for many threads.
    """

    url: str  # s3://bucket/prefix or az://container/prefix
    put_headers: Mapping[str, str]  # what a PUT to a signed address has to carry
    delete_at_once: int  # keys that one call of the service deletes

    @property
    def region(self) -> str:
        """Where it lies, asked for once; "" where the service does not tell."""
        ...

    def put(self, key: str, path: Path, sha256: str) -> None:
        """Store the file whole or not at all; the service itself checks what arrives. Idempotent: what has
        that key is replaced."""
        ...

    def get(self, key: str, to: Path) -> str:
        """Fetch an object to that path (folders are made) and return its sha256, verified against the one
        that was stored with it. Nothing is left at `to` unless all of it is right."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Everything whose key begins with prefix, by key, page by page."""
        ...

    def look(self, key: str) -> StoredObject | None:
        """One object without its content, with the sha256 that was stored with it; None for none there."""
        ...

    def folders(self) -> Iterator[str]:
        """The first part of every key that has several, each once, by name; what is in them is not listed."""
        ...

    def delete(self, keys: Sequence[str]) -> int:
        """Remove objects in as few calls as the service has (1,000 a call at S3, 256 at Blob); returns how
        many calls. Idempotent: what is not there counts as removed."""
        ...

    @property
    def signing_limit(self) -> str:
        """What may end a signature before its time, for people; "" for nothing."""
        ...

    def sign(self, key: str, method: str, ttl_s: float) -> str:
        """An address with which anybody may GET or PUT that one object for so long (at most 7 days)."""
        ...
