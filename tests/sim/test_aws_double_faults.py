"""Steering the double: faults, throttling, lost answers, the record of calls, and all of it over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError
from double_help import REGION, TYPE, ZONE, Account, account, ids_of, refused, status_of

from cloudrun.errors import UsageError
from cloudrun.sim.aws import AwsDouble


@pytest.fixture
def aws() -> Iterator[Account]:
    with account() as each:
        yield each


def test_a_fault_strikes_once_and_only_what_it_names(aws: Account) -> None:
    aws.double.fault("DescribeInstances", "InternalError", region=REGION)
    aws.client("ec2", "eu-west-1").describe_instances()
    aws.ec2.describe_volumes()
    with refused("InternalError") as caught:
        aws.ec2.describe_instances()
    assert status_of(caught) == 500
    aws.ec2.describe_instances()


def test_a_launch_fails_where_the_fault_says(aws: Account) -> None:
    aws.double.fault(
        "RunInstances", "InsufficientInstanceCapacity", zone=ZONE, type=TYPE, market="spot", times=2
    )
    here = {"AvailabilityZone": ZONE}
    aws.launch(Placement=here)
    aws.launch(spot={}, Placement={"AvailabilityZone": "us-east-1b"})
    aws.launch(spot={}, Placement=here, InstanceType="g5.xlarge")
    for _ in range(2):
        with refused("InsufficientInstanceCapacity") as caught:
            aws.launch(spot={}, Placement=here)
        assert status_of(caught) == 500
    aws.launch(spot={}, Placement=here)


def test_a_fault_can_wait_and_can_stay(aws: Account) -> None:
    aws.double.fault("DescribeVolumes", "Unavailable", message="closed on Saturdays", skip=2, times=None)
    aws.ec2.describe_volumes()
    aws.ec2.describe_volumes()
    for _ in range(5):
        with refused("Unavailable", "closed on Saturdays") as caught:
            aws.ec2.describe_volumes()
        assert status_of(caught) == 503
    aws.double.clear_faults()
    aws.ec2.describe_volumes()


def test_any_code_and_status_can_be_had(aws: Account) -> None:
    aws.double.fault("RunInstances", "PendingVerification", status=418)
    with refused("PendingVerification") as caught:
        aws.launch()
    assert status_of(caught) == 418
    assert ids_of(aws.ec2.describe_instances()) == []


def test_services_that_take_json_fail_in_their_own_shape(aws: Account) -> None:
    aws.double.fault("GetServiceQuota", "TooManyRequestsException", status=429)
    with refused("TooManyRequestsException"):
        aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-417A185B")


def test_throttling_every_third_call(aws: Account) -> None:
    aws.double.throttle(times=None, every=3)
    codes = []
    for _ in range(6):
        try:
            aws.ec2.describe_instances()
            codes.append("")
        except aws.ec2.exceptions.ClientError as error:
            codes.append(error.response["Error"]["Code"])
    assert codes == ["", "", "RequestLimitExceeded"] * 2


def test_a_client_that_tries_again_gets_through_throttling(aws: Account) -> None:
    import boto3

    patient = boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=aws.url,
        aws_access_key_id="AKIANOBODY",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 2}),
    )
    aws.double.throttle("DescribeInstances")
    assert patient.describe_instances()["Reservations"] == []
    assert [call.status for call in aws.double.calls()] == [503, 200]


def test_an_answer_that_got_lost_leaves_what_it_answered(aws: Account) -> None:
    image = aws.image()
    aws.double.fault("RunInstances", lose_answer=True)
    with pytest.raises(ConnectionClosedError):
        aws.launch(ImageId=image, ClientToken="once")
    [lost] = ids_of(aws.ec2.describe_instances())
    assert aws.launch(ImageId=image, ClientToken="once") == [lost]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"code": "X", "every": 0},
        {"code": "X", "times": 0},
        {"code": "X", "skip": -1},
        {"lose_answer": True, "zone": ZONE},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(aws: Account, told: dict[str, object]) -> None:
    assert aws.control("fault", {"action": "RunInstances", **told})[0] == 400
    aws.launch()


def test_every_call_is_recorded_and_no_other(aws: Account) -> None:
    started = datetime.now(UTC)
    image = aws.image()
    aws.launch(ImageId=image, spot={})
    with refused("InvalidInstanceID.NotFound"):
        aws.ec2.describe_instances(InstanceIds=["i-0123456789abcdef0"])
    aws.control("instances")
    calls = aws.double.calls()
    assert [(call.service, call.action, call.region, call.status, call.code) for call in calls] == [
        ("ssm", "GetParameter", REGION, 200, ""),
        ("ec2", "RunInstances", REGION, 200, ""),
        ("ec2", "DescribeInstances", REGION, 400, "InvalidInstanceID.NotFound"),
    ]
    assert all(started <= call.at <= datetime.now(UTC) for call in calls)
    aws.double.forget_calls()
    assert aws.double.calls() == []


def test_fifty_machines_are_one_call_and_end_with_one(aws: Account) -> None:
    image = aws.image()
    aws.double.forget_calls()
    ids = aws.launch(ImageId=image, count=50)
    aws.ec2.terminate_instances(InstanceIds=ids)
    assert len(set(ids)) == 50
    assert len(aws.double.calls()) == 2


def test_what_moto_lacks_is_an_error_a_client_understands(aws: Account) -> None:
    with refused("InvalidAction", "DescribeSpotDatafeedSubscription"):
        aws.ec2.describe_spot_datafeed_subscription()
    with refused("InvalidParameterValue", "colour"):
        aws.ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "colour", "Values": ["red"]}])


def test_the_callers_address_is_told(aws: Account) -> None:
    assert aws.control("address") == (200, "127.0.0.1")


def test_all_of_it_over_http(aws: Account) -> None:
    told = {"code": "InsufficientInstanceCapacity", "action": "RunInstances", "times": 1}
    assert aws.control("fault", told) == (200, {})
    with refused("InsufficientInstanceCapacity"):
        aws.launch()
    assert aws.control("set-capacity", {"type": TYPE, "zone": ZONE, "count": 0})[0] == 200
    with refused("InsufficientInstanceCapacity"):
        aws.launch(Placement={"AvailabilityZone": ZONE})
    assert aws.control("set-quota", {"region": REGION, "code": "L-417A185B", "vcpus": 0})[0] == 200
    with refused("VcpuLimitExceeded"):
        aws.launch()
    assert aws.control("set-spot-price", {"type": TYPE, "zone": "us-east-1b", "usd": "3.5"})[0] == 200
    with refused("SpotMaxPriceTooLow"):
        aws.launch(spot={"MaxPrice": "1"}, Placement={"AvailabilityZone": "us-east-1b"})
    assert aws.control("throttle", {"action": "DescribeInstances"})[0] == 200
    with refused("RequestLimitExceeded"):
        aws.ec2.describe_instances()
    one = aws.running(spot={})
    assert aws.control("preempt", {"instance_id": one, "notice_s": 0})[0] == 200
    aws.wait(one, "terminated")
    assert aws.control("set-visible-after", {"seconds": 3600})[0] == 200
    [hidden] = aws.launch(spot={})
    with refused("InvalidInstanceID.NotFound"):
        aws.describe(hidden)
    status, instances = aws.control("instances")
    assert (status, [each["id"] for each in instances]) == (200, [one, hidden])
    status, calls = aws.control("calls")
    assert (status, calls[-1]["code"]) == (200, "InvalidInstanceID.NotFound")
    assert aws.control("forget-calls", {}) == (200, {})
    assert aws.control("calls") == (200, [])
    assert aws.control("set-rights", {"on": True})[0] == 200
    with refused("AuthFailure"):
        aws.ec2.describe_instances()


@pytest.mark.parametrize(
    ("name", "told", "said"),
    [
        ("preempt", {"instance_id": "i-nowhere"}, "i-nowhere"),
        ("preempt", {}, "instance_id"),
        ("preempt", {"instance_id": "i-1", "colour": "red"}, "colour"),
        ("set-quota", {"region": REGION, "code": "L-1", "vcpus": 3}, "L-417A185B"),
        ("set-spot-price", {"type": TYPE, "zone": ZONE, "usd": "-1"}, "above 0"),
        ("set-spot-price", {"type": TYPE, "zone": ZONE, "usd": "much"}, ""),
        ("set-spot-price", {"type": "p2.huge", "zone": ZONE, "usd": 1}, "p2.huge"),
        ("set-capacity", {"type": TYPE, "market": "flea"}, "flea"),
        ("set-capacity", {"type": TYPE, "count": -1}, "at least 0"),
        ("set-visible-after", {"seconds": -1}, "at least 0"),
    ],
)
def test_mistakes_are_told(aws: Account, name: str, told: dict[str, object], said: str) -> None:
    status, answer = aws.control(name, told)
    assert status == 400
    assert said in answer["message"]


def test_a_control_that_does_not_exist_names_those_that_do(aws: Account) -> None:
    status, answer = aws.control("explode", {})
    assert status == 404
    assert "set-spot-price" in answer["message"]


def test_one_double_at_a_time_and_each_begins_empty() -> None:
    with account() as aws:
        aws.launch()
        with pytest.raises(UsageError, match="already"):
            AwsDouble().start()
    with account() as aws:
        assert ids_of(aws.ec2.describe_instances()) == []
        assert len(aws.double.calls()) == 1
        aws.double.stop()
        aws.double.stop()


def test_a_double_that_was_not_started_says_so() -> None:
    with pytest.raises(ValueError, match="not started"):
        AwsDouble().preempt("i-0123456789abcdef0")
