"""Launching on AWS: what is asked for, in how many calls, and one machine whatever happens in between."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_help import CPU, ON_DEMAND, REGION, SPOT, ZONE, Cloud, open_cloud, spec
from exhaustive import exhaustive
from waiting import until

from cloudrun.errors import ConnectionLost, Credentials, NoCapacity, NotOffered, ProviderError, Quota, Refused
from cloudrun.models import Guard, LaunchOptions, MachineState, Market, OnPreempt
from cloudrun.providers.aws import launch as launching
from cloudrun.providers.aws import session as sessions
from cloudrun.providers.launched import load_launched
from cloudrun.sim.aws.seeds import zones_offering

# One process that launches again and again, each time in a child that is killed at its next step: what it
# writes, what it sends and what it hears. Prints how the children ended.
LAUNCH_AND_DIE = """
import itertools, os, signal, sys
from dataclasses import replace
from pathlib import Path
import boto3
folder, home, url, first, *regions = sys.argv[1:]
sys.path[:0] = [folder, str(Path(folder).parent)]
from aws_help import CPU, spec
from cloudrun.config import Settings
from cloudrun.providers.aws import AwsProvider

boto = boto3.Session()
boto.client("ec2"), boto.client("ssm")  # read once, for all children

def child(step, region):
    done = 0
    def stepped(*_, **__):
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
    provider = AwsProvider(Settings(home=Path(home, str(step)), address_url=url + "/_sim/address"))
    provider._session._boto = boto
    for retry in (True, False):
        events = provider._session.client("ec2", region, retry=retry).meta.events
        events.register("before-send.ec2", stepped)
        events.register("response-received.ec2", stepped)
    sys.addaudithook(lambda event, _: stepped() if event == "os.rename" else None)
    provider.launch(spec("box", token=f"token-{step}", offer=replace(CPU, region=region)))
    os._exit(0)

for step, region in zip(itertools.count(int(first), 3), regions):
    pid = os.fork()
    if not pid:
        child(step, region)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status):
        print(step, os.WEXITSTATUS(status))
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LONGEST_WAIT_S", 0.01)


