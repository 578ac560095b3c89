"""Who may do what at the ARM double: the caller's rights, linked ones, roles and their assignments."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from arm_help import REGION, SCOPE, Plain
from azure.identity import ClientSecretCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from quick_azure import QUICK

from cloudrun.sim.azure import AzureDouble

GROUPS = "Microsoft.Resources/subscriptions/resourceGroups"
DEALLOCATE = "Microsoft.Compute/virtualMachines/deallocate/action"
NETWORK = {
    "location": REGION,
    "properties": {
        "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
        "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}],
    },
}


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureDouble]:
    with AzureDouble(folder=tmp_path, delay_s=QUICK) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def plain(double: AzureDouble) -> Iterator[Plain]:
    with closing(Plain(double)) as made:
        yield made


def test_what_is_not_allowed_is_refused_by_name(double: AzureDouble, plain: Plain) -> None:
    home = plain.group("g")
    double.allow([f"{GROUPS}/read", "Microsoft.Network/*"])
    refused = plain("PUT", home, {"location": REGION})
    assert (refused.status, refused.code) == (403, "AuthorizationFailed")
    assert f"perform action '{GROUPS}/write' over scope '{home}'" in refused.body["error"]["message"]
    assert plain("GET", home).status == 200
    plain.put(f"{home}/providers/Microsoft.Network/virtualNetworks/net", NETWORK)
    double.allow(None)
    assert plain("PUT", home, {"location": REGION}).status == 200


def test_joining_takes_a_right_of_its_own(double: AzureDouble, plain: Plain) -> None:
    home = f"{plain.group('g')}/providers/Microsoft.Network"
    subnet = plain.put(f"{home}/virtualNetworks/net", NETWORK)["properties"]["subnets"][0]["id"]
    configuration = {"name": "c", "properties": {"subnet": {"id": subnet}}}
    body = {"location": REGION, "properties": {"ipConfigurations": [configuration]}}
    join = "Microsoft.Network/virtualNetworks/subnets/join/action"
    double.allow(["Microsoft.Network/*/read", "Microsoft.Network/*/write"])
    refused = plain("PUT", f"{home}/networkInterfaces/nic", body)
    assert (refused.status, refused.code) == (403, "LinkedAuthorizationFailed")
    assert join in refused.body["error"]["message"]
    double.allow(["Microsoft.Network/*/read", "Microsoft.Network/*/write", join])
    plain.put(f"{home}/networkInterfaces/nic", body)
    written = [
        call for call in double.calls() if call.operation == "Microsoft.Network/networkInterfaces/write"
    ]
    assert [call.linked for call in written] == [(join,), (join,)]


def test_the_caller_can_ask_what_it_may_do(double: AzureDouble, plain: Plain) -> None:
    plain.group("g")
    double.allow(["Microsoft.Authorization/permissions/read", DEALLOCATE])
    with clients(double) as rights:
        (found,) = rights.permissions.list_for_resource_group("g")
        assert sorted(found.actions) == ["Microsoft.Authorization/permissions/read", DEALLOCATE]
        (other,) = rights.permissions.list_for_resource("g", "Microsoft.Compute", "", "virtualMachines", "vm")
        assert other.actions == found.actions


def test_a_role_is_given_once(double: AzureDouble, plain: Plain) -> None:
    home = plain.group("g")
    me = caller_of(double, plain)
    with clients(double) as rights:
        role = make_role(rights, plain, "self-release")
        assert make_role(rights, plain, "self-release", role.name).id == role.id
        (listed,) = rights.role_definitions.list(plain.subscription, filter="roleName eq 'self-release'")
        assert listed.permissions[0].actions == [DEALLOCATE]
        given = {"properties": {"roleDefinitionId": role.id, "principalId": me}}
        name = str(uuid.uuid4())
        made = rights.role_assignments.create(home, name, given)
        assert (made.scope, made.principal_id) == (home, me)
        assert rights.role_assignments.create(home, name, given).id == made.id
    other = plain("PUT", f"{home}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}", given)
    assert (other.status, other.code) == (409, "RoleAssignmentExists")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"principalId": "22222222-2222-4222-8222-222222222222"}, 400, "PrincipalNotFound"),
        ({"roleDefinitionId": "/nowhere"}, 404, "RoleDefinitionDoesNotExist"),
    ],
)
def test_an_assignment_needs_role_and_principal(
    double: AzureDouble, plain: Plain, change: dict[str, str], status: int, code: str
) -> None:
    with clients(double) as rights:
        role = make_role(rights, plain, "self-release")
    properties = {"roleDefinitionId": role.id, "principalId": caller_of(double, plain), **change}
    place = f"{plain.group('g')}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    answer = plain("PUT", place, {"properties": properties})
    assert (answer.status, answer.code) == (status, code)


def test_assignments_go_with_what_they_are_on(double: AzureDouble, plain: Plain) -> None:
    home = plain.group("g")
    with clients(double) as rights:
        role = make_role(rights, plain, "self-release")
        place = f"{home}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        given = {"roleDefinitionId": role.id, "principalId": caller_of(double, plain)}
        assert plain("PUT", place, {"properties": given}).status == 201
        kept = plain("DELETE", role.id)
        assert (kept.status, kept.code) == (400, "RoleDefinitionHasAssignments")
        plain.settle(plain("DELETE", home))
        assert plain("GET", place).code == "RoleAssignmentNotFound"
        rights.role_definitions.delete(plain.subscription, role.name)
        assert list(rights.role_definitions.list(plain.subscription)) == []


def test_two_roles_of_one_name_are_refused(double: AzureDouble, plain: Plain) -> None:
    with clients(double) as rights:
        make_role(rights, plain, "self-release")
    place = f"{plain.subscription}/providers/Microsoft.Authorization/roleDefinitions/{uuid.uuid4()}"
    answer = plain("PUT", place, definition(plain, "self-release"))
    assert (answer.status, answer.code) == (409, "RoleDefinitionWithSameNameExists")


def make_role(rights: Any, plain: Plain, title: str, name: str = "") -> Any:
    return rights.role_definitions.create_or_update(
        plain.subscription, name or str(uuid.uuid4()), definition(plain, title)
    )


def definition(plain: Plain, name: str) -> dict[str, Any]:
    return {
        "properties": {
            "roleName": name,
            "type": "CustomRole",
            "permissions": [{"actions": [DEALLOCATE], "notActions": []}],
            "assignableScopes": [plain.subscription],
        }
    }


def caller_of(double: AzureDouble, plain: Plain) -> str:
    """The object id of whoever logged in: refusals name it."""
    double.allow([])
    message = plain("GET", plain.subscription).body["error"]["message"]
    double.allow(None)
    return str(message.partition("with object id '")[2].partition("'")[0])


def clients(double: AzureDouble) -> AuthorizationManagementClient:
    told = double.environment()
    credential = ClientSecretCredential(
        told["AZURE_TENANT_ID"],
        told["AZURE_CLIENT_ID"],
        told["AZURE_CLIENT_SECRET"],
        authority=double.url,
        disable_instance_discovery=True,
    )
    return AuthorizationManagementClient(
        credential, told["AZURE_SUBSCRIPTION_ID"], base_url=double.url, credential_scopes=[SCOPE]
    )
