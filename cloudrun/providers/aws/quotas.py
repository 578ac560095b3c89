"""How many vCPUs an account may run: Service Quotas, counted a family, market and region.

Which quota counts a type is read from catalog/quotas.csv. A family that it does not name has no known
quota, and nothing is refused for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from cloudrun.catalog import InstanceType
from cloudrun.catalog.loader import read_csv
from cloudrun.models import Market
from cloudrun.providers.answers import kept
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import Session

AGE = timedelta(hours=1)
REFUSAL_AGE = timedelta(minutes=1)  # a raised quota must not be refused for an hour
SERVICE = "ec2"
PAGE = 100  # the most that ListServiceQuotas gives at once (its API reference); EC2 has two pages


@dataclass(frozen=True, slots=True)
class Rule:
    """One quota and what it counts: letters of families ("p" is every P family), and whole families."""

    code: str
    name: str
    market: Market
    letters: frozenset[str]
    families: frozenset[str]

    def counts(self, family: str) -> bool:
        return family in self.families or re.split(r"\d", family, maxsplit=1)[0] in self.letters


def find_quota(type: str, market: Market) -> Rule | None:
    """The quota that counts the vCPUs of a type, None where none is known."""
    family = type.partition(".")[0]
    fitting = (rule for rule in _rules() if rule.market is market)
    return next((rule for rule in fitting if rule.counts(family)), None)


def quota_limits(
    session: Session, region: str, types: Sequence[InstanceType], markets: Sequence[Market]
) -> dict[str, float]:
    """vCPUs by quota code. One question an hour, or a minute while one of the types would be refused.
    Raises Credentials where the account may not ask."""

    def ask() -> dict[str, float]:
        known = {rule.code for rule in _rules()}
        with mapped(region=region, what="quotas"):
            pages = session.client("service-quotas", region).get_paginator("list_service_quotas")
            found = pages.paginate(ServiceCode=SERVICE, PaginationConfig={"PageSize": PAGE})
            quotas = [quota for page in found for quota in page["Quotas"]]
        return {each["QuotaCode"]: each["Value"] for each in quotas if each["QuotaCode"] in known}

    limits: dict[str, float] = kept(session, f"quotas-{region}", AGE, ask).value
    if any(too_small(limits, region, known, market) for known in types for market in markets):
        limits = kept(session, f"quotas-{region}", REFUSAL_AGE, ask).value
    return limits


def too_small(limits: Mapping[str, float], region: str, known: InstanceType, market: Market) -> str:
    """Why the account can launch no such machine there, "" when it can or when that is not known.

    What runs already is not counted: EC2 does that at the launch.
    """
    rule = find_quota(known.type, market)
    limit = limits.get(rule.code) if rule else None
    if rule is None or limit is None or limit >= known.vcpus:
        return ""
    return (
        f"the account's quota in {region} is {limit:g} vCPUs and {known.type} needs {known.vcpus} "
        f"({rule.code}, {rule.name}: ask for more in Service Quotas)"
    )


@cache
def _rules() -> tuple[Rule, ...]:
    rows = (row for row in read_csv("quotas.csv") if row["provider"] == "aws" and row["service"] == SERVICE)
    return tuple(
        Rule(row["code"], row["name"], Market(row["kind"]), _letters(row), _families(row["covers"]))
        for row in rows
    )


def _letters(row: dict[str, str]) -> frozenset[str]:
    """Of "all G, VT", or of a name with "(A, C, D)"."""
    found = re.match(r"all ([A-Z]+(?:, [A-Z]+)*)", row["covers"]) or re.search(r"\(([A-Z, ]+)\)", row["name"])
    return frozenset(found[1].lower().split(", ")) if found else frozenset()


def _families(covers: str) -> frozenset[str]:
    """The families that are named one by one; what stands behind a semicolon is a remark."""
    return frozenset(re.findall(r"\b[a-z]+\d[a-z\d]*\b", covers.partition(";")[0]))
