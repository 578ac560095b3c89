"""What the double knows: resource groups, resources, and all that was set. One object, one lock."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudrun.sim.azure.authorization import Authorization
from cloudrun.sim.azure.faults import Fault, target_of
from cloudrun.sim.azure.tokens import Tokens
from cloudrun.sim.azure.wire import ApiError, Body, Request
from cloudrun.sim.clock import Timers
from cloudrun.sim.faults import Faults

if TYPE_CHECKING:
    from cloudrun.sim.azure.kinds import Kind
    from cloudrun.sim.machine import MachineHost

SUBSCRIPTION = "5c1f6a5e-0000-4000-8000-c10d12ea4001"  # the one that there is


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take, in seconds. Azure's are longer: these keep a rehearsal short."""

    call_s: float = 0.0  # every call
    poll_s: float = 0.05  # what clients are told to wait between two looks at an operation
    network_s: float = 0.05
    disk_s: float = 0.1
    group_s: float = 0.1  # until a group that is deleted is gone, after its members
    creating_s: float = 0.3
    starting_s: float = 0.3
    deallocating_s: float = 0.3
    deleting_s: float = 0.2
    grace_s: float = 2.0  # what a stopping system gets to end by itself


@dataclass(eq=False, slots=True)
class Group:
    """A resource group."""

    name: str
    location: str
    tags: dict[str, str]
    state: str = "Succeeded"

    @property
    def id(self) -> str:
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{self.name}"


@dataclass(eq=False, slots=True)
class Resource:
    """A resource of some kind. `body` is what was asked for, completed; `state` its provisioning state.

    A child (a subnet, a rule) has its parent's names before its own, and no location of its own.
    """

    kind: Kind
    group: str
    names: tuple[str, ...]
    location: str
    body: Body
    state: str = "Updating"
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def id(self) -> str:
        return self.kind.id_of(self.group, self.names)

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = self.body.get("tags") or {}
        return tags

    @property
    def properties(self) -> Body:
        properties: Body = self.body.setdefault("properties", {})
        return properties

    def touch(self) -> None:
        """It was changed: it gets a new etag."""
        self.etag = str(uuid.uuid4())


class World:
    """All of it. `lock` is held around every call and every change of a state, never around a boot."""

    def __init__(self, host: MachineHost | None, delays: Delays) -> None:
        self.host = host
        self.delays = delays
        self.lock = threading.RLock()
        self.timers = Timers()
        self.tokens = Tokens()
        self.authorization = Authorization(self.tokens.caller, f"/subscriptions/{SUBSCRIPTION}")
        self.faults: Faults[Fault] = Faults()
        self.groups: dict[str, Group] = {}  # by name in lower case
        self.kinds: dict[str, Kind] = {}  # by type in lower case
        self._resources: dict[str, Resource] = {}  # by id in lower case

    def group(self, name: str, *, for_writing: bool = False) -> Group:
        """The group. Raises ApiError where there is none; for_writing, also where it is going."""
        found = self.groups.get(name.lower())
        if found is None:
            raise ApiError("ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
        if for_writing and found.state == "Deleting":
            raise ApiError(
                "ResourceGroupBeingDeleted",
                f"The resource group '{name}' is in deprovisioning state and cannot perform this operation.",
            )
        return found

    def add(self, resource: Resource) -> None:
        self._resources[resource.id.lower()] = resource

    def remove(self, resource: Resource) -> None:
        """It is gone, and all rights that were given on it. Idempotent."""
        self._resources.pop(resource.id.lower(), None)
        self.authorization.forget_scope(resource.id)

    def get(self, id: str) -> Resource | None:
        return self._resources.get(id.lower())

    def resources(self, *, type: str = "", group: str = "") -> list[Resource]:
        """Those of a type and in a group, oldest first; "" is any."""
        return [
            each
            for each in self._resources.values()
            if type.lower() in ("", each.kind.type.lower()) and group.lower() in ("", each.group.lower())
        ]

    def children(self, parent: Resource, type: str) -> list[Resource]:
        """Its children of that type, oldest first."""
        start = f"{parent.id.lower()}/"
        return [each for each in self.resources(type=type) if each.id.lower().startswith(start)]

    def referring(self, id: str) -> Iterator[tuple[Resource, str]]:
        """Resources that name this one, each with the id of the part of it that does."""
        for each in list(self._resources.values()):
            for target, part in each.kind.references(each):
                if target.lower() == id.lower():
                    yield each, part

    def refuse_or_pass(self, request: Request, *, type: str, market: str) -> None:
        """Faults that name a size or a market, once a call's are known. Raises, or sets `late`."""
        fault = self.faults.take(
            target_of(request.operation, request.region, type=type, market=market), machine=True
        )
        if fault is None:
            return
        if not fault.late:
            raise fault.error()
        request.late = fault.error()
