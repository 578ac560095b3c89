"""Service Quotas of EC2, in vCPUs a family, market and region, and whether a launch fits into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cloudrun.catalog.loader import read_csv
from cloudrun.models import Market
from cloudrun.sim.aws.seeds import PROVIDER
from cloudrun.sim.aws.wire import ApiError, Reply, Request, json_reply

# What a rehearsal may run: enough for 50 machines of the p2.xlarge kind. An account's real numbers differ.
VCPUS = 256
# A new account's zero, kept so that a refusal can be met.
ZERO = ("L-C4BD4855", "L-6E869C2A", "L-85EED4F7")

# Letters of instance families in each bucket (EC2 user guide, "Amazon EC2 service quotas").
_STANDARD = "acdhimrtz"

Used = Callable[[str, str], int]  # region, quota code -> vCPUs in use


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """One quota of the catalogue."""

    code: str
    name: str


class Quotas:
    """The quotas of all regions."""

    def __init__(self) -> None:
        self._set: dict[tuple[str, str], float] = {}

    def set_quota(self, region: str, code: str, vcpus: float) -> None:
        if code not in _rows():
            raise ValueError(f"no quota {code!r}; known: {', '.join(_rows())}")
        self._set[region, code] = vcpus

    def value(self, region: str, code: str) -> float:
        return self._set.get((region, code), 0.0 if code in ZERO else float(VCPUS))

    def check(self, region: str, type: str, market: Market, vcpus: int, used: Used) -> None:
        """Raises what EC2 answers to a launch that does not fit."""
        code = quota_code(type, market)
        if not code or used(region, code) + vcpus <= self.value(region, code):
            return
        if market == Market.SPOT:
            raise ApiError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        raise ApiError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of "
            f"{self.value(region, code):g} allows for the instance bucket that the specified instance type "
            f"belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment "
            f"to this limit.",
        )

    def answer(self, request: Request) -> Reply:
        """The calls of the Service Quotas API that read, and the request for more, which stays pending."""
        data = request.data
        if request.action == "ListServices":
            return json_reply({"Services": [{"ServiceCode": "ec2", "ServiceName": _SERVICE}]})
        if data.get("ServiceCode") != "ec2":
            raise _no_such("The request failed because the specified service does not exist.")
        if request.action in ("ListServiceQuotas", "ListAWSDefaultServiceQuotas"):
            return json_reply({"Quotas": [self._quota(request.region, row) for row in _rows().values()]})
        row = _rows().get(str(data.get("QuotaCode")))
        if row is None:
            raise _no_such("The request failed because the specified service quota does not exist.")
        if request.action in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
            return json_reply({"Quota": self._quota(request.region, row)})
        if request.action == "RequestServiceQuotaIncrease":
            return json_reply({"RequestedQuota": _asked(row, data)})
        raise ApiError("UnknownOperationException", f"{request.action} is not rehearsed")

    def _quota(self, region: str, row: QuotaRow) -> dict[str, Any]:
        return {
            "ServiceCode": "ec2",
            "ServiceName": _SERVICE,
            "QuotaArn": f"arn:aws:servicequotas:{region}:123456789012:ec2/{row.code}",
            "QuotaCode": row.code,
            "QuotaName": row.name,
            "Value": self.value(region, row.code),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }


_SERVICE = "Amazon Elastic Compute Cloud (Amazon EC2)"


def quota_code(type: str, market: Market) -> str:
    """The quota that counts a type's vCPUs; "" for families that none of the catalogue's counts."""
    family = type.partition(".")[0]
    spot = market == Market.SPOT
    if family.startswith("dl"):
        return "L-85EED4F7" if spot else "L-6E869C2A"
    if re.match(r"p\d", family):
        if not spot:
            return "L-417A185B"
        return "L-7212CCBC" if family[1] in "234" else "L-C4BD4855"
    if re.match(r"(g\d|gr\d|vt\d)", family):
        return "L-3819A6DF" if spot else "L-DB2E81BA"
    if re.match(rf"[{_STANDARD}]\d", family):
        return "L-34B43A08" if spot else "L-1216C47A"
    return ""


def _asked(row: QuotaRow, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Id": "0" * 32,
        "ServiceCode": "ec2",
        "QuotaCode": row.code,
        "QuotaName": row.name,
        "DesiredValue": data.get("DesiredValue"),
        "Status": "PENDING",
    }


def _no_such(message: str) -> ApiError:
    return ApiError("NoSuchResourceException", message)


@cache
def _rows() -> dict[str, QuotaRow]:
    return {
        row["code"]: QuotaRow(row["code"], row["name"])
        for row in read_csv("quotas.csv")
        if row["provider"] == PROVIDER and row["service"] == "ec2"
    }
