"""What the double knows beside moto: instances with their machines, spot requests, and what was set."""

from __future__ import annotations

import random
import string
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudrun.models import Market
from cloudrun.sim.aws.backend import Backend
from cloudrun.sim.aws.faults import Fault
from cloudrun.sim.aws.prices import SpotPrices
from cloudrun.sim.aws.quotas import Quotas, quota_code
from cloudrun.sim.aws.wire import Form
from cloudrun.sim.capacity import Capacity
from cloudrun.sim.clock import Timers
from cloudrun.sim.faults import Faults
from cloudrun.sim.spec import SimMachine

if TYPE_CHECKING:
    from cloudrun.sim.aws.images import KeptDisk
    from cloudrun.sim.machine import MachineHost

COUNTED = (
    "pending",
    "running",
)  # states whose vCPUs count against a quota (EC2 user guide, "On-Demand quotas")
GONE = ("shutting-down", "terminated")
STOPPED_BY_USER = "instance-stopped-by-user"


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take, in seconds. EC2's are longer: these keep a rehearsal short."""

    pending_s: float = 1.0
    stopping_s: float = 0.5
    shutting_down_s: float = 0.5
    grace_s: float = 2.0  # what a stopping system gets to end by itself
    modifying_s: float = 0.5  # until a volume's new size is there
    optimizing_s: float = 1.0
    imaging_s: float = 1.0  # until a disk is kept as an image
    refill_s: float = 2.0  # until EC2 fulfils a persistent request again


@dataclass(slots=True)
class SimInstance:
    """An instance, what made it and the machine behind it."""

    id: str
    region: str
    zone: str
    type: str
    market: Market
    vcpus: int
    form: Form = field(repr=False)  # of its launch, completed
    reservation: str
    index: int  # among those of its launch
    state: str = "pending"
    reason: str = ""  # code of the state's reason
    request_id: str = ""  # of its spot request
    visible_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    notice: tuple[str, datetime] | None = None  # what EC2 will do to it, and when
    machine: SimMachine | None = None
    holds_capacity: bool = True
    machine_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


@dataclass(slots=True)
class SpotRequest:
    """A request for spot. Persistent ones are fulfilled again when their machine is lost."""

    id: str
    region: str
    zone: str
    type: str
    persistent: bool
    max_price: str  # as sent, "" for none
    on_interruption: str  # terminate | stop | hibernate
    form: Form = field(repr=False)
    created_at: datetime
    instance_id: str = ""
    state: str = "active"  # open | active | disabled | closed | cancelled
    status: str = "fulfilled"
    status_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def become(self, state: str, status: str) -> None:
        self.state, self.status, self.status_at = state, status, datetime.now(UTC)


@dataclass(slots=True)
class Launch:
    """A launch that had a client token: the same request gives the same instances."""

    fingerprint: str
    reservation: str
    instance_ids: list[str]


class World:
    """All of it. `lock` is held around every call and every change of a state, never around a boot."""

    def __init__(self, host: MachineHost | None, delays: Delays, seed: int) -> None:
        self.host = host
        self.delays = delays
        self.lock = threading.RLock()
        self.timers = Timers()
        self.backend = Backend()
        self.spot_prices = SpotPrices(seed)
        self.quotas = Quotas()
        self.capacity = Capacity()
        self.faults: Faults[Fault] = Faults()
        self.visible_after_s = 0.0
        self.instances: dict[str, SimInstance] = {}
        self.requests: dict[str, SpotRequest] = {}
        self.launches: dict[tuple[str, str], Launch] = {}  # by region and token
        self.kept_disks: dict[str, KeptDisk] = {}  # by image, those of the account

    def in_region(self, region: str) -> Iterator[SimInstance]:
        return (each for each in self.instances.values() if each.region == region)

    def hidden(self, region: str) -> set[str]:
        """Instances that were made, but that other calls do not see yet."""
        now = datetime.now(UTC)
        return {each.id for each in self.in_region(region) if each.visible_at > now}

    def vcpus_used(self, region: str, code: str) -> int:
        """vCPUs that count against a quota."""
        return sum(
            each.vcpus
            for each in self.in_region(region)
            if each.state in COUNTED and quota_code(each.type, each.market) == code
        )

    def new_request_id(self) -> str:
        letters = string.ascii_lowercase + string.digits
        return "sir-" + "".join(random.choices(letters, k=8))  # noqa: S311 - a name, no secret

    def release_capacity(self, instance: SimInstance) -> None:
        if instance.holds_capacity:
            instance.holds_capacity = False
            self.capacity.take(instance.type, instance.zone, instance.market, -1)
