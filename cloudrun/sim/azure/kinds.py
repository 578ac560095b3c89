"""Kinds of resources: the seam at which a new one is added.

A kind says its type, its schema and what is special about it by overriding the methods below; being
put, got, listed, tagged and deleted, with long-running operations around it, it has from here. Register
it with AzureDouble's list (double.py); calls that are its own (actions) come from its routes().
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from cloudrun.sim.azure import validate
from cloudrun.sim.azure.operations import Operation, Operations
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import SUBSCRIPTION, Resource, World
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

_HOME = "/subscriptions/{subscription}"
_GROUP = _HOME + "/resourceGroups/{group}"


@dataclass(frozen=True, slots=True)
class Put:
    """A PUT on its way: `resource` has the new body; `before` is the one that it replaces, if any."""

    request: Request
    resource: Resource
    before: Body | None


class Kind:
    """A kind of resource, with what Azure's services do alike. All methods run under the world's lock."""

    type: ClassVar[str] = ""  # Microsoft.Network/virtualNetworks/subnets
    schema: ClassVar[str] = ""  # FILE:KIND in schemas/
    rank: ClassVar[int] = 0  # a group's members go in this order
    word: ClassVar[str] = "operations"  # in the addresses of its operations
    put_status: ClassVar[tuple[int, int]] = (201, 200)  # of a PUT that makes one, of one that changes it
    put_location: ClassVar[bool] = False  # whether a PUT's answer has Location beside Azure-AsyncOperation
    notifies: ClassVar[bool] = False  # Azure-AsyncNotification is among the headers
    extras: ClassVar[tuple[str, ...]] = ("tags", "sku", "zones", "identity")  # shown beside properties

    def __init__(self, world: World, operations: Operations) -> None:
        self.world = world
        self.operations = operations
        world.kinds[self.type.lower()] = self

    # What is special about a kind

    def fill(self, put: Put) -> None:
        """Complete a new body (put.resource.body) with Azure's defaults, or raise ApiError.

        Called before anything is stored.
        """

    def stored(self, put: Put) -> None:
        """It is in the world now, its operation not yet done."""

    def settle(self, resource: Resource) -> None:
        """The operation of its PUT is done; may raise ApiError, which is how that operation failed."""

    def failed(self, resource: Resource, error: ApiError) -> None:
        """The operation of its PUT has failed; it stays, in state Failed."""

    def patch(self, request: Request, resource: Resource) -> Reply:
        """A PATCH. Tags alone, at once, unless a kind can do more."""
        body = request.json()
        self._only_tags(body)
        resource.body["tags"] = body.get("tags") or {}
        resource.touch()
        return Reply(200, self.show(resource), self._notification())

    def check_delete(self, resource: Resource) -> None:
        """Raises ApiError where it is in use."""

    def deleting(self, resource: Resource) -> None:
        """Its deletion was accepted."""

    def deleted(self, resource: Resource) -> None:
        """It is out of the world."""

    def references(self, resource: Resource) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - others use it
        """(id of a resource that it needs, id of the part of it that does)."""
        yield from ()

    def view(self, resource: Resource) -> Body:
        """Its properties as Azure shows them."""
        return {"provisioningState": resource.state, **deepcopy(resource.properties)}

    def put_delay_s(self) -> float:
        return self.world.delays.network_s

    def delete_delay_s(self) -> float:
        return self.world.delays.network_s

    # What all have

    @property
    def namespace(self) -> str:
        return self.type.partition("/")[0]

    @property
    def segments(self) -> list[str]:
        """virtualNetworks, subnets."""
        return self.type.split("/")[1:]

    def id_of(self, group: str, names: tuple[str, ...]) -> str:
        parts = [part for pair in zip(self.segments, names, strict=True) for part in pair]
        return "/".join(
            [f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/{self.namespace}", *parts]
        )

    def show(self, resource: Resource) -> Body:
        """It as Azure shows it."""
        shown: Body = {"name": resource.name, "id": resource.id, "type": self.type}
        if len(resource.names) == 1:
            shown["location"] = resource.location
        shown |= {name: deepcopy(resource.body[name]) for name in self.extras if resource.body.get(name)}
        shown["properties"] = self.view(resource)
        return shown

    def show_new(self, resource: Resource) -> Body:
        """It as a PUT answers it."""
        return self.show(resource)

    def routes(self) -> list[Route]:
        """Its calls. A kind with actions adds its own."""
        child = "".join(f"/{segment}/{{name{at}}}" for at, segment in enumerate(self.segments))
        one = f"{_GROUP}/providers/{self.namespace}{child}"
        many = one.rpartition("/")[0]
        routes = [
            Route("PUT", one, f"{self.type}/write", self._put),
            Route("PATCH", one, f"{self.type}/write", self._patch),
            Route("GET", one, f"{self.type}/read", self.get),
            Route("DELETE", one, f"{self.type}/delete", self._delete),
            Route("GET", many, f"{self.type}/read", self._list),
        ]
        if len(self.segments) == 1:
            everywhere = f"{_HOME}/providers/{self.type}"
            routes.append(Route("GET", everywhere, f"{self.type}/read", self._list))
        return routes

    def named(self, request: Request) -> Resource:
        """The resource that a call's address names. Raises ApiError 404."""
        group = self.world.group(request.params["group"])
        names = _names(request)
        found = self.world.get(self.id_of(group.name, names))
        if found is None:
            short = "/".join([self.type.rpartition("/")[0], self.segments[-1], *names])
            raise ApiError(
                "ResourceNotFound",
                f"The Resource '{short}' under resource group '{group.name}' was not found. For more details "
                "please go to https://aka.ms/ARMResourceNotFoundFix",
            )
        return found

    def get(self, request: Request) -> Reply:
        found = self.named(request)
        return Reply(200, self.show(found), {"ETag": f'W/"{found.etag}"'})

    def start(self, request: Request, resource: Resource, *, word: str | None = None) -> Operation:
        """An operation on one; the caller ends it (Operations.end_after, finish, fail)."""
        return self.operations.open(request, self.namespace, resource.location, word or self.word)

    def _put(self, request: Request) -> Reply:
        body = deepcopy(request.json())
        validate.check(self.schema, body)
        group = self.world.group(request.params["group"], for_writing=True)
        names = _names(request)
        old = self.world.get(self.id_of(group.name, names))
        location = self._location(request, body, group.name, names)
        resource = Resource(self, group.name, names, location, body)
        if old is not None:
            self._check_change(old, location)
        self.fill(Put(request, resource, old.body if old else None))
        if old is not None:
            before, old.body, old.state = old.body, resource.body, "Updating"
            old.touch()
            resource = old
        else:
            before = None
            self.world.add(resource)
        self.stored(Put(request, resource, before))
        return self.accept_put(request, resource, made=before is None)

    def accept_put(self, request: Request, resource: Resource, *, made: bool) -> Reply:
        """Start the operation of a PUT and answer it."""
        operation = self.start(request, resource)

        def done() -> Body:
            self.settle(resource)
            resource.state = "Succeeded"
            resource.touch()
            return self.show(resource)

        self.operations.end_after(
            operation, self.put_delay_s(), done, lambda error: self._fail(resource, error)
        )
        headers = operation.headers(request.base_url, location=self.put_location)
        status = self.put_status[0 if made else 1]
        return Reply(status, self.show_new(resource), headers | self._notification())

    def _fail(self, resource: Resource, error: ApiError) -> None:
        resource.state = "Failed"
        self.failed(resource, error)

    def _patch(self, request: Request) -> Reply:
        body = request.json()
        validate.check(self.schema, body, partial=True)
        self.world.group(request.params["group"], for_writing=True)
        found = self.named(request)
        request.region = found.location
        return self.patch(request, found)

    def _delete(self, request: Request) -> Reply:
        self.world.group(request.params["group"], for_writing=True)
        try:
            found = self.named(request)
        except ApiError:
            return Reply(204)
        request.region = found.location
        self.check_delete(found)
        operation = self.start(request, found)
        before, found.state = found.state, "Deleting"
        self.deleting(found)

        def failed(error: ApiError) -> None:
            found.state = before if error is operation.late else "Failed"

        self.operations.end_after(operation, self.delete_delay_s(), lambda: self.drop(found), failed)
        return Reply(202, None, operation.headers(request.base_url) | self._notification())

    def drop(self, resource: Resource) -> None:
        """It goes, whoever uses it: checks were made before. Idempotent."""
        if self.world.get(resource.id) is resource:
            self.world.remove(resource)
            self.deleted(resource)

    def _list(self, request: Request) -> Reply:
        names = _names(request)
        group = self.world.group(request.params["group"]).name if "group" in request.params else ""
        found = self.world.resources(type=self.type, group=group)
        shown = [
            self.show(each)
            for each in found
            if [part.lower() for part in each.names[: len(names)]] == [part.lower() for part in names]
        ]
        return Reply(200, {"value": shown})

    def _location(self, request: Request, body: Body, group: str, names: tuple[str, ...]) -> str:
        if len(names) > 1:
            parent = self.parent(group, names)
            request.region = parent.location
            return parent.location
        location = str(body.get("location", "")).replace(" ", "").lower()
        if not location:
            raise ApiError("LocationRequired", "The location property is required for this definition.", 400)
        request.region = location
        return location

    def parent(self, group: str, names: tuple[str, ...]) -> Resource:
        """The resource that a child is in. Raises ApiError 404."""
        kind = self.world.kinds[self.type.rpartition("/")[0].lower()]
        found = self.world.get(kind.id_of(group, names[:-1]))
        if found is None:
            raise ApiError(
                "ParentResourceNotFound",
                f"Can not perform requested operation on nested resource. Parent resource '{names[-2]}' not "
                "found.",
                404,
            )
        return found

    def _check_change(self, old: Resource, location: str) -> None:
        if old.location != location:
            raise ApiError(
                "InvalidResourceLocation",
                f"The resource '{old.name}' already exists in location '{old.location}' in resource group "
                f"'{old.group}'. A resource with the same name cannot be created in location '{location}'. "
                "Please select a new resource name.",
            )
        if old.state == "Deleting":
            raise ApiError(
                "AnotherOperationInProgress",
                f"Another operation on this or dependent resource is in progress: '{old.id}' is being "
                "deleted.",
            )

    def _only_tags(self, body: Body) -> None:
        others = sorted(set(body) - {"tags"})
        if others:
            raise ApiError(
                "InvalidRequestContent", f"A PATCH of {self.type} takes tags alone, not {others}.", 400
            )

    def _notification(self) -> dict[str, str]:
        return {"Azure-AsyncNotification": "Enabled"} if self.notifies else {}


def _names(request: Request) -> tuple[str, ...]:
    """The names in a call's address, the outermost first."""
    return tuple(
        value
        for name, value in sorted(request.params.items())
        if name.startswith("name") and name[4:].isdigit()
    )