def test_all_is_asked_for_in_the_one_call(cloud: Cloud) -> None:
    asked = spec("k80", disk_gb=120, tags=(("cloudrun-run", "r1"), ("cloudrun-project", "mine")))
    machine = cloud.provider().launch(asked)
    instance = cloud.instance(machine)
    assert instance["MetadataOptions"] | {"State": ""} == {
        "State": "",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "enabled",
    }
    assert "KeyName" not in instance
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags["cloudrun-token"] == asked.token
    assert (tags["cloudrun"], tags["cloudrun-name"], tags["Name"]) == ("1", "k80", "k80")
    assert (tags["cloudrun-run"], tags["cloudrun-project"]) == ("r1", "mine")
    [disk] = cloud.ec2().describe_volumes()["Volumes"]
    assert (disk["VolumeType"], disk["Size"], disk["Encrypted"]) == ("gp3", 120, True)
    assert instance["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is True
    assert {tag["Key"]: tag["Value"] for tag in disk["Tags"]} == tags
    [request] = cloud.ec2().describe_spot_instance_requests()["SpotInstanceRequests"]
    assert {tag["Key"]: tag["Value"] for tag in request["Tags"]} == tags


@pytest.mark.parametrize(
    ("market", "run_owned", "on_preempt", "expected"),
    [
        (Market.ON_DEMAND, False, None, (None, None, "terminate")),
        (Market.ON_DEMAND, True, None, (None, None, "stop")),
        (Market.SPOT, False, None, ("persistent", "stop", "stop")),
        (Market.SPOT, True, None, ("one-time", "terminate", "terminate")),
        (Market.SPOT, False, OnPreempt.TERMINATE, ("one-time", "terminate", "terminate")),
        (Market.SPOT, True, OnPreempt.STOP, ("persistent", "stop", "stop")),
    ],
)
def test_what_becomes_of_a_machine(
    cloud: Cloud, market: Market, run_owned: bool, on_preempt: OnPreempt | None, expected: tuple[str, ...]
) -> None:
    options = LaunchOptions(on_preempt=on_preempt)
    machine = cloud.launch(offer=replace(SPOT, market=market), run_owned=run_owned, options=options)
    ec2 = cloud.ec2()
    requests = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    kinds = [(each["Type"], each["InstanceInterruptionBehavior"]) for each in requests] or [(None, None)]
    shutdown = ec2.describe_instance_attribute(
        InstanceId=machine.id, Attribute="instanceInitiatedShutdownBehavior"
    )["InstanceInitiatedShutdownBehavior"]["Value"]
    assert [(*kind, shutdown) for kind in kinds] == [expected]


def test_the_record_of_a_machine(cloud: Cloud) -> None:
    machine = cloud.launch(offer=ON_DEMAND)
    assert (machine.provider, machine.region, machine.zone, machine.type) == (
        "aws",
        REGION,
        ZONE,
        "p2.xlarge",
    )
    assert (machine.market, machine.price_per_hour_usd) == (Market.ON_DEMAND, Decimal("0.9"))
    assert (machine.gpu, machine.gpu_count, machine.gpu_memory_gib) == ("K80", 1, 12.0)
    assert machine.disk_gb == launching.LEAST_DISK_GB
    assert machine.launched_at is not None
    assert datetime.now(UTC) - machine.launched_at < timedelta(minutes=1)
    running = cloud.until(machine, MachineState.RUNNING)
    assert running.address is not None
    assert (running.address.user, running.address.port) == ("ubuntu", 22)
    assert running.address.key_path.is_file()
    public = (cloud.settings.keys_dir / "k80" / "host_key.pub").read_text().split()
    assert running.address.host_key.split() == public[:2]


def test_the_user_data_carries_keys_and_guard(cloud: Cloud) -> None:
    machine = cloud.launch()
    sent = cloud.ec2().describe_instance_attribute(InstanceId=machine.id, Attribute="userData")
    config = gzip.decompress(base64.b64decode(sent["UserData"]["Value"])).decode()
    assert config.startswith("#cloud-config\n")
    data = yaml.safe_load(config)
    folder = cloud.settings.keys_dir / "k80"
    assert data["ssh_authorized_keys"] == [(folder / "id_ed25519.pub").read_text().strip()]
    assert data["ssh_keys"]["ed25519_private"] == (folder / "host_key").read_text()
    policies = [json.loads(each["content"]) for each in data["write_files"] if "policy" in each["path"]]
    assert [each["release"] for each in policies] == [["sudo", "shutdown", "-h", "now"]]
    assert [each["notices"] for each in policies] == ["aws"]


def test_a_prepared_account_is_asked_twice_for_one_machine_or_fifty(cloud: Cloud) -> None:
    cloud.launch("first", offer=ON_DEMAND)
    cloud.calls()
    cloud.launch("second")
    assert cloud.calls() == {"DescribeSecurityGroups": 1, "RunInstances": 1}
    cloud.double.set_quota(REGION, "L-1216C47A", 1000)
    many = cloud.provider().launch_many(spec("many", offer=CPU), 50)
    assert cloud.calls() == {"DescribeSecurityGroups": 1, "RunInstances": 1}
    assert [machine.name for machine in many] == [f"many-{number}" for number in range(1, 51)]
    assert len({machine.id for machine in many}) == 50
    provider = cloud.provider()
    ready = until(
        lambda: provider.describe_many(many),
        lambda seen: all(machine.state is MachineState.RUNNING for machine in seen),
    )
    cloud.calls()
    assert [machine.id for machine in provider.describe_many(many)] == [machine.id for machine in many]
    assert cloud.calls() == {"DescribeInstances": 1}
    assert len({machine.address.host for machine in ready if machine.address}) == 50
    assert all(machine.address and machine.address.key_path.is_file() for machine in ready)
    again = provider.launch_many(spec("many", offer=CPU), 50)
    assert [machine.id for machine in again] == [machine.id for machine in many]


def test_launch_is_idempotent_by_token(cloud: Cloud) -> None:
    first, second = cloud.launch(), cloud.launch()
    assert (second.id, second.token) == (first.id, first.token)
    assert cloud.alive() == [first.id]
    kept = load_launched(cloud.settings.keys_dir / "k80")
    assert kept
    assert not kept.request  # it had the host's private key in it


def test_a_lost_answer_is_told_as_such_and_asked_for_again(cloud: Cloud) -> None:
    cloud.double.fault("RunInstances", lose_answer=True)
    with pytest.raises(ConnectionLost, match="k80"):
        cloud.launch()
    [made] = cloud.alive()
    cloud.double.fault("RunInstances", "ExpiredToken", status=400)
    with pytest.raises(ConnectionLost, match="ExpiredToken"):  # says nothing of the first call
        cloud.launch()
    cloud.double.fault("RunInstances", "InternalError", status=500)
    with pytest.raises(ConnectionLost):
        cloud.launch()
    later = spec("k80", guard=Guard(issued_at=datetime.now(UTC), idle_minutes=5))
    assert cloud.provider().launch(later).id == made  # the first request is sent again, not another
    assert cloud.alive() == [made]


def test_a_refusal_leaves_nothing(cloud: Cloud) -> None:
    options = LaunchOptions(fixed_address=True)
    cloud.double.fault("RunInstances", "InsufficientInstanceCapacity", status=500, times=None)
    with pytest.raises(NoCapacity):
        cloud.launch(options=options)
    assert cloud.calls()["RunInstances"] == 1  # botocore would ask again and hide it
    assert not (cloud.settings.keys_dir / "k80").exists()
    assert cloud.ec2().describe_addresses()["Addresses"] == []
    cloud.double.clear_faults()
    cloud.double.fault("RunInstances", "ExpiredToken", status=400)
    with pytest.raises(Credentials):
        cloud.launch()
    assert not (cloud.settings.keys_dir / "k80").exists()
    assert cloud.launch(token="another").token == "another"


def test_refusals_are_named(cloud: Cloud) -> None:
    cloud.double.set_quota(REGION, "L-7212CCBC", 0)
    with pytest.raises(Quota, match=REGION):
        cloud.launch()
    cloud.double.set_quota(REGION, "L-7212CCBC", 64)
    cloud.double.set_spot_price("p2.xlarge", ZONE, "0.5")
    with pytest.raises(NoCapacity, match="SpotMaxPriceTooLow"):
        cloud.launch(options=LaunchOptions(max_price_per_hour_usd=Decimal("0.3")))
    with pytest.raises(NotOffered, match=r"x9\.huge"):
        cloud.launch(offer=replace(SPOT, type="x9.huge"))
    assert cloud.alive() == []


def test_a_throttled_launch_is_sent_again(cloud: Cloud, impatient: None) -> None:
    cloud.double.throttle("RunInstances", times=3)
    machine = cloud.launch()
    assert cloud.calls()["RunInstances"] == 4
    assert cloud.alive() == [machine.id]
    cloud.double.throttle("RunInstances", times=None)
    with pytest.raises(ProviderError, match="throttled"):
        cloud.launch("two")


def test_a_group_that_went_meanwhile_is_made_again(cloud: Cloud) -> None:
    cloud.double.fault("RunInstances", lose_answer=False, code="InternalError", status=500)
    with pytest.raises(ConnectionLost):
        cloud.launch()
    [group] = ours(cloud)
    cloud.ec2().delete_security_group(GroupId=group["GroupId"])
    machine = cloud.launch()
    [again] = ours(cloud)
    assert again["GroupId"] != group["GroupId"]
    assert cloud.instance(machine)["SecurityGroups"][0]["GroupId"] == again["GroupId"]


def test_without_a_default_network_a_subnet_is_asked_for(cloud: Cloud) -> None:
    ec2 = cloud.ec2()
    [default] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [default["VpcId"]]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=default["VpcId"])
    with pytest.raises(NotOffered, match=REGION) as caught:
        cloud.launch()
    assert "--subnet" in caught.value.hint
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24", AvailabilityZone=ZONE)["Subnet"][
        "SubnetId"
    ]
    machine = cloud.launch_running(options=LaunchOptions(subnet=subnet))
    instance = cloud.instance(machine)
    assert (instance["SubnetId"], instance["VpcId"]) == (subnet, vpc)
    assert instance["PublicIpAddress"] == machine.address.host  # type: ignore[union-attr]
    assert ours(cloud)[0]["VpcId"] == vpc
    with pytest.raises(ProviderError, match="subnet-0123456789abcdef0"):
        cloud.launch("two", options=LaunchOptions(subnet="subnet-0123456789abcdef0"))


