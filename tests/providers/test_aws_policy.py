"""provisioning/policies/aws.json: all that the provider does works with it, and without any one action of it
something does not.

The double judges actions alone: the policy's resources and conditions are taken off for it, and judged
here as text.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from aws_account import HOME_REGION, use_keys
from aws_help import QUICK, SPOT, STACK, TYPE, spec
from policy_cases import Part, Played, broken_without, outcomes_of, play_all, used_by
from waiting import until

from cloudrun.assets import provisioning_dir
from cloudrun.config import Settings
from cloudrun.images import ImageState
from cloudrun.models import Guard, LaunchOptions, Machine, MachineState
from cloudrun.providers.aws import AwsProvider
from cloudrun.providers.aws.errors import POLICY
from cloudrun.providers.aws.session import Session
from cloudrun.providers.base import Need
from cloudrun.providers.rented import fact
from cloudrun.providers.tags import image_tags, owner_of
from cloudrun.sim.aws import AwsDouble, Call

REGION, ZONE = "us-west-2", "us-west-2a"
HERE = replace(SPOT, region=REGION, zone=ZONE)
DENIED = ("UnauthorizedOperation", "AccessDeniedException", "AccessDenied")
OURS = [{"Key": "cloudrun", "Value": "1"}]
MOST_CHARACTERS = 6144  # of a managed policy, white space not counted (IAM user guide, quotas)
# The double makes no role at the first spot launch of an account, so nothing on it can need this right.
NOT_REHEARSED = "iam:CreateServiceLinkedRole"

DOCUMENT: dict[str, Any] = json.loads((provisioning_dir() / "policies" / "aws.json").read_text())


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


ACTIONS = sorted({action for each in DOCUMENT["Statement"] for action in listed(each["Action"])})
REHEARSED = [action for action in ACTIONS if action != NOT_REHEARSED]


# --- the text ---


def test_it_fits_into_a_managed_policy() -> None:
    assert len(json.dumps(DOCUMENT, separators=(",", ":"))) <= MOST_CHARACTERS


def test_no_action_is_a_pattern() -> None:
    assert not [action for action in ACTIONS if "*" in action]


def test_what_changes_something_is_bound_to_our_tag_or_to_a_resource() -> None:
    for statement in DOCUMENT["Statement"]:
        changing = [each for each in listed(statement["Action"]) if not is_reading(each)]
        assert not changing or statement["Resource"] != "*" or "Condition" in statement, statement["Sid"]


def is_reading(action: str) -> bool:
    return action.partition(":")[2].startswith(("Describe", "Get", "List"))


def test_machines_of_others_cannot_be_ended() -> None:
    ending = [each for each in DOCUMENT["Statement"] if "ec2:TerminateInstances" in listed(each["Action"])]
    assert [each["Condition"] for each in ending] == [{"StringEquals": {"aws:ResourceTag/cloudrun": "1"}}]


def test_errors_name_the_file() -> None:
    assert POLICY == "provisioning/policies/aws.json"


# --- the rehearsal ---

_loader = botocore.session.Session().get_component("data_loader")  # reads EC2's description once for all


def boto_session(key: str, secret: str) -> boto3.Session:
    core = botocore.session.Session()
    core.register_component("data_loader", _loader)
    return boto3.Session(key, secret, region_name=HOME_REGION, botocore_session=core)


@dataclass
class Stage:
    """The account with its owner, for whom no rights are checked, and a renter with the policy."""

    double: AwsDouble
    home: Path
    owners: boto3.Session
    renters: boto3.Session
    numbers: Iterator[int] = field(default_factory=itertools.count)
    calls: list[Call] = field(default_factory=list)  # of the renter, in the part that was played last

    @property
    def settings(self) -> Settings:
        """Of a new home folder, where no answer is kept."""
        url = f"{self.double.url}/_sim/address"
        return Settings(home=self.home / str(next(self.numbers)), address_url=url)

    def owner(self) -> AwsProvider:
        return self._provider(self.owners)

    def renter(self) -> AwsProvider:
        return self._provider(self.renters)

    def _provider(self, boto: boto3.Session) -> AwsProvider:
        provider = AwsProvider(self.settings)
        provider._session._boto = boto
        return provider

    def ec2(self) -> Any:
        return self.owners.client("ec2", REGION)

    def launch(self, provider: AwsProvider, **more: Any) -> Machine:
        name = f"k80-{next(self.numbers)}"
        return provider.launch(spec(name, offer=HERE, **more))

    def machine(self) -> Machine:
        """One that runs, launched by the owner: persistent spot."""
        owner = self.owner()
        return self.running(owner, self.launch(owner))

    def running(self, provider: AwsProvider, machine: Machine) -> Machine:
        return until(lambda: provider.describe(machine), lambda seen: seen.state is MachineState.RUNNING)

    def grant(self, actions: list[str]) -> None:
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam = self.owners.client("iam")
        iam.put_user_policy(UserName="renter", PolicyName="cloudrun", PolicyDocument=document)

    @contextmanager
    def rights(self) -> Iterator[None]:
        """Rights are checked inside: all that is called there is called by the renter."""
        self.double.forget_calls()
        self.double.set_rights(True)
        try:
            yield
        finally:
            self.double.set_rights(False)
            self.calls = self.double.calls()

    def used(self) -> frozenset[str]:
        return frozenset(f"{call.service}:{call.action}" for call in self.calls)

    def refused(self) -> frozenset[str]:
        return frozenset(f"{call.service}:{call.action}" for call in self.calls if call.code in DENIED)

    def clear(self) -> None:
        """Nothing of ours is left in the region."""
        ec2, tagged = self.ec2(), [{"Name": "tag:cloudrun", "Values": ["1"]}]
        asked = ec2.describe_spot_instance_requests(
            Filters=[{"Name": "state", "Values": ["active", "disabled", "open"]}]
        )
        if requests := [each["SpotInstanceRequestId"] for each in asked["SpotInstanceRequests"]]:
            ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=requests)
        if alive := self.alive():
            ec2.terminate_instances(InstanceIds=alive)
        until(self.alive, lambda ids: not ids)
        for volume in ec2.describe_volumes()["Volumes"]:
            ec2.delete_volume(VolumeId=volume["VolumeId"])
        for address in ec2.describe_addresses()["Addresses"]:
            ec2.release_address(AllocationId=address["AllocationId"])
        for image in ec2.describe_images(Owners=["self"], Filters=tagged)["Images"]:
            ec2.deregister_image(ImageId=image["ImageId"])
        for snapshot in ec2.describe_snapshots(Filters=tagged)["Snapshots"]:
            ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
        for group in ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]:
            ec2.delete_security_group(GroupId=group["GroupId"])

    def alive(self) -> list[str]:
        there = [each for each in self.double.instances() if each["region"] == REGION]
        return [each["id"] for each in there if each["state"] != "terminated"]


def offers(stage: Stage) -> object:
    need = Need(type=TYPE, regions=(HOME_REGION, "eu-north-1"))
    with stage.rights():
        found = stage.renter().offers(need)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    return [
        (
            each.region,
            each.zone,
            each.market,
            each.fits,
            bool(each.price_as_of and each.price_as_of >= yesterday),
        )
        for each in found
    ]


def spot_prices(stage: Stage) -> object:
    machine, now = stage.machine(), datetime.now(UTC)
    with stage.rights():
        return bool(stage.renter().spot_prices(machine, now - timedelta(hours=1), now))


def image(stage: Stage) -> object:
    with stage.rights():
        return stage.renter().find_image(STACK, REGION)


def first_launch(stage: Stage) -> object:
    """Where nothing of ours is yet."""
    renter = stage.renter()
    with stage.rights():
        return stage.running(renter, stage.launch(renter)).state


def launch_into_a_subnet(stage: Stage) -> object:
    renter = stage.renter()
    subnets = stage.ec2().describe_subnets(Filters=[{"Name": "availability-zone", "Values": [ZONE]}])
    options = LaunchOptions(subnet=subnets["Subnets"][0]["SubnetId"])
    with stage.rights():
        return stage.running(renter, stage.launch(renter, options=options)).state


def fixed_address(stage: Stage) -> object:
    renter = stage.renter()
    with stage.rights():
        machine = stage.launch(renter, options=LaunchOptions(fixed_address=True))
        machine = stage.running(renter, machine)
        renter.terminate(machine)
    host = machine.address.host if machine.address else ""
    return host in dict(machine.detail)["fixed-address"], len(stage.ec2().describe_addresses()["Addresses"])


def another_address(stage: Stage) -> object:
    """This computer had another address before: its rule goes."""
    machine, renter = stage.machine(), stage.renter()
    group = dict(machine.detail)["group"]
    old = {"CidrIp": "192.0.2.1/32", "Description": owner_of(renter._session.settings)}
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [old]}
    stage.ec2().authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    with stage.rights():
        renter.open_access(machine)
    [found] = stage.ec2().describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return sorted(each["CidrIp"] for rule in found["IpPermissions"] for each in rule["IpRanges"])


def machines(stage: Stage) -> object:
    stage.machine()
    with stage.rights():
        return [(machine.region, machine.state) for machine in stage.renter().list_machines()]


def stop_and_start(stage: Stage) -> object:
    machine, renter = stage.machine(), stage.renter()
    with stage.rights():
        renter.stop(machine)
        until(lambda: renter.describe(machine), lambda seen: fact(seen, "state") == "stopped")
        return stage.running(renter, renter.start(machine)).state


def guard(stage: Stage) -> object:
    machine, renter = stage.machine(), stage.renter()
    with stage.rights():
        renter.set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=7))
    [seen] = [each for each in stage.owner().list_machines() if each.id == machine.id]
    return seen.deadline_at, seen.idle_minutes


def disk(stage: Stage) -> object:
    machine, renter = stage.machine(), stage.renter()
    with stage.rights():
        renter.resize_disk(machine, 200)
        return until(lambda: renter.disk_ready(machine, 200), bool)


def images(stage: Stage) -> object:
    """A machine's disk kept, found for a launch, and deleted."""
    machine, renter = stage.machine(), stage.renter()
    tags = image_tags("small", "ab" * 32, "small-1", owner="renter", stored_gb=3)
    with stage.rights():
        asked = renter.create_image(machine, "small-1", tags)
        made = until(lambda: renter.describe_image(asked), lambda seen: seen.state is not ImageState.PENDING)
        found = renter.own_image("ab" * 32, HERE)
        renter.delete_image(made)
    snapshots = stage.ec2().describe_snapshots(Filters=[{"Name": "tag:cloudrun", "Values": ["1"]}])
    return made.state, found == made.id, len(snapshots["Snapshots"])


