"""Networks of the ARM double: what needs what, what is in use, what goes when a group goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from arm_help import REGION, Plain, path_of
from delays import delay
from quick_azure import QUICK
from waiting import until

from cloudrun.sim.azure import AzureDouble

SPACE = {"addressPrefixes": ["10.0.0.0/16"]}
ADDRESS = {
    "location": REGION,
    "sku": {"name": "Standard"},
    "properties": {"publicIPAllocationMethod": "Static"},
}


@dataclass(frozen=True, slots=True)
class Chain:
    """Ids of a machine's network: what needs what."""

    home: str
    network: str
    subnet: str
    rules: str
    address: str
    interface: str

    def all(self) -> tuple[str, ...]:
        return (self.network, self.subnet, self.rules, self.address, self.interface)


@pytest.fixture
def double(tmp_path: Path) -> Iterator[AzureDouble]:
    with AzureDouble(folder=tmp_path, delay_s=QUICK) as made:
        yield made


@pytest.fixture
def plain(double: AzureDouble) -> Iterator[Plain]:
    with closing(Plain(double)) as made:
        yield made


def test_an_interface_gets_addresses(plain: Plain) -> None:
    chain = make_chain(plain)
    shown = plain("GET", chain.interface).body["properties"]["ipConfigurations"][0]["properties"]
    assert shown["privateIPAddress"] == "10.0.0.4"
    public = plain("GET", chain.address).body["properties"]
    assert public["ipAddress"].startswith("127.")
    assert public["ipConfiguration"]["id"] == f"{chain.interface}/ipConfigurations/c"
    second = make_interface(plain, chain.home, "nic2", chain.subnet)
    again = second["properties"]["ipConfigurations"][0]["properties"]
    assert again["privateIPAddress"] == "10.0.0.5"


def test_a_repeated_put_changes_nothing(plain: Plain) -> None:
    chain = make_chain(plain)
    before = plain("GET", chain.address).body["properties"]
    answer = plain("PUT", chain.address, ADDRESS)
    plain.settle(answer)
    after = plain("GET", chain.address).body["properties"]
    assert answer.status == 200
    assert after == before


@pytest.mark.parametrize(
    ("part", "code", "named"),
    [
        ("network", "InUseSubnetCannotBeDeleted", "interface"),
        ("subnet", "InUseSubnetCannotBeDeleted", "interface"),
        ("rules", "InUseNetworkSecurityGroupCannotBeDeleted", "interface"),
        ("address", "PublicIPAddressCannotBeDeleted", "interface"),
    ],
)
def test_what_is_in_use_stays(plain: Plain, part: str, code: str, named: str) -> None:
    chain = make_chain(plain)
    answer = plain("DELETE", getattr(chain, part))
    assert (answer.status, answer.code) == (400, code)
    assert getattr(chain, named) in answer.body["error"]["message"]
    assert plain("GET", getattr(chain, part)).body["properties"]["provisioningState"] == "Succeeded"
    for each in (chain.interface, getattr(chain, part)):
        plain.settle(plain("DELETE", each))
        assert plain("GET", each).code == "ResourceNotFound"
        assert plain("DELETE", each).status == 204


def test_an_interface_needs_what_it_names(plain: Plain) -> None:
    chain = make_chain(plain)
    place = f"{chain.home}/providers/Microsoft.Network/networkInterfaces/other"
    missing = plain("PUT", place, interface(f"{chain.subnet}s"))
    elsewhere = plain("PUT", place, {**interface(chain.subnet), "location": "westus"})
    taken = plain("PUT", place, interface(chain.subnet, address=chain.address))
    assert [missing.code, elsewhere.code] == ["InvalidResourceReference"] * 2
    assert (taken.status, taken.code) == (400, "PublicIPAddressInUse")


def test_what_is_not_ready_cannot_be_used(plain: Plain) -> None:
    home = plain.group("g")
    network = f"{home}/providers/Microsoft.Network/virtualNetworks/net"
    made = plain("PUT", network, network_of("s"))
    place = f"{home}/providers/Microsoft.Network/networkInterfaces/n"
    early = plain("PUT", place, interface(f"{network}/subnets/s"))
    assert (made.status, early.status, early.code) == (201, 409, "ReferencedResourceNotProvisioned")
    plain.settle(made)
    assert make_interface(plain, home, "n", f"{network}/subnets/s")["name"] == "n"


