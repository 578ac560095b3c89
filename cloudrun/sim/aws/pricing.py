"""The Price List API: on-demand prices of the catalogue, in the shape of AWS's own price list.

Shape: AWS Billing user guide, "Reading the service price list file for an AWS service", read 2026-11.
Linux, shared tenancy, nothing pre-installed: the catalogue has no other prices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from moto.utilities.utils import load_resource

from cloudrun.catalog import find_type, load_offers
from cloudrun.models import Market, Offer
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.wire import ApiError, Reply, Request, json_reply

ACTIONS = ("GetProducts", "DescribeServices")
_MOST = 100  # rows of a page
_ON_DEMAND, _HOURLY = "JRTCKXETXF", "6YS6EN2CT7"  # codes of the offer term and its rate, the same everywhere


def answer(request: Request) -> Reply:
    if request.data.get("ServiceCode", "AmazonEC2") != "AmazonEC2":
        raise ApiError(
            "NotFoundException", f"The service code {request.data.get('ServiceCode')} is not found"
        )
    if request.action == "DescribeServices":
        service = {"ServiceCode": "AmazonEC2", "AttributeNames": sorted(_FIXED)}
        return json_reply({"Services": [service], "FormatVersion": "aws_v1"})
    return _products(request.data)


def _products(data: Mapping[str, Any]) -> Reply:
    filters = {}
    for each in data.get("Filters", []):
        if each.get("Type") != "TERM_MATCH":
            raise ApiError(
                "InvalidParameterException", f"The filter type {each.get('Type')} is not rehearsed"
            )
        filters[str(each["Field"])] = str(each["Value"])
    rows = _matching(tuple(sorted(filters.items())))
    token = str(data.get("NextToken") or "0")
    if not token.isdecimal():
        raise ApiError("InvalidNextTokenException", "The pagination token is invalid")
    start = int(token)
    end = start + min(int(data.get("MaxResults") or _MOST), _MOST)
    content: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": rows[start:end]}
    if end < len(rows):
        content["NextToken"] = str(end)
    return json_reply(content)


@lru_cache(maxsize=64)
def _matching(wanted: tuple[tuple[str, str], ...]) -> list[str]:
    """All rows that pass these filters, as JSON. The catalogue does not change while we run."""
    filters = dict(wanted)
    rows = []
    region = filters.get("regionCode", "")
    offers = load_offers(
        provider=seeds.PROVIDER,
        type=filters.get("instanceType", ""),
        market=Market.ON_DEMAND,
        regions=(region,) if region else (),
    )
    for offer in offers:
        if offer.price_per_hour_usd is None:
            continue
        attributes = _attributes(offer)
        if all(attributes.get(name) == value for name, value in filters.items()):
            rows.append(json.dumps(_entry(offer, attributes)))
    return rows


_FIXED = {
    "servicecode": "AmazonEC2",
    "servicename": "Amazon Elastic Compute Cloud",
    "locationType": "AWS Region",
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "licenseModel": "No License required",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
    "operation": "RunInstances",
}


def _attributes(offer: Offer) -> dict[str, str]:
    known = find_type(seeds.PROVIDER, offer.type)
    gpus = {"gpu": str(offer.gpu_count)} if offer.gpu_count else {}
    return {
        **_FIXED,
        "instanceType": offer.type,
        "regionCode": offer.region,
        "location": _location(offer.region),
        "vcpu": str(offer.vcpus),
        "memory": f"{offer.memory_gib:g} GiB",
        "currentGeneration": "No" if known and known.status == "retired" else "Yes",
        "usagetype": f"BoxUsage:{offer.type}",
        **gpus,
    }


def _entry(offer: Offer, attributes: dict[str, str]) -> dict[str, Any]:
    sku = hashlib.sha256(f"{offer.region} {offer.type}".encode()).hexdigest()[:16].upper()
    term, rate = f"{sku}.{_ON_DEMAND}", f"{sku}.{_ON_DEMAND}.{_HOURLY}"
    price = f"{offer.price_per_hour_usd:.10f}"
    since = f"{offer.price_as_of or '2017-10-02'}T00:00:00Z"
    dimension = {
        "rateCode": rate,
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "appliesTo": [],
        "description": f"${offer.price_per_hour_usd} per On Demand Linux {offer.type} Instance Hour",
        "pricePerUnit": {"USD": price},
    }
    on_demand = {
        "sku": sku,
        "offerTermCode": _ON_DEMAND,
        "effectiveDate": since,
        "termAttributes": {},
        "priceDimensions": {rate: dimension},
    }
    return {
        "product": {"productFamily": "Compute Instance", "sku": sku, "attributes": attributes},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {term: on_demand}},
        "version": "20261101000000",
        "publicationDate": since,
    }


@cache
def _location(region: str) -> str:
    """The price list's name of a region: "US East (N. Virginia)", and "EU" for Europe."""
    regions = load_resource("ssm/resources/regions.json")
    entry = regions["aws"]["service"]["global-infrastructure"]["regions"].get(region, {})
    name = entry.get("longName", {}).get("Value", region)
    return str(name).replace("Europe (", "EU (")
