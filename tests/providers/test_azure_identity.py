"""Machines on Azure that may deallocate themselves, and accounts that may not let them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport
from azure_help import ON_DEMAND, REGION, Cloud, open_cloud

from cloudrun.errors import ProviderError
from cloudrun.models import Machine, MachineState
from cloudrun.providers.azure import identity, limits

AUTHORIZATION = "Microsoft.Authorization"
ASSIGN, DEFINE = f"{AUTHORIZATION}/roleAssignments/write", f"{AUTHORIZATION}/roleDefinitions/write"
ASK = f"{AUTHORIZATION}/permissions/read"
RIGHTS = (ASSIGN, DEFINE)
VM = "Microsoft.Compute/virtualMachines"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def principal(cloud: Cloud, machine: Machine) -> str:
    return str(cloud.body("virtual_machines", machine)["identity"]["principalId"])


def may(cloud: Cloud, machine: Machine, action: str, scope: str = "") -> bool:
    """Whether Azure would let the machine do that, on itself unless told otherwise."""
    rights = cloud.double._running().authorization
    return rights.may(principal(cloud, machine), f"{VM}/{action}", scope or machine.id)


def bare(cloud: Cloud, name: str = "t4") -> Machine:
    """A machine that may nothing."""
    cloud.double.fault(ASSIGN, "AuthorizationFailed", times=None)
    machine = cloud.launch_running(name, offer=ON_DEMAND)
    cloud.double.clear_faults()
    cloud.calls()
    return machine


def give(cloud: Cloud, machine: Machine) -> bool:
    return identity.let_release_itself(cloud.session(), machine.id, principal(cloud, machine), region=REGION)


# --- the right ---


def test_a_machine_may_deallocate_itself_and_nothing_else(cloud: Cloud) -> None:
    one, two = cloud.launch_running("one", offer=ON_DEMAND), cloud.launch_running("two", offer=ON_DEMAND)
    assert may(cloud, one, "deallocate/action")
    assert may(cloud, one, "read")
    assert not may(cloud, one, "deallocate/action", two.id)
    for action in ("write", "delete", "start/action", "powerOff/action"):
        assert not may(cloud, one, action)


def test_the_right_goes_with_the_machine(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    who = principal(cloud, machine)
    cloud.provider().terminate(machine)
    cloud.until_empty()
    assert not cloud.double._running().authorization.may(who, f"{VM}/read", machine.id)


def test_the_role_is_made_once_and_the_next_machine_takes_one_call(cloud: Cloud) -> None:
    one, two = bare(cloud, "one"), bare(cloud, "two")
    assert give(cloud, one)
    first = cloud.calls()
    assert (first[ASSIGN], first[DEFINE]) == (2, 1)
    assert give(cloud, two)
    assert +cloud.calls() == {ASSIGN: 1, f"{VM}/read": 1}  # the look is this test's own


def test_given_twice_it_is_one(cloud: Cloud) -> None:
    machine = bare(cloud)
    assert give(cloud, machine)
    assert give(cloud, machine)
    cloud.double.fault(ASSIGN, "RoleAssignmentExists")
    assert give(cloud, machine)
    listed = cloud.session().authorization.role_assignments.list_for_scope(machine.id)
    assert len(list(listed)) == 1


def test_the_identity_is_not_looked_up(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory knows a new identity only after a while (PrincipalNotFound) unless its type is told."""
    machine, sent = bare(cloud), list[Any]()
    really = RequestsTransport.send

    def send(transport: Any, request: Any, **more: Any) -> Any:
        if "/roleAssignments/" in request.url:
            sent.append(json.loads(request.body)["properties"]["principalType"])
        return really(transport, request, **more)

    monkeypatch.setattr(RequestsTransport, "send", send)
    assert give(cloud, machine)
    assert set(sent) == {"ServicePrincipal"}


def test_the_role_is_named_for_its_subscription(cloud: Cloud) -> None:
    role = identity.role(cloud.session())["properties"]
    assert role["roleName"] == f"cloudrun self-release ({cloud.session().subscription[:8]})"
    assert role["assignableScopes"] == [f"/subscriptions/{cloud.session().subscription}"]


@pytest.mark.parametrize("denied", RIGHTS)
def test_an_account_that_may_not_give_rights(cloud: Cloud, denied: str) -> None:
    machine = bare(cloud)
    cloud.double.fault(denied, "AuthorizationFailed", times=None)
    assert give(cloud, machine) is False


def test_a_new_role_that_is_not_known_everywhere_yet(cloud: Cloud) -> None:
    machine = bare(cloud)
    cloud.double.fault(ASSIGN, "RoleDefinitionDoesNotExist", status=404, times=2)
    assert give(cloud, machine) is False
    assert give(cloud, machine) is True


def test_other_refusals_are_told(cloud: Cloud) -> None:
    machine = bare(cloud)
    cloud.double.fault(ASSIGN, "RoleAssignmentLimitExceeded", status=400)
    with pytest.raises(ProviderError, match="RoleAssignmentLimitExceeded"):
        give(cloud, machine)


def test_the_launch_goes_on_without_the_right(cloud: Cloud) -> None:
    cloud.double.fault(ASSIGN, "AuthorizationFailed", times=None)
    machine = cloud.launch_running(offer=ON_DEMAND)
    assert machine.state is MachineState.RUNNING
    assert not may(cloud, machine, "deallocate/action")


# --- said in the plan ---


def test_nothing_is_said_where_machines_end_themselves(cloud: Cloud) -> None:
    assert cloud.provider().limits(ON_DEMAND) == ""
    assert cloud.calls()[ASK] == 1
    assert cloud.provider().limits(replace(ON_DEMAND, region="westus2")) == ""
    assert cloud.calls()[ASK] == 0  # kept for a day


@pytest.mark.parametrize("denied", RIGHTS)
def test_one_line_where_they_cannot(cloud: Cloud, denied: str) -> None:
    cloud.double.allow([ASK, *(right for right in RIGHTS if right != denied)])
    said = cloud.provider().limits(ON_DEMAND)
    assert "cloudrun stop" in said
    assert "\n" not in said


def test_what_cannot_be_asked_is_said_so(cloud: Cloud) -> None:
    cloud.double.allow(["Microsoft.Compute/*"])
    said = cloud.provider().limits(ON_DEMAND)
    assert said.startswith("whether machines may deallocate themselves could not be asked")
    assert ASK in said
    cloud.double.allow(None)
    assert cloud.provider().limits(ON_DEMAND) == ""  # a refusal is not kept


OWNER: dict[str, Any] = {"actions": ["*"], "notActions": []}
CONTRIBUTOR = {"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write", "x/y"]}
ADMINISTRATOR = {"actions": ["*/read", "Microsoft.Authorization/*"]}


@pytest.mark.parametrize(
    ("permissions", "may_give"),
    [
        ([], False),
        ([OWNER], True),
        ([CONTRIBUTOR], False),  # one role's notActions
        ([CONTRIBUTOR, ADMINISTRATOR], True),  # take nothing of another's
        ([{"actions": ["microsoft.authorization/roleassignments/WRITE"]}], True),
        ([{"actions": ["Microsoft.Authorization/roleAssignments/writer"]}], False),
        ([{"actions": None, "notActions": None}], False),
    ],
)
def test_roles_as_azure_words_them(permissions: list[dict[str, Any]], may_give: bool) -> None:
    assert limits.granted(permissions, ASSIGN) is may_give
