"""Who is let in: one rule an owner, following its address, in one group a network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aws_help import CPU, REGION, ZONE, Cloud, open_cloud
from waiting import until

from cloudrun.errors import NotFound, ProviderError
from cloudrun.models import LaunchOptions, MachineState
from cloudrun.providers.aws import network
from cloudrun.providers.tags import owner_of

HOME, CAFE = "198.51.100.7", "203.0.113.9"


class Whereabouts:
    """A service that tells callers their address; this one is told what to say."""

    def __init__(self) -> None:
        self.answer = f"{HOME}\n".encode()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                self.send_response(200 if outer.answer else 503)
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def move(self, address: str) -> None:
        self.answer = address.encode()


@pytest.fixture
def whereabouts() -> Iterator[Whereabouts]:
    service = Whereabouts()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whereabouts: Whereabouts) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        opened.settings = replace(opened.settings, address_url=whereabouts.url)
        yield opened


def test_only_this_computer_is_let_in_and_only_to_ssh(cloud: Cloud) -> None:
    machine = cloud.launch(offer=CPU)
    [group] = ours(cloud)
    assert [each["GroupId"] for each in cloud.instance(machine)["SecurityGroups"]] == [group["GroupId"]]
    owner = owner_of(cloud.settings)
    assert rules(group) == [("tcp", 22, 22, f"{HOME}/32", owner)]
    assert not any(rule["Ipv6Ranges"] or rule["UserIdGroupPairs"] for rule in group["IpPermissions"])


def test_the_rule_follows_the_address(cloud: Cloud, whereabouts: Whereabouts) -> None:
    machine = cloud.launch(offer=CPU)
    whereabouts.move(CAFE)
    provider = cloud.provider()
    cloud.calls()
    for _ in range(2):
        provider.open_access(machine)
        assert addresses(cloud) == [f"{CAFE}/32"]
    done = cloud.calls()
    assert (done["AuthorizeSecurityGroupIngress"], done["RevokeSecurityGroupIngress"]) == (1, 1)
    whereabouts.move(HOME)
    cloud.launch("two", offer=CPU)  # a launch does the same
    assert addresses(cloud) == [f"{HOME}/32"]
    provider.open_access(replace(machine, detail=()))
    assert addresses(cloud) == [f"{HOME}/32"]


def test_rules_of_others_are_left_alone(cloud: Cloud, whereabouts: Whereabouts, tmp_path: Path) -> None:
    machine = cloud.launch(offer=CPU)
    whereabouts.move(CAFE)
    colleague = cloud.provider(home=tmp_path / "colleague")
    colleague.open_access(machine)
    assert addresses(cloud) == [f"{HOME}/32", f"{CAFE}/32"]
    cloud.provider().open_access(machine)  # now both are at the same place: one rule serves both
    assert addresses(cloud) == [f"{CAFE}/32"]
    whereabouts.move(HOME)
    cloud.provider().open_access(machine)
    assert addresses(cloud) == [f"{CAFE}/32", f"{HOME}/32"]


def test_what_others_opened_in_our_group_is_no_business_of_ours(
    cloud: Cloud, whereabouts: Whereabouts
) -> None:
    machine = cloud.launch(offer=CPU)
    [group] = ours(cloud)
    notebook = {"IpProtocol": "tcp", "FromPort": 8888, "ToPort": 8888}
    ranges = [{"CidrIp": f"{HOME}/32", "Description": owner_of(cloud.settings)}]
    cloud.ec2().authorize_security_group_ingress(
        GroupId=group["GroupId"], IpPermissions=[{**notebook, "IpRanges": ranges}]
    )
    whereabouts.move(CAFE)
    cloud.provider().open_access(machine)
    [group] = ours(cloud)
    assert sorted(rule[1:4] for rule in rules(group)) == [(22, 22, f"{CAFE}/32"), (8888, 8888, f"{HOME}/32")]


@pytest.mark.parametrize("answer", ["", "2001:db8::1", "<html>log in to the hotel</html>", "\xff", "1.2.3"])
def test_an_address_that_cannot_be_told(cloud: Cloud, whereabouts: Whereabouts, answer: str) -> None:
    whereabouts.answer = answer.encode("latin-1")
    with pytest.raises(ProviderError, match="address") as caught:
        cloud.launch(offer=CPU)
    assert "CLOUDRUN_ADDRESS_URL" in caught.value.hint
    assert cloud.alive() == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "http://127.0.0.1:1/"])
def test_an_address_service_that_is_none(cloud: Cloud, url: str) -> None:
    cloud.settings = replace(cloud.settings, address_url=url)
    with pytest.raises(ProviderError, match="address"):
        cloud.launch(offer=CPU)


def test_a_group_made_by_another_process_at_the_same_moment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.launch("one", offer=CPU)
    answers = [None]
    real = network._find_group
    monkeypatch.setattr(
        network, "_find_group", lambda *asked: answers.pop() if answers else real(*asked)
    )  # as it was a moment ago
    cloud.launch("two", offer=CPU)
    assert len(ours(cloud)) == 1


def test_a_foreign_group_of_that_name_is_not_used(cloud: Cloud) -> None:
    ec2 = cloud.ec2()
    [default] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    ec2.create_security_group(GroupName="cloudrun", Description="mine", VpcId=default["VpcId"])
    with pytest.raises(ProviderError, match="not ours"):
        cloud.launch(offer=CPU)


def test_one_group_a_network(cloud: Cloud) -> None:
    ec2 = cloud.ec2()
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24", AvailabilityZone=ZONE)
    subnet = made["Subnet"]["SubnetId"]
    for number in range(2):
        cloud.launch(f"here-{number}", offer=CPU)
        cloud.launch(f"there-{number}", offer=CPU, options=LaunchOptions(subnet=subnet))
    assert len(ours(cloud)) == 2
    [default] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    named = {group["VpcId"] for group in ours(cloud)}
    assert named == {vpc, default["VpcId"]}


def test_the_group_goes_when_nobody_needs_it(cloud: Cloud) -> None:
    provider = cloud.provider()
    one, two = cloud.launch_running("one", offer=CPU), cloud.launch_running("two", offer=CPU)
    for machine in (one, two):
        provider.terminate(machine)
        until(lambda it=machine: cloud.instance(it)["State"]["Name"], lambda state: state == "terminated")  # type: ignore[misc]
        provider.terminate(machine)
        assert len(ours(cloud)) == (machine is one)
    assert cloud.until(two, MachineState.TERMINATED)
    with pytest.raises((NotFound, ProviderError)):
        provider.open_access(replace(two, detail=(), id="i-0123456789abcdef0"))


def test_the_owner_is_this_user_here(cloud: Cloud, tmp_path: Path) -> None:
    owner = owner_of(cloud.settings)
    assert owner == owner_of(cloud.settings)
    assert "@" in owner
    assert owner != owner_of(replace(cloud.settings, home=tmp_path / "other"))


def ours(cloud: Cloud) -> list[dict[str, Any]]:
    filters = [{"Name": "tag:cloudrun", "Values": ["1"]}]
    groups: list[dict[str, Any]] = cloud.ec2(REGION).describe_security_groups(Filters=filters)[
        "SecurityGroups"
    ]
    return groups


def rules(group: dict[str, Any]) -> list[tuple[str, int, int, str, str]]:
    return [
        (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], each["CidrIp"], each.get("Description", ""))
        for rule in group["IpPermissions"]
        for each in rule["IpRanges"]
    ]


def addresses(cloud: Cloud) -> list[str]:
    [group] = ours(cloud)
    return [rule[3] for rule in rules(group)]
