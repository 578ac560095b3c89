"""Resource groups, and what is asked about resources of every kind: lists, tags, providers."""

from __future__ import annotations

import base64
import re
from typing import Any

from cloudrun.sim.azure.operations import Operations
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import SUBSCRIPTION, Group, Resource, World
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request, timestamp

TYPE = "Microsoft.Resources/resourceGroups"
PAGE = 1000  # most items of one answer
_RIGHT = "Microsoft.Resources/subscriptions/resourceGroups"
_HOME = "/subscriptions/{subscription}"
_ONE = _HOME + "/resourceGroups/{group}"
_NAME = re.compile(r"[\w().-]{0,89}[\w()-]")
_FILTER = re.compile(r"(tagName|tagValue|resourceType|name)\s+eq\s+'((?:[^']|'')*)'", re.IGNORECASE)
_NAMESPACES = ("Microsoft.Compute", "Microsoft.Network", "Microsoft.Resources", "Microsoft.Authorization")


class Groups:
    """Handlers of these calls."""

    def __init__(self, world: World, operations: Operations) -> None:
        self._world = world
        self._operations = operations

    def routes(self) -> list[Route]:
        tags = "{scope:path}/providers/Microsoft.Resources/tags/default"
        return [
            Route("PUT", _ONE, f"{_RIGHT}/write", self._put),
            Route("PATCH", _ONE, f"{_RIGHT}/write", self._patch),
            Route("GET", _ONE, f"{_RIGHT}/read", self._get),
            Route("HEAD", _ONE, f"{_RIGHT}/read", self._head),
            Route("DELETE", _ONE, f"{_RIGHT}/delete", self._delete),
            Route("GET", f"{_HOME}/resourceGroups", f"{_RIGHT}/read", self._list),
            Route("GET", f"{_ONE}/resources", f"{_RIGHT}/resources/read", self._list_resources),
            Route(
                "GET",
                f"{_HOME}/resources",
                "Microsoft.Resources/subscriptions/resources/read",
                self._list_resources,
            ),
            Route("GET", tags, "Microsoft.Resources/tags/read", self._get_tags),
            Route("PUT", tags, "Microsoft.Resources/tags/write", self._write_tags),
            Route("PATCH", tags, "Microsoft.Resources/tags/write", self._write_tags),
            Route("GET", f"{_HOME}/providers/{{namespace}}", "{namespace}/read", self._provider),
            Route(
                "POST",
                f"{_HOME}/providers/{{namespace}}/register",
                "{namespace}/register/action",
                self._provider,
            ),
            Route("GET", _HOME, "Microsoft.Resources/subscriptions/read", self._subscription),
        ]

    def _put(self, request: Request) -> Reply:
        body, name = request.json(), request.params["group"]
        _check_body(body)
        if not _NAME.fullmatch(name):
            raise ApiError("InvalidResourceGroup", f"The resource group name '{name}' is not valid.", 400)
        location = str(body.get("location", "")).replace(" ", "").lower()
        if not location:
            raise ApiError("LocationRequired", "The location property is required for this definition.", 400)
        request.region = location
        old = self._world.groups.get(name.lower())
        if old is None:
            made = Group(name, location, dict(body.get("tags") or {}))
            self._world.groups[name.lower()] = made
            return Reply(201, _show(made))
        self._world.group(name, for_writing=True)
        if old.location != location:
            raise ApiError(
                "InvalidResourceGroupLocation",
                f"Invalid resource group location '{location}'. The Resource group already exists in "
                f"location '{old.location}'.",
            )
        old.tags = dict(body.get("tags") or {})
        return Reply(200, _show(old))

    def _patch(self, request: Request) -> Reply:
        body = request.json()
        _check_body(body)
        found = self._world.group(request.params["group"], for_writing=True)
        if "tags" in body:
            found.tags = dict(body["tags"] or {})
        return Reply(200, _show(found))

    def _get(self, request: Request) -> Reply:
        found = self._world.group(request.params["group"])
        request.region = found.location
        return Reply(200, _show(found))

    def _head(self, request: Request) -> Reply:
        there = request.params["group"].lower() in self._world.groups
        return Reply(204) if there else Reply(404, headers={"x-ms-failure-cause": "gateway"}, code="404")

    def _delete(self, request: Request) -> Reply:
        """The group and all in it go, in the order in which they need each other."""
        group = self._world.group(request.params["group"])
        request.region = group.location
        operation = self._operations.open(request, "Microsoft.Resources", group.location)
        group.state = "Deleting"
        members = self._members(group)
        for each in members:
            each.state = "Deleting"
            each.kind.deleting(each)
        delay_s = max((each.kind.delete_delay_s() for each in members), default=0.0)

        def done() -> None:
            self._drop(group)

        def failed(_: ApiError) -> None:
            group.state = "Succeeded"
            for each in self._members(group):
                each.state = "Succeeded"

        self._operations.end_after(operation, delay_s + self._world.delays.group_s, done, failed)
        headers = operation.headers(request.base_url, ask=False, location=False)
        place = f"{request.base_url}/subscriptions/{SUBSCRIPTION}/operationresults/{operation.id}"
        return Reply(202, None, {**headers, "Location": f"{place}?api-version={request.api_version}"})

    def _members(self, group: Group) -> list[Resource]:
        return sorted(self._world.resources(group=group.name), key=lambda each: each.kind.rank)

    def _drop(self, group: Group) -> None:
        """Raises ApiError where somebody outside the group uses what is in it; the rest is gone then."""
        if self._world.groups.get(group.name.lower()) is not group:
            return  # an earlier call to delete it was quicker
        stuck = []
        for each in self._members(group):
            if len(each.names) > 1:
                continue  # it goes with its parent
            try:
                each.kind.check_delete(each)
            except ApiError as error:
                stuck.append({"code": error.code, "message": error.message, "target": each.id})
                continue
            each.kind.drop(each)
        if stuck:
            names = ",".join(each["target"].partition("/providers/")[2] for each in stuck)
            raise ApiError(
                "ResourceGroupDeletionBlocked",
                f"Deletion of resource group '{group.name}' failed as resources with identifiers '{names}' "
                "could not be deleted. The provisioning state of the resource group will be rolled back.",
                details=stuck,
            )
        self._world.groups.pop(group.name.lower(), None)
        self._world.authorization.forget_scope(group.id)

    def _list(self, request: Request) -> Reply:
        wanted = _filters(request)
        found = [each for each in self._world.groups.values() if _has_tag(each.tags, wanted)]
        return page(request, [_show(each) for each in found])

    def _list_resources(self, request: Request) -> Reply:
        """Resources that have a place and tags of their own: no subnets, no rules."""
        group = self._world.group(request.params["group"]).name if "group" in request.params else ""
        wanted = _filters(request)
        found = [
            each
            for each in self._world.resources(type=wanted.get("resourcetype", ""), group=group)
            if len(each.names) == 1
            and _has_tag(each.tags, wanted)
            and wanted.get("name", each.name).lower() == each.name.lower()
        ]
        wanted_too = request.query.get("$expand", "").split(",")
        return page(request, [_show_generic(each, "createdTime" in wanted_too) for each in found])

    def _get_tags(self, request: Request) -> Reply:
        return Reply(200, _show_tags(request, self._tagged(request)))

    def _write_tags(self, request: Request) -> Reply:
        """PUT replaces all; PATCH merges, replaces or deletes, as its `operation` says."""
        body, found = request.json(), self._tagged(request)
        told: dict[str, str] = (body.get("properties") or {}).get("tags") or {}
        how = str(body.get("operation", "Merge")).lower() if request.method == "PATCH" else "replace"
        if how == "merge":
            tags = {**_tags(found), **told}
        elif how == "delete":
            tags = {name: value for name, value in _tags(found).items() if told.get(name) != value}
        else:
            tags = dict(told)
        if isinstance(found, Group):
            found.tags = tags
        else:
            found.body["tags"] = tags
            found.touch()
        return Reply(200, _show_tags(request, found))

    def _tagged(self, request: Request) -> Group | Resource:
        scope = request.params["scope"]
        parts = scope.strip("/").split("/")
        if len(parts) == 4:
            return self._world.group(parts[3])
        found = self._world.get(scope)
        if found is None:
            raise ApiError("ResourceNotFound", f"The Resource '{scope}' was not found.")
        request.region = found.location
        return found

    def _provider(self, request: Request) -> Reply:
        name = request.params["namespace"]
        known = {each.lower(): each for each in _NAMESPACES}
        if name.lower() not in known:
            raise ApiError("InvalidResourceNamespace", f"The resource namespace '{name}' is invalid.", 404)
        canonical = known[name.lower()]
        return Reply(
            200,
            {
                "id": f"/subscriptions/{SUBSCRIPTION}/providers/{canonical}",
                "namespace": canonical,
                "registrationPolicy": "RegistrationRequired",
                "registrationState": "Registered",
                "resourceTypes": [],
            },
        )

    def _subscription(self, _: Request) -> Reply:
        return Reply(
            200,
            {
                "id": f"/subscriptions/{SUBSCRIPTION}",
                "subscriptionId": SUBSCRIPTION,
                "displayName": "rehearsal",
                "state": "Enabled",
                "tenantId": self._world.tokens.tenant,
            },
        )


