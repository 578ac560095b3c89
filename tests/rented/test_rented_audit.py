"""audit: what is there and why, at the rehearsal cloud; and its cures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import boto3
import pytest
from rented_help import ONE_TIME, TYPE, RentedCloud, wait_for

from cloudrun.audit_item import Cure, Item
from cloudrun.client import Client
from cloudrun.models import Machine, MachineState, Market


@pytest.fixture(autouse=True)
def swept(client: Client) -> None:
    """Groups that earlier tests left stay until somebody looks."""
    left = [item for item in client.audit() if item.cure]
    assert [refusal for _, refusal in client.fix(left) if refusal] == []


@pytest.fixture
def machine(client: Client) -> Machine:
    return client.launch(type=TYPE, market=Market.SPOT, name="k80", stack="none", options=ONE_TIME)


def test_nothing_is_found_where_nothing_is(client: Client) -> None:
    assert [item for item in client.audit() if item.provider != "local"] == []


def test_a_machine_in_use_is_shown_with_its_price_and_no_problem(client: Client, machine: Machine) -> None:
    found = items(client, "machine")
    assert [(item.name, item.problem, item.cure) for item in found] == [("k80", "", None)]
    assert machine.price_per_hour_usd is not None
    least = machine.price_per_hour_usd * 730
    assert found[0].price_per_month_usd is not None
    assert found[0].price_per_month_usd == least + Decimal("3.65")  # an address at 0.005 USD an hour
    [disk] = items(client, "disk")
    assert (disk.used_by, disk.problem, disk.price_per_month_usd) == ("k80", "", Decimal(8))
    assert all(item.problem == "" for item in items(client, "group"))


def test_what_this_computer_does_not_know_is_adopted(
    client: Client, machine: Machine, tmp_path: Path
) -> None:
    other = Client(replace(client.settings, home=tmp_path / "other"))
    [found] = items(other, "machine")
    assert (found.cure, found.problem) == (Cure.ADOPT, "not known on this computer")
    assert list(other.fix([found])) == [(found, "")]
    assert other.machine("k80").token == machine.token
    assert [item.problem for item in items(other, "machine")] == [""]


def test_what_ended_here_and_not_there_is_ended_there(
    client: Client, machine: Machine, cloud: RentedCloud
) -> None:
    client.store.update_machine("k80", state=MachineState.TERMINATED)
    [found] = items(client, "machine")
    assert found.cure is Cure.TERMINATE
    assert [refusal for _, refusal in client.fix([found])] == [""]
    wait_for(lambda: cloud.state(machine.id) == "terminated")


def test_a_machine_that_nobody_guards_gets_its_guard_again(client: Client, machine: Machine) -> None:
    with closing(client.reach(machine.name)) as shell:
        shell.run("pkill -9 -f [a]gent-.*boot", check=False)
    [found] = items(client, "machine")
    assert found.cure is Cure.GUARD
    assert [refusal for _, refusal in client.fix([found])] == [""]
    assert [item.problem for item in items(client, "machine")] == [""]


def test_a_forgotten_disk_is_priced_and_freed(client: Client, forgotten: str) -> None:
    [found] = items(client, "disk")
    assert (found.id, found.problem, found.cure) == (forgotten, "nothing needs it", Cure.FREE)
    assert found.price_per_month_usd == Decimal("4.00")  # 50 GB of gp3 at 0.08 USD
    assert [refusal for _, refusal in client.fix([found])] == [""]
    assert items(client, "disk") == []


@pytest.fixture
def forgotten(cloud: RentedCloud) -> Iterator[str]:
    ec2 = boto3.client("ec2", region_name="us-east-1")
    made = ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=50,
        VolumeType="gp3",
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "cloudrun", "Value": "1"}]}],
    )
    yield made["VolumeId"]
    left = ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [made["VolumeId"]]}])["Volumes"]
    if left:
        ec2.delete_volume(VolumeId=made["VolumeId"])


def items(client: Client, kind: str) -> list[Item]:
    return [item for item in client.audit(provider="aws") if item.kind == kind]