def test_a_name_in_use_is_refused_and_a_name_of_the_dead_is_not(cloud: Cloud) -> None:
    first = cloud.launch(token="one", offer=ON_DEMAND)
    with pytest.raises(ProviderError, match="k80 is there already"):
        cloud.launch(token="two")
    assert (cloud.settings.keys_dir / "k80" / "id_ed25519").is_file()
    cloud.ec2().terminate_instances(InstanceIds=[first.id])  # behind our back: its keys are still here
    before = (cloud.settings.keys_dir / "k80" / "id_ed25519").read_text()
    second = cloud.launch(token="two")
    assert second.id != first.id
    assert (cloud.settings.keys_dir / "k80" / "id_ed25519").read_text() != before


def test_a_launch_that_another_computer_made_is_found_by_its_token(cloud: Cloud, tmp_path: Path) -> None:
    first = cloud.launch()
    found = cloud.provider(home=tmp_path / "other").launch(spec())
    assert found.id == first.id
    assert len(cloud.alive()) == 1


def test_the_disk_is_never_smaller_than_the_image(cloud: Cloud) -> None:
    assert cloud.launch("one", disk_gb=1).disk_gb >= 8  # Ubuntu's image has 8
    assert cloud.launch("two").disk_gb == launching.LEAST_DISK_GB
    [one] = [each for each in cloud.ec2().describe_volumes()["Volumes"] if each["Size"] < 64]
    assert one["Size"] >= 8