def page(request: Request, items: list[Any]) -> Reply:
    """$top of them (or a page), and where the next ones are."""
    start = _start(request.query.get("$skiptoken", ""))
    size = min(int(request.query.get("$top") or PAGE), PAGE)
    body: Body = {"value": items[start : start + size]}
    if len(items) > start + size:
        token = base64.urlsafe_b64encode(str(start + size).encode()).decode()
        kept = re.sub(r"&?(%24|\$)skiptoken=[^&]*", "", request.environ.get("QUERY_STRING", ""))
        body["nextLink"] = f"{request.base_url}{request.path}?{kept}&%24skiptoken={token}"
    return Reply(200, body)


def _start(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token.encode()) or b"0")
    except ValueError as error:
        raise ApiError("InvalidSkipToken", "The skip token is invalid.", 400) from error


def _check_body(body: Body) -> None:
    """Groups have no schema: these are all that a client may send."""
    unknown = sorted(set(body) - {"location", "tags", "managedBy", "name", "properties", "id", "type"})
    tags = body.get("tags") or {}
    if unknown or not all(isinstance(value, str) for value in tags.values()):
        raise ApiError(
            "InvalidRequestContent",
            f"The request content was invalid and could not be deserialized: {unknown or 'tags are texts'}.",
            400,
        )