def test_a_network_keeps_the_subnets_that_its_put_names(plain: Plain) -> None:
    chain = make_chain(plain)
    more = plain.put(chain.network, network_of("s", "t"))
    assert [each["name"] for each in more["properties"]["subnets"]] == ["s", "t"]
    kept = plain.put(chain.network, {"location": REGION, "properties": {"addressSpace": SPACE}})
    assert [each["name"] for each in kept["properties"]["subnets"]] == ["s", "t"]
    refused = plain("PUT", chain.network, network_of("other"))
    assert (refused.status, refused.code) == (400, "InUseSubnetCannotBeDeleted")
    assert plain("GET", chain.subnet).status == 200


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        ("10.0.0.128/25", "NetcfgSubnetRangesOverlap"),
        ("192.168.0.0/24", "NetcfgSubnetRangeOutsideVnet"),
        ("10.0.0.300/24", "InvalidAddressPrefixFormat"),
    ],
)
def test_subnets_fit_their_network(plain: Plain, prefix: str, code: str) -> None:
    chain = make_chain(plain)
    answer = plain("PUT", f"{chain.network}/subnets/t", {"properties": {"addressPrefix": prefix}})
    assert (answer.status, answer.code) == (400, code)


def test_rules_do_not_contradict_each_other(plain: Plain) -> None:
    chain = make_chain(plain)
    rule = plain("GET", f"{chain.rules}/securityRules/ssh").body["properties"]
    writable = {name: value for name, value in rule.items() if name != "provisioningState"}
    answer = plain("PUT", f"{chain.rules}/securityRules/other", {"properties": writable})
    assert (answer.status, answer.code) == (400, "SecurityRuleConflict")
    defaults = plain("GET", chain.rules).body["properties"]["defaultSecurityRules"]
    assert [each["properties"]["access"] for each in defaults][:3] == ["Allow", "Allow", "Deny"]


def test_dns_names_are_given_once_a_region(plain: Plain) -> None:
    home = plain.group("g")
    place = f"{home}/providers/Microsoft.Network/publicIPAddresses"
    check = f"{plain.subscription}/providers/Microsoft.Network/locations/{{}}/CheckDnsNameAvailability"
    asked = f"{check.format(REGION)}?domainNameLabel=my-k80"
    named = {**ADDRESS, "properties": {**ADDRESS["properties"], "dnsSettings": {"domainNameLabel": "my-k80"}}}
    assert plain("GET", asked).body == {"available": True}
    made = plain.put(f"{place}/one", named)
    assert made["properties"]["dnsSettings"]["fqdn"] == "my-k80.eastus.cloudapp.azure.com"
    assert plain("GET", asked).body == {"available": False}
    assert plain("GET", f"{check.format('westus')}?domainNameLabel=my-k80").body == {"available": True}
    assert plain("PUT", f"{place}/two", named).code == "DnsRecordInUse"
    assert plain("GET", f"{check.format(REGION)}?domainNameLabel=x").code == "InvalidDomainNameLabel"


def test_a_group_takes_all_with_it(double: AzureDouble, plain: Plain) -> None:
    chain = make_chain(plain)
    delay(double, group_s=2.0)
    answer = plain("DELETE", chain.home)
    assert answer.status == 202
    assert plain("GET", chain.home).body["properties"]["provisioningState"] == "Deleting"
    assert plain("PUT", chain.address, ADDRESS).code == "ResourceGroupBeingDeleted"
    plain.settle(answer)
    assert {plain("GET", each).code for each in chain.all()} == {"ResourceGroupNotFound"}
    assert plain("GET", f"{plain.subscription}/resources").body["value"] == []
    assert plain("DELETE", chain.home).code == "ResourceGroupNotFound"


def test_a_group_that_others_use_is_not_deleted(plain: Plain) -> None:
    chain = make_chain(plain)
    make_interface(plain, plain.group("outside"), "guest", chain.subnet)
    location = path_of(plain("DELETE", chain.home).headers["location"])
    end = until(lambda: plain("GET", location), lambda found: found.status != 202)
    assert (end.status, end.code) == (409, "ResourceGroupDeletionBlocked")
    assert [each["code"] for each in end.body["error"]["details"]] == ["InUseSubnetCannotBeDeleted"]
    assert plain("GET", chain.home).body["properties"]["provisioningState"] == "Succeeded"
    assert plain("GET", chain.interface).status == 404


def test_a_second_deletion_leaves_a_new_group_alone(double: AzureDouble, plain: Plain) -> None:
    home = plain.group("g")
    delay(double, group_s=1.5)
    first = plain("DELETE", home)
    delay(double, group_s=2.0)
    second = plain("DELETE", home)
    assert second.status == 202
    plain.settle(first)
    assert plain("PUT", home, {"location": REGION}).status == 201
    plain.settle(second)
    assert plain("GET", home).status == 200