def test_a_maximum_price_is_sent_as_it_is(cloud: Cloud) -> None:
    cloud.launch(options=LaunchOptions(max_price_per_hour_usd=Decimal("1E+1")))
    [request] = cloud.ec2().describe_spot_instance_requests()["SpotInstanceRequests"]
    assert Decimal(request["SpotPrice"]) == 10


def test_a_fixed_address_is_for_one(cloud: Cloud) -> None:
    with pytest.raises(Refused):
        cloud.provider().launch_many(spec(options=LaunchOptions(fixed_address=True)), 2)


def test_the_kind_of_disk_is_what_was_asked_for(cloud: Cloud) -> None:
    cloud.launch(options=LaunchOptions(disk_type="gp2"))
    assert [each["VolumeType"] for each in cloud.ec2().describe_volumes()["Volumes"]] == ["gp2"]


@pytest.mark.parametrize("asked", [{"dns_label": "my-k80"}, {"resource_group": "mine"}])
def test_what_only_azure_has_is_refused(cloud: Cloud, asked: dict[str, str]) -> None:
    with pytest.raises(Refused, match="neither"):
        cloud.launch(options=LaunchOptions(**asked))
    assert cloud.alive() == []


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, *exhaustive(2, 3)])
def test_a_launch_that_is_killed_anywhere_goes_on_to_one_machine(
    first: int, cloud: Cloud, tmp_path: Path
) -> None:
    """Before and after every third write, request, answer, in a region that was never used before."""
    regions = [name for name in cloud.stranger()._session.regions() if zones_offering(name, CPU.type)]
    done = subprocess.run(
        [
            *(sys.executable, "-c", LAUNCH_AND_DIE, Path(__file__).parent, tmp_path),
            *(cloud.double.url, str(first), *regions),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, code = map(int, done.stdout.split())
    assert code == 0
    assert steps > 20
    made_before = [tokens(cloud).count(f"token-{step}") for step in range(first, steps + 1, 3)]
    assert set(made_before) == {0, 1}
    for step, region in zip(range(first, steps, 3), regions, strict=False):
        provider = cloud.provider(home=tmp_path / str(step))
        asked = spec("box", token=f"token-{step}", offer=replace(CPU, region=region))
        machine = provider.launch(asked)
        assert tokens(cloud).count(f"token-{step}") == 1, step
        assert provider.launch(asked).id == machine.id
        assert [each.name for each in (tmp_path / str(step) / "keys").iterdir()] == ["box"]
        assert provider.describe(machine).address is not None
        assert len(ours(cloud, region)) == 1, step


def ours(cloud: Cloud, region: str = REGION) -> list[dict[str, Any]]:
    filters = [{"Name": "tag:cloudrun", "Values": ["1"]}]
    groups: list[dict[str, Any]] = cloud.ec2(region).describe_security_groups(Filters=filters)[
        "SecurityGroups"
    ]
    return groups


def tokens(cloud: Cloud) -> list[str]:
    return [each["tags"]["cloudrun-token"] for each in cloud.double.instances()]
