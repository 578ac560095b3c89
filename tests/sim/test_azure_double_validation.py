"""Bodies that Azure would refuse, or take and forget: the double refuses them all, and says where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from arm_help import REGION, Plain
from quick_azure import QUICK

from cloudrun.sim.azure import AzureDouble, validate
from cloudrun.sim.azure.wire import ApiError

RULE = {
    "protocol": "Tcp",
    "sourcePortRange": "*",
    "destinationPortRange": "22",
    "sourceAddressPrefix": "203.0.113.7/32",
    "destinationAddressPrefix": "*",
    "access": "Allow",
    "priority": 100,
    "direction": "Inbound",
}
MACHINE: dict[str, Any] = {
    "location": REGION,
    "properties": {
        "hardwareProfile": {"vmSize": "Standard_NC4as_T4_v3"},
        "storageProfile": {"osDisk": {"createOption": "FromImage", "deleteOption": "Delete"}},
        "priority": "Spot",
        "billingProfile": {"maxPrice": -1},
    },
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    folder: Path = tmp_path_factory.mktemp("azure")
    with AzureDouble(folder=folder, delay_s=QUICK) as double, closing(Plain(double)) as made:
        yield made


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("priority", "spot", "'spot' is not one of"),
        ("evictionPolicy", "Terminate", "'Terminate' is not one of"),
        ("evictPolicy", "Delete", "Could not find member 'evictPolicy' on object at path 'properties'"),
        ("billingProfile", {"maxprice": -1}, "'maxprice' on object at path 'properties.billingProfile'"),
        ("billingProfile", {"maxPrice": "-1"}, "'-1' is not of type 'number'"),
        ("hardwareProfile", "Standard_NC6", "is not of type 'object' at path 'properties.hardwareProfile'"),
        ("hardwareProfile", "[parameters('size')]", "is not of type 'object'"),
    ],
)
def test_machines(place: str, value: Any, said: str) -> None:
    wrong = deepcopy(MACHINE)
    wrong["properties"][place] = value
    validate.check("compute:virtualMachines", MACHINE)
    with pytest.raises(ApiError) as refused:
        validate.check("compute:virtualMachines", wrong)
    assert (refused.value.code, refused.value.status) == ("InvalidRequestContent", 400)
    assert said in refused.value.message


def test_a_patch_leaves_out_what_a_put_needs() -> None:
    patch = {"properties": {"storageProfile": {"osDisk": {"diskSizeGB": 128}}}}
    validate.check("compute:virtualMachines", patch, partial=True)
    with pytest.raises(ApiError, match="'createOption' is a required property"):
        validate.check("compute:virtualMachines", patch)
    with pytest.raises(ApiError, match="diskSizeGb"):
        validate.check(
            "compute:virtualMachines",
            {"properties": {"storageProfile": {"osDisk": {"diskSizeGb": 128}}}},
            partial=True,
        )


@pytest.mark.parametrize("missing", ["protocol", "access", "priority", "direction"])
def test_rules_are_whole(plain: Plain, missing: str) -> None:
    rule = {name: value for name, value in RULE.items() if name != missing}
    answer = plain("PUT", place(plain, "networkSecurityGroups/n"), group_of(rule))
    assert (answer.status, answer.code) == (400, "InvalidRequestContent")
    assert f"'{missing}' is a required property" in answer.body["error"]["message"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"priority": 99}, "SecurityRuleInvalidPriority"),
        ({"priority": 5000}, "SecurityRuleInvalidPriority"),
        ({"sourceAddressPrefix": "203.0.113.7/33"}, "SecurityRuleInvalidAddressPrefix"),
        ({"sourceAddressPrefix": "203.0.113.7/24"}, "SecurityRuleInvalidAddressPrefix"),
        ({"sourceAddressPrefix": "everywhere"}, "SecurityRuleInvalidAddressPrefix"),
        ({"protocol": "tcp/ip"}, "InvalidRequestContent"),
        ({"colour": "blue"}, "InvalidRequestContent"),
    ],
)
def test_rules_make_sense(plain: Plain, change: dict[str, Any], code: str) -> None:
    answer = plain("PUT", place(plain, "networkSecurityGroups/n"), group_of({**RULE, **change}))
    assert (answer.status, answer.code) == (400, code)
    assert plain("GET", place(plain, "networkSecurityGroups/n")).code == "ResourceNotFound"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("publicIPAddresses/a", {"properties": {}}, 400, "LocationRequired"),
        ("publicIPAddresses/a", ["location"], 400, "InvalidRequestContent"),
        ("publicIPAddresses/a", {"location": REGION, "tags": {"n": 1}}, 400, "InvalidRequestContent"),
        (
            "publicIPAddresses/a",
            {"location": REGION, "sku": {"name": "Standard"}},
            400,
            "InvalidRequestFormat",
        ),
        (
            "publicIPAddresses/a",
            {"location": REGION, "properties": {"dnsSettings": {"domainNameLabel": "No"}}},
            400,
            "InvalidDomainNameLabel",
        ),
        ("virtualNetworks/a", {"location": REGION, "properties": {}}, 400, "InvalidRequestFormat"),
        ("virtualNetworks/a/subnets/b", {"properties": {}}, 404, "ParentResourceNotFound"),
        ("networkInterfaces/a", {"location": REGION}, 400, "NetworkInterfaceMustHaveIpConfiguration"),
        ("loadBalancers/a", {"location": REGION}, 404, "InvalidResourceType"),
    ],
)
def test_networks(plain: Plain, path: str, body: Any, status: int, code: str) -> None:
    answer = plain("PUT", place(plain, path), body)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "LocationRequired"),
        ({"location": REGION, "tag": {}}, "InvalidRequestContent"),
        ({"location": REGION, "tags": {"a": 1}}, "InvalidRequestContent"),
    ],
)
def test_groups(plain: Plain, body: Any, code: str) -> None:
    answer = plain("PUT", f"{plain.subscription}/resourceGroups/new", body)
    assert (answer.status, answer.code) == (400, code)


def test_a_call_without_a_version_is_refused(plain: Plain) -> None:
    answer = plain.send("GET", f"{plain.subscription}/resourceGroups", None, "application/json")
    assert (answer.status, answer.code) == (400, "MissingApiVersionParameter")


def test_addresses_are_the_same_in_small_letters(plain: Plain) -> None:
    home = plain.group("Mixed")
    assert plain("GET", home.lower().replace("resourcegroups", "RESOURCEGROUPS")).body["name"] == "Mixed"


def place(plain: Plain, path: str) -> str:
    return f"{plain.group('g')}/providers/Microsoft.Network/{path}"


def group_of(rule: dict[str, Any]) -> dict[str, Any]:
    return {"location": REGION, "properties": {"securityRules": [{"name": "ssh", "properties": rule}]}}