def _filters(request: Request) -> dict[str, str]:
    """$filter=tagName eq 'a' and tagValue eq 'b'. Raises ApiError for what it does not know."""
    text = request.query.get("$filter", "")
    found = {name.lower(): value.replace("''", "'") for name, value in _FILTER.findall(text)}
    rest = re.sub(r"\band\b|[\s()]", "", _FILTER.sub("", text))
    if rest:
        raise ApiError("InvalidFilterInQueryString", f"Invalid $filter '{text}' specified.", 400)
    return found


def _has_tag(tags: dict[str, str], wanted: dict[str, str]) -> bool:
    if "tagname" not in wanted:
        return True
    by_name = {name.lower(): value for name, value in tags.items()}
    if wanted["tagname"].lower() not in by_name:
        return False
    return wanted.get("tagvalue") in (None, by_name[wanted["tagname"].lower()])


def _show(group: Group) -> Body:
    shown: Body = {
        "id": group.id,
        "name": group.name,
        "type": TYPE,
        "location": group.location,
        "properties": {"provisioningState": group.state},
    }
    return {**shown, "tags": dict(group.tags)} if group.tags else shown


def _show_generic(resource: Resource, with_time: bool) -> Body:
    shown: Body = {
        "id": resource.id,
        "name": resource.name,
        "type": resource.kind.type,
        "location": resource.location,
    }
    if with_time:
        shown["createdTime"] = timestamp(resource.created_at)
    for name in ("tags", "sku", "zones", "identity"):
        if resource.body.get(name):
            shown[name] = resource.body[name]
    return shown


def _tags(found: Group | Resource) -> dict[str, str]:
    return dict(found.tags)


def _show_tags(request: Request, found: Group | Resource) -> Body:
    return {
        "id": f"{request.params['scope']}/providers/Microsoft.Resources/tags/default",
        "name": "default",
        "type": "Microsoft.Resources/tags",
        "properties": {"tags": dict(found.tags)},
    }