def terminate(stage: Stage) -> object:
    """Once to end it, and once more to remove what was still needed while it ended."""
    machine, renter = stage.machine(), stage.renter()
    with stage.rights():
        renter.terminate(machine)
        until(stage.alive, lambda ids: not ids)
        renter.terminate(machine)
    tagged = [{"Name": "tag:cloudrun", "Values": ["1"]}]
    groups = stage.ec2().describe_security_groups(Filters=tagged)["SecurityGroups"]
    requests = stage.ec2().describe_spot_instance_requests(Filters=tagged)["SpotInstanceRequests"]
    return len(groups), {each["State"] for each in requests}


def leftovers(stage: Stage) -> object:
    """One of each kind, found and freed. The machine keeps what it needs."""
    stage.machine()
    litter(stage)
    renter = stage.renter()
    with stage.rights():
        found = renter.list_leftovers()
        for each in found:
            if not each.in_use or each.kind == "spot request":
                renter.free(each)
        left = renter.list_leftovers()
    return sorted((each.kind, each.in_use) for each in found), sorted(each.kind for each in left)


def foreign(stage: Stage) -> object:
    """What others have, of each kind."""
    ec2 = stage.ec2()
    volume = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    ec2.create_snapshot(VolumeId=volume)
    ec2.allocate_address(Domain="vpc")
    with stage.rights():
        return sorted({each.kind for each in stage.renter().list_foreign() if each.region == REGION})


