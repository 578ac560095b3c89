"""RunInstances on the double: what is made, what is refused, and the same answer to the same token."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from double_help import PERSISTENT, REGION, TYPE, ZONE, Account, account, ids_of, named, refused, status_of

from cloudrun.models import Market

SPOT: dict[str, str] = {}


@pytest.fixture
def aws() -> Iterator[Account]:
    with account() as each:
        yield each


def count(account: Account) -> int:
    return len(ids_of(account.ec2.describe_instances()))


def test_a_launch_answers_at_once_and_runs_a_moment_later(aws: Account) -> None:
    image = aws.image()
    [made] = aws.ec2.run_instances(ImageId=image, InstanceType=TYPE, MinCount=1, MaxCount=1)["Instances"]
    assert made["State"]["Name"] == "pending"
    assert made["ImageId"] == image
    instance = aws.wait(made["InstanceId"], "running")
    assert instance["PublicIpAddress"].startswith("127.")
    assert instance["LaunchTime"] == made["LaunchTime"]
    assert "InstanceLifecycle" not in instance
    assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["default"]


def test_addresses_are_never_given_twice(aws: Account) -> None:
    addresses = {aws.describe(each)["PublicIpAddress"] for each in aws.launch(count=10)}
    assert len(addresses) == 10


def test_many_are_numbered_in_one_reservation(aws: Account) -> None:
    image = aws.image()
    answer = aws.ec2.run_instances(ImageId=image, InstanceType=TYPE, MinCount=2, MaxCount=3)
    assert [each["AmiLaunchIndex"] for each in answer["Instances"]] == [0, 1, 2]
    found = aws.ec2.describe_instances(Filters=[named("reservation-id", answer["ReservationId"])])
    assert ids_of(found) == [each["InstanceId"] for each in answer["Instances"]]
    assert aws.describe(answer["Instances"][2]["InstanceId"])["AmiLaunchIndex"] == 2


def test_every_resource_has_its_tags_from_the_start(aws: Account) -> None:
    kinds = ("instance", "volume", "spot-instances-request")
    tags = [{"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}]} for kind in kinds]
    [one] = aws.launch(spot=SPOT, TagSpecifications=tags)
    assert aws.describe(one)["Tags"] == tags[0]["Tags"]
    [volume] = aws.ec2.describe_volumes(Filters=[named("tag:kind", "volume")])["Volumes"]
    assert volume["VolumeId"] == aws.root_volume(one)
    assert aws.request_of(one)["Tags"] == tags[2]["Tags"]


def test_the_same_token_gives_the_same_instances(aws: Account) -> None:
    first = aws.launch(ClientToken="once", count=2)
    assert aws.launch(ClientToken="once", count=2) == first
    assert count(aws) == 2
    assert aws.launch(ClientToken="twice", count=2) != first


def test_the_answer_to_a_known_token_has_the_state_of_now(aws: Account) -> None:
    request = {"ImageId": aws.image(), "InstanceType": TYPE, "MinCount": 1, "MaxCount": 1}
    [made] = aws.ec2.run_instances(**request, ClientToken="once")["Instances"]
    aws.wait(made["InstanceId"], "running")
    [again] = aws.ec2.run_instances(**request, ClientToken="once")["Instances"]
    assert again["State"]["Name"] == "running"


def test_one_token_from_many_threads_makes_one(aws: Account) -> None:
    image = aws.image()
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: aws.launch(ImageId=image, ClientToken="once"), range(6)))
    assert len({each for [each] in made}) == 1
    assert count(aws) == 1


def test_the_token_of_machines_that_are_gone_is_refused(aws: Account) -> None:
    first, second = aws.launch(ClientToken="once", count=2)
    aws.ec2.terminate_instances(InstanceIds=[first])
    aws.wait(first, "terminated")
    assert aws.launch(ClientToken="once", count=2) == [first, second]
    aws.ec2.terminate_instances(InstanceIds=[second])
    aws.wait(second, "terminated")
    with refused("IdempotentInstanceTerminated"):
        aws.launch(ClientToken="once", count=2)


def test_another_request_under_a_known_token_is_refused(aws: Account) -> None:
    aws.launch(ClientToken="once")
    with refused("IdempotentParameterMismatch"):
        aws.launch(ClientToken="once", count=2)


def test_a_token_belongs_to_its_region(aws: Account) -> None:
    here = aws.launch(ClientToken="once")
    aws.ec2 = aws.client("ec2", "eu-west-1")
    assert aws.launch(ClientToken="once") != here


def test_a_refused_launch_does_not_use_its_token_up(aws: Account) -> None:
    aws.double.set_capacity(TYPE, count=0)
    with refused("InsufficientInstanceCapacity"):
        aws.launch(ClientToken="once")
    aws.double.set_capacity(TYPE, count=None)
    assert aws.launch(ClientToken="once")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("InvalidParameterValue", {"InstanceType": "p2.huge"}),
        ("Unsupported", {"InstanceType": "g2.2xlarge"}),
        ("Unsupported", {"Placement": {"AvailabilityZone": "us-east-1f"}}),
        ("InvalidParameterValue", {"Placement": {"AvailabilityZone": "us-east-9a"}}),
        ("InvalidAMIID.NotFound", {"ImageId": "ami-0123456789abcdef0"}),
        ("InvalidAMIID.Malformed", {"ImageId": "ami-zz"}),
        ("InvalidParameterValue", {"ImageId": "resolve:ssm:/no/such"}),
        ("InvalidParameterValue", {"InstanceType": "g5g.xlarge"}),
        ("InvalidKeyPair.NotFound", {"KeyName": "nobody"}),
        ("InvalidParameterValue", {"IamInstanceProfile": {"Name": "nobody"}}),
        ("InvalidGroup.NotFound", {"SecurityGroupIds": ["sg-0123456789abcdef0"]}),
        ("InvalidSubnetID.NotFound", {"SubnetId": "subnet-0123456789abcdef0"}),
        ("InvalidParameterValue", {"UserData": "x" * 16385}),
        ("InvalidParameterValue", {"MinCount": 3, "MaxCount": 2}),
        ("InvalidParameterValue", {"InstanceMarketOptions": {"MarketType": "capacity-block"}}),
        (
            "InvalidParameterCombination",
            {
                "InstanceMarketOptions": {
                    "MarketType": "spot",
                    "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "stop"},
                }
            },
        ),
        (
            "InvalidBlockDeviceMapping",
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 7}}]},
        ),
        ("UnsupportedOperation", {"LaunchTemplate": {"LaunchTemplateName": "some"}}),
        ("DryRunOperation", {"DryRun": True}),
    ],
)
def test_a_wrong_launch_is_refused_and_makes_nothing(aws: Account, code: str, told: dict[str, Any]) -> None:
    before = count(aws)
    with refused(code):
        aws.launch(**told)
    assert count(aws) == before


def test_user_data_of_the_greatest_size_is_taken(aws: Account) -> None:
    assert aws.launch(UserData="x" * 16384)


def test_the_zone_asked_for_is_the_zone(aws: Account) -> None:
    [one] = aws.launch(Placement={"AvailabilityZone": "us-east-1c"})
    assert aws.describe(one)["Placement"]["AvailabilityZone"] == "us-east-1c"
    assert aws.describe(one)["BlockDeviceMappings"]


def test_a_subnet_decides_the_zone(aws: Account) -> None:
    [subnet] = aws.ec2.describe_subnets(Filters=[named("availability-zone", "us-east-1d")])["Subnets"]
    [one] = aws.launch(SubnetId=subnet["SubnetId"])
    assert aws.describe(one)["Placement"]["AvailabilityZone"] == "us-east-1d"
    assert aws.describe(one)["PublicIpAddress"]


def test_without_a_default_network_a_launch_names_what_is_missing(aws: Account) -> None:
    ec2 = aws.ec2
    image = aws.image()
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for network in ec2.describe_vpcs()["Vpcs"]:
        ec2.delete_vpc(VpcId=network["VpcId"])
    with refused("VPCIdNotSpecified"):
        aws.launch(ImageId=image)


def test_the_root_disk_has_the_size_asked_for_and_goes_with_its_machine(aws: Account) -> None:
    root = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 70, "VolumeType": "gp3", "Encrypted": True}}
    one = aws.running(BlockDeviceMappings=[root])
    [volume] = aws.ec2.describe_volumes()["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (70, "gp3", True)
    aws.ec2.terminate_instances(InstanceIds=[one])
    aws.wait(one, "terminated")
    assert aws.ec2.describe_volumes()["Volumes"] == []
    assert aws.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_a_root_disk_that_is_to_stay_stays(aws: Account) -> None:
    root = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 9, "DeleteOnTermination": False}}
    one = aws.running(BlockDeviceMappings=[root])
    aws.ec2.terminate_instances(InstanceIds=[one])
    assert [each["State"] for each in aws.ec2.describe_volumes()["Volumes"]] == ["available"]


def test_without_capacity_the_zone_is_named(aws: Account) -> None:
    aws.double.set_capacity(TYPE, ZONE, count=0)
    with refused("InsufficientInstanceCapacity", ZONE) as caught:
        aws.launch(Placement={"AvailabilityZone": ZONE})
    assert status_of(caught) == 500
    [one] = aws.launch()
    assert aws.describe(one)["Placement"]["AvailabilityZone"] != ZONE


def test_less_capacity_than_wanted_gives_what_there_is(aws: Account) -> None:
    aws.double.set_capacity(TYPE, count=0)
    aws.double.set_capacity(TYPE, "us-east-1b", count=2)
    with refused("InsufficientInstanceCapacity"):
        aws.launch(count=3)
    image = aws.image()
    aws.double.set_capacity(TYPE, count=None)
    told = {"ImageId": image, "InstanceType": TYPE, "Placement": {"AvailabilityZone": "us-east-1b"}}
    assert len(aws.ec2.run_instances(**told, MinCount=1, MaxCount=5)["Instances"]) == 2


def test_capacity_comes_back_when_a_machine_ends(aws: Account) -> None:
    aws.double.set_capacity(TYPE, market="on-demand", count=1)
    one = aws.running()
    with refused("InsufficientInstanceCapacity"):
        aws.launch()
    assert aws.launch(spot=SPOT)
    aws.ec2.terminate_instances(InstanceIds=[one])
    assert aws.launch()


def test_the_markets_have_quotas_of_their_own(aws: Account) -> None:
    aws.double.set_quota(REGION, "L-417A185B", 4)
    aws.double.set_quota(REGION, "L-7212CCBC", 4)
    on_demand, spot = aws.running(), aws.running(spot=SPOT)
    with refused("VcpuLimitExceeded", "limit of 4"):
        aws.launch()
    with refused("MaxSpotInstanceCountExceeded"):
        aws.launch(spot=SPOT)
    assert aws.launch(InstanceType="t3.micro")
    aws.ec2.terminate_instances(InstanceIds=[on_demand, spot])
    assert aws.launch()
    assert aws.launch(spot=SPOT)


def test_a_maximum_below_the_price_is_refused(aws: Account) -> None:
    aws.double.set_spot_price(TYPE, ZONE, "0.25")
    here = {"AvailabilityZone": ZONE}
    with refused("SpotMaxPriceTooLow", r"0\.2 .*0\.25"):
        aws.launch(spot={"MaxPrice": "0.2"}, Placement=here)
    [one] = aws.launch(spot={"MaxPrice": "0.25"}, Placement=here)
    assert aws.request_of(one)["SpotPrice"] == "0.25"


def test_spot_is_told_apart(aws: Account) -> None:
    [one] = aws.launch(spot=PERSISTENT, ClientToken="told apart")
    instance, request = aws.describe(one), aws.request_of(one)
    assert instance["InstanceLifecycle"] == Market.SPOT.value
    assert instance["SpotInstanceRequestId"] == request["SpotInstanceRequestId"]
    assert (request["State"], request["Status"]["Code"]) == ("active", "fulfilled")
    assert (request["Type"], request["InstanceInterruptionBehavior"]) == ("persistent", "stop")


@pytest.mark.parametrize(
    ("name", "value"), [("client-token", "by filter"), ("instance-lifecycle", "spot"), ("instance-id", "")]
)
def test_instances_are_found_by_filters_that_moto_lacks(aws: Account, name: str, value: str) -> None:
    [one] = aws.launch(spot=SPOT, ClientToken="by filter")
    assert one in ids_of(aws.ec2.describe_instances(Filters=[named(name, value or one)]))
    wrong = [named(name, value or one), named("client-token", "of nobody")]
    assert ids_of(aws.ec2.describe_instances(Filters=wrong)) == []


def test_a_filter_that_does_not_exist_is_refused(aws: Account) -> None:
    aws.launch()
    with refused("InvalidParameterValue", "instance-colour"):
        aws.ec2.describe_instances(Filters=[named("instance-colour", "red")])


def test_what_was_just_launched_may_not_be_seen_yet(aws: Account) -> None:
    old = aws.running()
    aws.double.set_visible_after_s(3600)
    [one] = aws.launch(ClientToken="once")
    for call in (aws.ec2.describe_instances, aws.ec2.terminate_instances, aws.ec2.stop_instances):
        with refused("InvalidInstanceID.NotFound", one):
            call(InstanceIds=[one])
    assert ids_of(aws.ec2.describe_instances()) == [old]
    assert ids_of(aws.ec2.describe_instances(Filters=[named("instance-type", TYPE)])) == [old]
    assert aws.launch(ClientToken="once") == [one]


@pytest.mark.parametrize("call", ["request_spot_fleet", "create_fleet"])
def test_other_ways_to_launch_say_that_they_are_not_rehearsed(aws: Account, call: str) -> None:
    told: dict[str, Any] = {
        "request_spot_fleet": {"SpotFleetRequestConfig": {"IamFleetRole": "a", "TargetCapacity": 1}},
        "create_fleet": {
            "LaunchTemplateConfigs": [],
            "TargetCapacitySpecification": {"TotalTargetCapacity": 1},
        },
    }
    with refused("UnsupportedOperation"):
        getattr(aws.ec2, call)(**told[call])
