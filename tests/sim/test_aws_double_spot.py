"""Spot on the double: requests, interruptions, and what EC2 does by itself afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from double_help import PERSISTENT, QUICK, TYPE, ZONE, Account, account, ids_of, named, refused, until

PERSISTENT_TERMINATE = {"SpotInstanceType": "persistent"}


@pytest.fixture
def aws() -> Iterator[Account]:
    with account() as each:
        yield each


def request(aws: Account, sir: str) -> tuple[str, str]:
    [found] = aws.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[sir])["SpotInstanceRequests"]
    return found["State"], found["Status"]["Code"]


def sir_of(aws: Account, one: str) -> str:
    return str(aws.describe(one)["SpotInstanceRequestId"])


def test_a_one_time_machine_is_taken_with_its_reason(aws: Account) -> None:
    one = aws.running(spot={})
    sir = sir_of(aws, one)
    aws.double.preempt(one, notice_s=3600)
    assert request(aws, sir) == ("active", "marked-for-termination")
    assert aws.state(one) == "running"
    aws.double.preempt(one, notice_s=0)
    gone = aws.wait(one, "terminated")
    assert gone["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert gone["StateTransitionReason"].startswith("Service initiated (2")
    assert request(aws, sir) == ("closed", "instance-terminated-no-capacity")


def test_the_status_of_a_request_has_the_time_of_its_change(aws: Account) -> None:
    one = aws.running(spot={})
    before = datetime.now(UTC).replace(microsecond=0)
    aws.double.preempt(one, notice_s=0)
    aws.wait(one, "terminated")
    assert before <= aws.request_of(one)["Status"]["UpdateTime"] <= datetime.now(UTC)


def test_a_persistent_machine_with_stop_comes_back_by_itself(aws: Account) -> None:
    one = aws.running(spot=PERSISTENT)
    sir, volume = sir_of(aws, one), aws.root_volume(one)
    aws.double.set_capacity(TYPE, count=0)
    aws.double.preempt(one, notice_s=0)
    stopped = aws.wait(one, "stopped")
    assert stopped["StateReason"]["Code"] == "Server.SpotInstanceShutdown"
    assert request(aws, sir) == ("disabled", "instance-stopped-no-capacity")
    with refused("IncorrectSpotRequestState", "Only Amazon EC2"):
        aws.ec2.start_instances(InstanceIds=[one])
    aws.double.set_capacity(TYPE, count=None)
    aws.wait(one, "running")
    assert request(aws, sir) == ("active", "fulfilled")
    assert aws.root_volume(one) == volume


def test_a_persistent_machine_that_was_terminated_is_replaced(aws: Account) -> None:
    one = aws.running(spot=PERSISTENT_TERMINATE, ClientToken="once")
    sir = sir_of(aws, one)
    aws.double.set_capacity(TYPE, count=0)
    aws.double.preempt(one, notice_s=0)
    aws.wait(one, "terminated")
    until(lambda: request(aws, sir) == ("open", "capacity-not-available"), "the request to wait")
    aws.double.set_capacity(TYPE, count=None)
    until(lambda: aws.request_of_sir(sir)["InstanceId"] != one, "another instance")
    two = aws.request_of_sir(sir)["InstanceId"]
    aws.wait(two, "running")
    assert sir_of(aws, two) == sir
    assert aws.describe(two).get("ClientToken") != "once"


def test_the_owner_who_forgets_the_request_gets_another_machine(aws: Account) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cloudrun", "Value": "1"}]}]
    one = aws.running(spot=PERSISTENT, TagSpecifications=tags)
    aws.ec2.terminate_instances(InstanceIds=[one])
    alive = [named("instance-state-name", "pending", "running"), named("tag:cloudrun", "1")]
    until(lambda: ids_of(aws.ec2.describe_instances(Filters=alive)) not in ([], [one]), "another machine")


def test_the_owner_who_cancels_the_request_first_gets_none(aws: Account) -> None:
    one = aws.running(spot=PERSISTENT)
    sir = sir_of(aws, one)
    answer = aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[sir])
    assert answer["CancelledSpotInstanceRequests"] == [{"SpotInstanceRequestId": sir, "State": "cancelled"}]
    assert aws.state(one) == "running"
    assert request(aws, sir) == ("cancelled", "request-canceled-and-instance-running")
    aws.ec2.terminate_instances(InstanceIds=[one])
    aws.wait(one, "terminated")
    other = aws.running(spot=PERSISTENT)  # what EC2 would relaunch, it would have by the end of this
    aws.double.set_capacity(TYPE, count=0)
    aws.double.preempt(other, notice_s=0)
    aws.wait(other, "stopped")
    aws.double.set_capacity(TYPE, count=None)
    aws.wait(other, "running")
    assert set(ids_of(aws.ec2.describe_instances())) == {one, other}


def test_a_machine_that_ec2_stopped_ends_with_its_request(aws: Account) -> None:
    one = aws.running(spot=PERSISTENT)
    aws.double.set_capacity(TYPE, count=0)
    aws.double.preempt(one, notice_s=0)
    aws.wait(one, "stopped")
    aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[sir_of(aws, one)])
    aws.wait(one, "terminated")
    assert aws.ec2.describe_volumes()["Volumes"] == []


def test_a_machine_that_its_owner_stopped_ends_with_its_request_too(aws: Account) -> None:
    one = aws.running(spot=PERSISTENT)
    sir = sir_of(aws, one)
    aws.ec2.stop_instances(InstanceIds=[one])
    aws.wait(one, "stopped")
    assert request(aws, sir) == ("disabled", "instance-stopped-by-user")
    aws.ec2.start_instances(InstanceIds=[one])
    aws.wait(one, "running")
    assert request(aws, sir) == ("active", "fulfilled")
    aws.ec2.stop_instances(InstanceIds=[one])
    aws.wait(one, "stopped")
    aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[sir])
    gone = aws.wait(one, "terminated")
    assert gone["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert request(aws, sir) == ("cancelled", "instance-terminated-by-service")


def test_a_one_time_machine_cannot_be_stopped(aws: Account) -> None:
    one = aws.running(spot={})
    with refused("UnsupportedOperation", "one-time"):
        aws.ec2.stop_instances(InstanceIds=[one])
    assert aws.state(one) == "running"


def test_without_notice_no_request_was_marked(aws: Account) -> None:
    one = aws.running(spot={})
    aws.double.preempt(one, notice_s=0)
    aws.wait(one, "terminated")
    assert aws.double.instances()[0]["notice"] == ""


def test_what_ec2_took_back_is_free_for_nobody() -> None:
    with account(delays=replace(QUICK, refill_s=3600)) as aws:
        one = aws.running(spot=PERSISTENT)
        aws.double.set_capacity(TYPE, count=0)
        aws.double.preempt(one, notice_s=0)
        aws.wait(one, "stopped")
        with refused("InsufficientInstanceCapacity"):
            aws.launch(spot={})


def test_the_action_can_be_another_than_the_requests(aws: Account) -> None:
    one = aws.running(spot=PERSISTENT)
    aws.double.preempt(one, notice_s=3600, action="terminate")
    assert aws.request_of(one)["Status"]["Code"] == "marked-for-termination"
    assert aws.double.instances()[0]["notice"] == "terminate"


def test_what_cannot_be_preempted_is_named(aws: Account) -> None:
    one = aws.running()
    with pytest.raises(ValueError, match="on-demand"):
        aws.double.preempt(one)
    with pytest.raises(ValueError, match="i-nowhere"):
        aws.double.preempt("i-nowhere")
    spot = aws.running(spot={})
    with pytest.raises(ValueError, match="terminate, stop, hibernate"):
        aws.double.preempt(spot, action="explode")


def test_a_price_over_the_maximum_takes_the_machine(aws: Account) -> None:
    here = {"AvailabilityZone": ZONE}
    cheap = aws.running(spot={"MaxPrice": "2"}, Placement=here)
    dear = aws.running(spot={"MaxPrice": "9"}, Placement=here)
    free = aws.running(spot={}, Placement=here)
    aws.double.set_spot_price(TYPE, ZONE, 5, notice_s=0.05)
    aws.wait(cheap, "terminated")
    assert aws.request_of(cheap)["Status"]["Code"] == "instance-terminated-by-price"
    assert (aws.state(dear), aws.state(free)) == ("running", "running")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "active"),
        ("status-code", "fulfilled"),
        ("type", "persistent"),
        ("launch.instance-type", "p2.*"),
        ("tag:cloudrun", "1"),
        ("tag-key", "cloudrun"),
    ],
)
def test_requests_are_found_by_filters(aws: Account, name: str, value: str) -> None:
    tags = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "cloudrun", "Value": "1"}]}]
    one = aws.running(spot=PERSISTENT, TagSpecifications=tags)
    describe = aws.ec2.describe_spot_instance_requests
    [found] = describe(Filters=[named(name, value)])["SpotInstanceRequests"]
    assert found["InstanceId"] == one
    assert describe(Filters=[named(name, "other")])["SpotInstanceRequests"] == []


def test_requests_that_do_not_exist_are_refused(aws: Account) -> None:
    with refused("InvalidSpotInstanceRequestID.NotFound"):
        aws.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=["sir-00000000"])
    with refused("InvalidSpotInstanceRequestID.NotFound"):
        aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=["sir-00000000"])
    aws.launch(spot={})
    with refused("InvalidParameterValue", "colour"):
        aws.ec2.describe_spot_instance_requests(Filters=[named("colour", "red")])


def test_placement_scores_follow_what_is_free(aws: Account) -> None:
    aws.double.set_capacity(TYPE, ZONE, "spot", 0)
    aws.double.set_capacity(TYPE, "us-east-1b", "spot", 2)
    answer = aws.ec2.get_spot_placement_scores(
        InstanceTypes=[TYPE], TargetCapacity=1, SingleAvailabilityZone=True, RegionNames=["us-east-1"]
    )["SpotPlacementScores"]
    zones = {each["ZoneId"]: each["ZoneName"] for each in zones_of(aws)}
    scores = {zones[each["AvailabilityZoneId"]]: each["Score"] for each in answer}
    assert scores == {ZONE: 1, "us-east-1b": 3, "us-east-1c": 9, "us-east-1d": 9, "us-east-1e": 9}
    [whole] = aws.ec2.get_spot_placement_scores(InstanceTypes=[TYPE], TargetCapacity=1)["SpotPlacementScores"]
    assert whole == {"Region": "us-east-1", "Score": 9}


def zones_of(aws: Account) -> list[dict[str, str]]:
    return list(aws.ec2.describe_availability_zones()["AvailabilityZones"])