def litter(stage: Stage) -> None:
    ec2 = stage.ec2()

    def tags(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": OURS}]

    volume = ec2.create_volume(AvailabilityZone=ZONE, Size=1, TagSpecifications=tags("volume"))["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags("snapshot"))["SnapshotId"]
    name = f"stack-{next(stage.numbers)}"
    made = ec2.register_image(Name=name, RootDeviceName="/dev/sda1", BlockDeviceMappings=[root(snapshot)])
    ec2.create_tags(Resources=[made["ImageId"]], Tags=OURS)
    ec2.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip"))
    ec2.create_security_group(
        GroupName=name, Description="left", TagSpecifications=tags("security-group")
    )  # fmt: skip


def root(snapshot: str) -> dict[str, Any]:
    return {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}


PARTS: tuple[Part, ...] = (
    offers,
    spot_prices,
    image,
    first_launch,
    launch_into_a_subnet,
    fixed_address,
    another_address,
    machines,
    stop_and_start,
    guard,
    disk,
    images,
    terminate,
    leftovers,
    foreign,
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch, AwsDouble(delay_s=QUICK) as double:
        use_keys(patch, home, AWS_ENDPOINT_URL=double.url)
        real = Session.regions  # the double has 38; two of them show as much
        patch.setattr(Session, "regions", lambda session: [HOME_REGION, REGION] if real(session) else [])
        owners = boto_session("AKIAOWNER", "owner")
        iam = owners.client("iam")
        iam.create_user(UserName="renter")
        key = iam.create_access_key(UserName="renter")["AccessKey"]
        for letter in "abcde":
            double.set_spot_price(TYPE, f"us-east-1{letter}", "0.3")
        double.set_capacity(TYPE, "us-east-1a", "spot", 0)  # for the scores
        double.set_quota(HOME_REGION, "L-417A185B", 0)
        yield Stage(double, home, owners, boto_session(key["AccessKeyId"], key["SecretAccessKey"]))


@pytest.fixture(scope="module")
def whole(stage: Stage) -> Mapping[Part, Played]:
    """Every part, played with the policy as it is."""
    return play_all(stage, PARTS, REHEARSED)


def test_everything_works_with_the_policy(whole: Mapping[Part, Played]) -> None:
    outcomes = outcomes_of(whole)
    running = ("first_launch", "launch_into_a_subnet", "stop_and_start")
    assert {outcomes[name] for name in running} == {MachineState.RUNNING}
    assert outcomes["fixed_address"] == (True, 0)
    assert outcomes["another_address"] == ["127.0.0.1/32"]
    assert outcomes["machines"] == [(REGION, MachineState.RUNNING)]
    assert outcomes["guard"] == (None, 7)
    assert outcomes["images"] == (ImageState.AVAILABLE, True, 0)
    assert outcomes["terminate"] == (0, {"cancelled"})
    assert outcomes["spot_prices"] is True


def test_the_policy_names_just_what_is_used(whole: Mapping[Part, Played]) -> None:
    assert used_by(whole) == REHEARSED


@pytest.mark.parametrize("action", REHEARSED)
def test_without_one_action_something_breaks(stage: Stage, whole: Mapping[Part, Played], action: str) -> None:
    assert next(broken_without(stage, whole, action), None) is not None