def test_resources_are_found_by_their_tags(plain: Plain) -> None:
    make_chain(plain)
    home = plain.group("tagged")
    address = f"{home}/providers/Microsoft.Network/publicIPAddresses/a"
    plain.put(address, {**ADDRESS, "tags": {"cloudrun": "1"}})
    every = f"{plain.subscription}/resources"
    by_name = "?$filter=tagName%20eq%20'cloudrun'"
    assert len(plain("GET", every).body["value"]) == 5
    assert names(plain("GET", every + by_name).body) == ["a"]
    assert names(plain("GET", f"{every}{by_name}%20and%20tagValue%20eq%20'2'").body) == []
    assert names(
        plain("GET", f"{every}?$filter=resourceType%20eq%20'Microsoft.Network/virtualNetworks'").body
    ) == ["net"]
    assert plain("GET", f"{every}?$filter=colour%20eq%20'blue'").code == "InvalidFilterInQueryString"
    patched = plain("PATCH", address, {"tags": {"other": "2"}})
    assert (patched.status, patched.body["tags"]) == (200, {"other": "2"})
    assert plain("PATCH", address, {"properties": {"idleTimeoutInMinutes": 5}}).status == 400
    assert names(plain("GET", every + by_name).body) == []


def test_tags_are_merged_and_deleted_by_themselves(plain: Plain) -> None:
    chain = make_chain(plain)
    place = f"{chain.interface}/providers/Microsoft.Resources/tags/default"
    plain("PATCH", place, {"operation": "Merge", "properties": {"tags": {"a": "1", "b": "2"}}})
    merged = plain("PATCH", place, {"operation": "Merge", "properties": {"tags": {"b": "3"}}})
    assert merged.body["properties"]["tags"] == {"a": "1", "b": "3"}
    plain("PATCH", place, {"operation": "Delete", "properties": {"tags": {"a": "1"}}})
    assert plain("GET", chain.interface).body["tags"] == {"b": "3"}


def test_long_lists_have_pages(plain: Plain) -> None:
    for name in ("a", "b", "c"):
        plain.group(name)
    first = plain("GET", f"{plain.subscription}/resourcegroups?$top=2").body
    second = plain("GET", path_of(first["nextLink"])).body
    assert (names(first), names(second), "nextLink" in second) == (["a", "b"], ["c"], False)


def test_a_name_belongs_to_one_region(plain: Plain) -> None:
    chain = make_chain(plain)
    moved = plain("PUT", chain.address, {**ADDRESS, "location": "westus"})
    group = plain("PUT", chain.home, {"location": "westus"})
    assert (moved.status, moved.code) == (409, "InvalidResourceLocation")
    assert (group.status, group.code) == (409, "InvalidResourceGroupLocation")


def make_chain(plain: Plain) -> Chain:
    home = plain.group("g")
    place = f"{home}/providers/Microsoft.Network"
    rule = {
        "protocol": "Tcp",
        "sourcePortRange": "*",
        "destinationPortRange": "22",
        "sourceAddressPrefix": "203.0.113.7/32",
        "destinationAddressPrefix": "*",
        "access": "Allow",
        "priority": 100,
        "direction": "Inbound",
    }
    network = plain.put(f"{place}/virtualNetworks/net", network_of("s"))
    rules = {"location": REGION, "properties": {"securityRules": [{"name": "ssh", "properties": rule}]}}
    group = plain.put(f"{place}/networkSecurityGroups/rules", rules)
    address = plain.put(f"{place}/publicIPAddresses/ip", ADDRESS)
    subnet = network["properties"]["subnets"][0]["id"]
    body = interface(subnet, address=address["id"], rules=group["id"])
    made = plain.put(f"{place}/networkInterfaces/nic", body)
    return Chain(home, network["id"], subnet, group["id"], address["id"], made["id"])


def make_interface(plain: Plain, home: str, name: str, subnet: str) -> dict[str, Any]:
    made: dict[str, Any] = plain.put(
        f"{home}/providers/Microsoft.Network/networkInterfaces/{name}", interface(subnet)
    )
    return made


def interface(subnet: str, *, address: str = "", rules: str = "") -> dict[str, Any]:
    configuration: dict[str, Any] = {"subnet": {"id": subnet}}
    if address:
        configuration["publicIPAddress"] = {"id": address}
    properties: dict[str, Any] = {"ipConfigurations": [{"name": "c", "properties": configuration}]}
    if rules:
        properties["networkSecurityGroup"] = {"id": rules}
    return {"location": REGION, "properties": properties}


def network_of(*subnets: str) -> dict[str, Any]:
    parts = [
        {"name": name, "properties": {"addressPrefix": f"10.0.{at}.0/24"}} for at, name in enumerate(subnets)
    ]
    return {"location": REGION, "properties": {"addressSpace": SPACE, "subnets": parts}}


def names(body: dict[str, Any]) -> list[str]:
    return [each["name"] for each in body["value"]]
