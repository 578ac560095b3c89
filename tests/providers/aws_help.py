"""The AWS provider under test: its machines, the double behind it, and waiting for what the double does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_account import use_keys
from rented_cloud import RentedCloud, a_spec

from cloudrun.config import Settings
from cloudrun.models import LaunchSpec, Machine, Market, Offer, Stack
from cloudrun.providers.aws import AwsProvider
from cloudrun.sim.aws import AwsDouble, Delays
from cloudrun.sim.machine import MachineHost

REGIONS = ("us-east-1", "us-west-2", "eu-west-1")  # enabled ones, as far as most tests go
REGION, ZONE = "us-east-1", "us-east-1a"
TYPE = "p2.xlarge"
QUICK = Delays(
    pending_s=0.02,
    stopping_s=0.02,
    shutting_down_s=0.02,
    grace_s=0.0,
    modifying_s=0.02,
    optimizing_s=0.02,
    refill_s=0.05,
    imaging_s=0.02,
)
STACK = Stack("none", images=(("aws", "ubuntu-22.04"),))
SPOT = Offer(
    provider="aws",
    region=REGION,
    zone=ZONE,
    type=TYPE,
    market=Market.SPOT,
    price_per_hour_usd=Decimal("0.27"),
    gpu="K80",
    gpu_count=1,
    gpu_memory_gib=12.0,
    gpu_capability=3.7,
)
ON_DEMAND = replace(SPOT, market=Market.ON_DEMAND, price_per_hour_usd=Decimal("0.9"))
CPU = Offer(
    provider="aws",
    region=REGION,
    type="c6i.2xlarge",
    market=Market.ON_DEMAND,
    price_per_hour_usd=Decimal("0.34"),
)


@dataclass
class Cloud(RentedCloud):
    """The double, and providers of one home folder."""

    double: AwsDouble
    settings: Settings
    # Shared by all providers: making a client costs more than a call.
    boto: Any = field(default_factory=boto3.Session)
    clients: dict[tuple[str, str, bool], Any] = field(default_factory=dict)

    def provider(self, *, home: Path | None = None) -> AwsProvider:
        """The provider as a new process has it, of this computer or (another home) of another one."""
        provider = AwsProvider(replace(self.settings, home=home) if home else self.settings)
        provider._session._boto = self.boto
        provider._session._clients = self.clients
        provider._session._regions = list(REGIONS)
        return provider

    def stranger(self) -> AwsProvider:
        """A provider that finds everything by itself: credentials, regions."""
        return AwsProvider(self.settings)

    def ec2(self, region: str = REGION) -> Any:
        """A client of EC2, to see what is really there."""
        return self.provider()._session.client("ec2", region)

    def spec(self, name: str = "k80", **more: Any) -> LaunchSpec:
        return spec(name, **more)

    def instance(self, machine: Machine) -> dict[str, Any]:
        found = self.ec2(machine.region).describe_instances(InstanceIds=[machine.id])
        instance: dict[str, Any] = found["Reservations"][0]["Instances"][0]
        return instance

    def request(self) -> dict[str, Any]:
        """The account's only spot request."""
        [found] = self.ec2().describe_spot_instance_requests()["SpotInstanceRequests"]
        request: dict[str, Any] = found
        return request

    def alive(self) -> list[str]:
        """Ids of all instances of the account that are not gone."""
        ended = ("shutting-down", "terminated")
        return [each["id"] for each in self.double.instances() if each["state"] not in ended]

    def calls(self) -> Counter[str]:
        """How often each action was called since the last time this was asked."""
        counted = Counter(call.action for call in self.double.calls())
        self.double.forget_calls()
        return counted


@contextmanager
def open_cloud(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, host: MachineHost | None = None, ssh_port: int = 22
) -> Iterator[Cloud]:
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a tenth of a second a region
    with AwsDouble(host, delay_s=QUICK) as double:
        use_keys(monkeypatch, home, AWS_ENDPOINT_URL=double.url)
        address_url = f"{double.url}/_sim/address"
        yield Cloud(double, Settings(home=home, ssh_port=ssh_port, address_url=address_url))


def spec(name: str = "k80", *, token: str = "", offer: Offer = SPOT, **more: Any) -> LaunchSpec:
    return a_spec(name, offer, STACK, token=token, **more)
