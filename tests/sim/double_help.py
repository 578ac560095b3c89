"""Clients of a running AWS double, and waiting for what it does a moment later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
import quick_boto  # noqa: F401  # for what it does
from botocore.config import Config
from botocore.exceptions import ClientError

from cloudrun.sim.aws import AwsDouble, Delays

REGION = "us-east-1"
ZONE = "us-east-1a"
TYPE = "p2.xlarge"
IMAGE_PARAMETER = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
QUICK = Delays(
    pending_s=0.05,
    stopping_s=0.05,
    shutting_down_s=0.05,
    grace_s=0.0,
    modifying_s=0.05,
    optimizing_s=0.05,
    refill_s=0.1,
)
ONCE = Config(retries={"total_max_attempts": 1})
PERSISTENT = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}


class Account:
    """A double with one account's clients."""

    def __init__(
        self, double: AwsDouble, url: str, key: str = "AKIAREHEARSAL", secret: str = "rehearsal"
    ) -> None:
        self.double = double
        self.url = url
        self._key, self._secret = key, secret
        self.ec2: Any = self.client("ec2")

    def client(self, service: str, region: str = REGION) -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=self._key,
            aws_secret_access_key=self._secret,
            config=ONCE,
        )

    def image(self) -> str:
        found = self.client("ssm").get_parameter(Name=IMAGE_PARAMETER)
        return str(found["Parameter"]["Value"])

    def launch(
        self, *, spot: Mapping[str, str] | None = None, count: int = 1, user_data: str = "", **more: Any
    ) -> list[str]:
        """RunInstances; returns the ids."""
        if spot is not None:
            more["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": dict(spot)}
        if user_data:
            more["UserData"] = user_data
        told = {"InstanceType": TYPE, "MinCount": count, "MaxCount": count, **more}
        told.setdefault("ImageId", "resolve:ssm:" + IMAGE_PARAMETER)
        return [each["InstanceId"] for each in self.ec2.run_instances(**told)["Instances"]]

    def describe(self, id: str) -> Any:
        [reservation] = self.ec2.describe_instances(InstanceIds=[id])["Reservations"]
        [instance] = reservation["Instances"]
        return instance

    def state(self, id: str) -> str:
        return str(self.describe(id)["State"]["Name"])

    def wait(self, id: str, state: str) -> Any:
        until(lambda: self.state(id) == state, f"{id} to be {state}")
        return self.describe(id)

    def running(self, **more: Any) -> str:
        """One instance that runs."""
        [made] = self.launch(**more)
        self.wait(made, "running")
        return made

    def request_of(self, id: str) -> Any:
        found = self.ec2.describe_spot_instance_requests(Filters=[{"Name": "instance-id", "Values": [id]}])
        [request] = found["SpotInstanceRequests"]
        return request

    def request_of_sir(self, sir: str) -> Any:
        found = self.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[sir])
        [request] = found["SpotInstanceRequests"]
        return request

    def root_volume(self, id: str) -> str:
        return str(self.describe(id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])

    def control(self, name: str, told: Mapping[str, object] | None = None) -> tuple[int, Any]:
        """POST if there is something to tell, else GET; status and body."""
        body = None if told is None else json.dumps(told).encode()
        request = Request(f"{self.url}/_sim/{name}", data=body, method="GET" if body is None else "POST")
        try:
            with urlopen(request, timeout=10) as answer:
                text = answer.read().decode()
                status = answer.status
        except HTTPError as error:
            text, status = error.read().decode(), error.code
        return status, json.loads(text) if text[:1] in "[{" else text


@contextmanager
def account(host: Any = None, delays: Delays = QUICK, **more: Any) -> Iterator[Account]:
    double = AwsDouble(host, delay_s=delays, **more)
    url = double.start()
    try:
        yield Account(double, url)
    finally:
        double.stop()


@contextmanager
def refused(code: str, match: str | None = None) -> Iterator[Any]:
    """The call inside is answered with that error code."""
    with pytest.raises(ClientError, match=match) as caught:
        yield caught
    assert caught.value.response["Error"]["Code"] == code


def status_of(caught: Any) -> int:
    return int(caught.value.response["ResponseMetadata"]["HTTPStatusCode"])


def until(done: Callable[[], object], what: str, *, timeout_s: float = 60.0) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.01)


def ids_of(answer: Mapping[str, Any]) -> list[str]:
    return [each["InstanceId"] for found in answer["Reservations"] for each in found["Instances"]]


def named(name: str, *values: str) -> dict[str, Sequence[str] | str]:
    return {"Name": name, "Values": list(values)}
