"""The right of a machine to deallocate itself, and no other: a role of our own, given for the machine alone.

Each machine has an identity (system-assigned) with which its guard calls Azure. The role is made once for a
subscription; a machine's assignment stands at the machine itself and goes with it. In a prepared subscription
this is one call a machine.

Rights that it takes: Microsoft.Authorization/roleAssignments/write, and for the first machine of a
subscription Microsoft.Authorization/roleDefinitions/write.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from azure.core.exceptions import HttpResponseError

from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.power import has_code
from cloudrun.providers.azure.session import Session

ROLE_NAME = "cloudrun self-release"
ACTIONS = (
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/virtualMachines/read",
)
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/cloudrun/cloudrun/azure")
DENIED = ("AuthorizationFailed", "LinkedAuthorizationFailed")
# The role is not there (any more), or not known everywhere yet: a new one takes up to some minutes.
NO_ROLE = ("RoleDefinitionDoesNotExist", "InvalidRoleDefinitionId")
THERE_ALREADY = ("RoleAssignmentExists",)


def let_release_itself(session: Session, vm: str, principal: str, *, region: str = "") -> bool:
    """Let the machine with that resource id deallocate itself; `principal` is its identity's object id.
    Idempotent. False where this account may not give rights: then the machine can only shut down.

    One call; two more where the subscription has no such role yet. Raises our errors for all other refusals.
    """
    with mapped(region=region, what="let the machine release itself"):
        try:
            _assign(session, vm, principal)
        except HttpResponseError as error:
            if has_code(error, DENIED):
                return False
            if not has_code(error, NO_ROLE):
                raise
            return _make_and_assign(session, vm, principal)
    return True


def role_id(session: Session) -> str:
    """The resource id of our role in the subscription, the same on every computer."""
    guid = uuid.uuid5(NAMESPACE, session.subscription.lower())
    return f"{session.scope}/providers/Microsoft.Authorization/roleDefinitions/{guid}"


def role(session: Session) -> dict[str, Any]:
    """Our role as Azure takes it. Its name has to be the only one in the whole directory, which may have
    several subscriptions."""
    return {
        "properties": {
            "roleName": f"{ROLE_NAME} ({session.subscription.partition('-')[0]})",
            "description": "A machine of cloudrun may deallocate itself when its time is over.",
            "type": "CustomRole",
            "permissions": [{"actions": list(ACTIONS), "notActions": []}],
            "assignableScopes": [session.scope],
        }
    }


def _make_and_assign(session: Session, vm: str, principal: str) -> bool:
    guid = role_id(session).rpartition("/")[2]
    try:
        session.authorization.role_definitions.create_or_update(session.scope, guid, role(session))
        _assign(session, vm, principal)
    except HttpResponseError as error:
        if has_code(error, (*DENIED, *NO_ROLE)):  # the next machine will find it
            return False
        raise
    return True


def _assign(session: Session, vm: str, principal: str) -> None:
    """Named for machine and identity: said twice it is the same one. With principalType Azure does not look
    the identity up, which its directory may not know yet (PrincipalNotFound)."""
    guid = uuid.uuid5(NAMESPACE, f"{vm} {principal}".lower())
    wanted: Mapping[str, Any] = {
        "properties": {
            "roleDefinitionId": role_id(session),
            "principalId": principal,
            "principalType": "ServicePrincipal",
        }
    }
    try:
        session.authorization.role_assignments.create(vm, str(guid), wanted)
    except HttpResponseError as error:
        if not has_code(error, THERE_ALREADY):
            raise
