"""Who may do what: the caller's rights, role definitions and role assignments."""

from __future__ import annotations

import fnmatch
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request, timestamp

_NAMESPACE = "Microsoft.Authorization"
_EVERYTHING = ("*",)
_PLACE = "{scope:path}/providers/Microsoft.Authorization"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A role that somebody has on a scope and all below it."""

    name: str
    scope: str
    principal: str
    definition: str  # id, in lower case
    created: str

    @property
    def id(self) -> str:
        return f"{self.scope}/providers/{_NAMESPACE}/roleAssignments/{self.name}"


class Authorization:
    """Rights of the caller (what allow() said; all at first) and of machines (what was assigned)."""

    def __init__(self, caller: str, subscription: str) -> None:
        self._caller = caller
        self._subscription = subscription
        self._allowed: tuple[str, ...] = _EVERYTHING
        self._definitions: dict[str, Body] = {}  # by id in lower case
        self._assignments: dict[str, Assignment] = {}  # by id in lower case
        self.principals = {caller}  # object ids that there are: machines add theirs

    def allow(self, operations: Iterable[str] | None) -> None:
        """The caller may do these alone (* stands for anything); None: all."""
        self._allowed = _EVERYTHING if operations is None else tuple(operations)

    def check(self, principal: str, operation: str, scope: str) -> None:
        """Raises AuthorizationFailed."""
        if not self.may(principal, operation, scope):
            raise ApiError(
                "AuthorizationFailed",
                f"The client '{principal}' with object id '{principal}' does not have authorization to "
                f"perform action '{operation}' over scope '{scope}' or the scope is invalid. If access was "
                "recently granted, please refresh your credentials.",
            )

    def check_linked(self, request: Request, operation: str, scope: str) -> None:
        """A right on another resource that a call makes use of. Raises LinkedAuthorizationFailed."""
        request.linked.append(operation)
        if not self.may(request.principal, operation, scope):
            raise ApiError(
                "LinkedAuthorizationFailed",
                f"The client '{request.principal}' with object id '{request.principal}' has permission to "
                f"perform action '{request.operation}' on scope '{request.path}'; however, it does not have "
                f"permission to perform action(s) '{operation}' on the linked scope(s) '{scope}' "
                "(respectively) or the linked scope(s) are invalid.",
            )

    def may(self, principal: str, operation: str, scope: str) -> bool:
        if principal == self._caller:
            return _fits(operation, self._allowed)
        return any(
            _fits(operation, permission.get("actions", []))
            and not _fits(operation, permission.get("notActions", []))
            for each in self._assignments.values()
            if each.principal == principal and _below(scope, each.scope)
            for permission in self._permissions_of(each)
        )

    def forget_scope(self, scope: str) -> None:
        """A resource is gone: what was assigned on it or below it is gone too."""
        for key, each in list(self._assignments.items()):
            if _below(each.scope, scope):
                del self._assignments[key]

    def routes(self) -> list[Route]:
        definition = f"{_PLACE}/roleDefinitions/{{name}}"
        assignment = f"{_PLACE}/roleAssignments/{{name}}"
        right = f"{_NAMESPACE}/role"
        return [
            Route("GET", f"{_PLACE}/permissions", f"{_NAMESPACE}/permissions/read", self._permissions),
            Route("PUT", definition, f"{right}Definitions/write", self._put_definition),
            Route("GET", definition, f"{right}Definitions/read", self._get_definition),
            Route("DELETE", definition, f"{right}Definitions/delete", self._delete_definition),
            Route("GET", f"{_PLACE}/roleDefinitions", f"{right}Definitions/read", self._list_definitions),
            Route("PUT", assignment, f"{right}Assignments/write", self._put_assignment),
            Route("GET", assignment, f"{right}Assignments/read", self._get_assignment),
            Route("DELETE", assignment, f"{right}Assignments/delete", self._delete_assignment),
            Route("GET", f"{_PLACE}/roleAssignments", f"{right}Assignments/read", self._list_assignments),
        ]

    def _permissions(self, _: Request) -> Reply:
        """What the caller may do there, as role definitions word it."""
        return Reply(200, {"value": [{"actions": list(self._allowed), "notActions": []}]})

    def _put_definition(self, request: Request) -> Reply:
        properties = _properties(request)
        scopes = properties.get("assignableScopes") or []
        if not properties.get("roleName") or not scopes:
            raise ApiError("InvalidRoleDefinition", "A role needs a roleName and assignableScopes.", 400)
        key = self._definition_id(request.params["name"])
        for other, shown in self._definitions.items():
            if other != key.lower() and shown["properties"]["roleName"] == properties["roleName"]:
                raise ApiError(
                    "RoleDefinitionWithSameNameExists",
                    f"A custom role with the same name '{properties['roleName']}' already exists in this "
                    "directory. Use a different name.",
                )
        shown = {
            "id": key,
            "name": request.params["name"],
            "type": f"{_NAMESPACE}/roleDefinitions",
            "properties": {"description": "", "permissions": [], **properties, "type": "CustomRole"},
        }
        self._definitions[key.lower()] = shown
        return Reply(201, shown)

    def _get_definition(self, request: Request) -> Reply:
        return Reply(200, self._definition(request.params["name"]))

    def _delete_definition(self, request: Request) -> Reply:
        key = self._definition_id(request.params["name"]).lower()
        if any(each.definition == key for each in self._assignments.values()):
            raise ApiError("RoleDefinitionHasAssignments", "There are existing role assignments.", 400)
        gone = self._definitions.pop(key, None)
        return Reply(200, gone) if gone else Reply(204)

    def _list_definitions(self, request: Request) -> Reply:
        wanted = _filter_value(request, "roleName")
        shown = [
            each
            for each in self._definitions.values()
            if not wanted or each["properties"]["roleName"] == wanted
        ]
        return Reply(200, {"value": shown})

    def _put_assignment(self, request: Request) -> Reply:
        properties = _properties(request)
        principal = str(properties.get("principalId", ""))
        definition = str(properties.get("roleDefinitionId", "")).lower()
        _check_guid(request.params["name"])
        if definition not in self._definitions:
            raise ApiError(
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{definition.rpartition('/')[2]}' does not exist.",
                404,
            )
        if principal not in self.principals:
            raise ApiError(
                "PrincipalNotFound",
                f"Principal {principal} does not exist in the directory. Check that you have the correct "
                "principal ID.",
                400,
            )
        made = Assignment(request.params["name"], request.params["scope"], principal, definition, timestamp())
        same = next((each for each in self._assignments.values() if _same(each, made)), None)
        if same is not None and same.id.lower() != made.id.lower():
            raise ApiError("RoleAssignmentExists", "The role assignment already exists.")
        self._assignments[made.id.lower()] = made
        return Reply(201, self._show(made))

    def _get_assignment(self, request: Request) -> Reply:
        found = self._assignments.get(_assignment_id(request))
        if found is None:
            raise ApiError(
                "RoleAssignmentNotFound", f"The role assignment '{request.params['name']}' is not found.", 404
            )
        return Reply(200, self._show(found))

    def _delete_assignment(self, request: Request) -> Reply:
        gone = self._assignments.pop(_assignment_id(request), None)
        return Reply(200, self._show(gone)) if gone else Reply(204)

    def _list_assignments(self, request: Request) -> Reply:
        wanted = _filter_value(request, "principalId") or _filter_value(request, "assignedTo")
        scope = request.params["scope"]
        shown = [
            self._show(each)
            for each in self._assignments.values()
            if (not wanted or each.principal == wanted)
            and (_below(each.scope, scope) or _below(scope, each.scope))
        ]
        return Reply(200, {"value": shown})

    def _definition(self, name: str) -> Body:
        found = self._definitions.get(self._definition_id(name).lower())
        if found is None:
            raise ApiError(
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{name}' does not exist.",
                404,
            )
        return found

    def _definition_id(self, name: str) -> str:
        _check_guid(name)
        return f"{self._subscription}/providers/{_NAMESPACE}/roleDefinitions/{name}"

    def _permissions_of(self, assignment: Assignment) -> list[Body]:
        permissions: list[Body] = self._definitions[assignment.definition]["properties"]["permissions"]
        return permissions

    def _show(self, assignment: Assignment) -> Body:
        return {
            "id": assignment.id,
            "name": assignment.name,
            "type": f"{_NAMESPACE}/roleAssignments",
            "properties": {
                "scope": assignment.scope,
                "principalId": assignment.principal,
                "principalType": "ServicePrincipal",
                "roleDefinitionId": self._definitions[assignment.definition]["id"],
                "createdOn": assignment.created,
            },
        }


def _same(one: Assignment, other: Assignment) -> bool:
    """Whether they give the same role to the same one on the same scope."""
    return (one.scope.lower(), one.principal, one.definition) == (
        other.scope.lower(),
        other.principal,
        other.definition,
    )


def _properties(request: Request) -> Body:
    properties = request.json().get("properties")
    if not isinstance(properties, dict):
        raise ApiError("InvalidRequestContent", "The request content has no properties.", 400)
    return properties


def _assignment_id(request: Request) -> str:
    scope, name = request.params["scope"], request.params["name"]
    return f"{scope}/providers/{_NAMESPACE}/roleAssignments/{name}".lower()


def _filter_value(request: Request, name: str) -> str:
    """X of $filter=NAME eq 'X' or NAME('X'), "" where there is none."""
    text = request.query.get("$filter", "")
    if name.lower() not in text.lower() or "'" not in text:
        return ""
    return text.split("'")[1]


def _check_guid(name: str) -> None:
    try:
        uuid.UUID(name)
    except ValueError as error:
        raise ApiError("InvalidGuid", f"The name '{name}' is not a GUID.", 400) from error


def _fits(operation: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(operation.lower(), pattern.lower()) for pattern in patterns)


def _below(scope: str, above: str) -> bool:
    """Whether a scope is another one or stands below it."""
    scope, above = scope.lower().strip("/"), above.lower().strip("/")
    return scope == above or scope.startswith(f"{above}/")
