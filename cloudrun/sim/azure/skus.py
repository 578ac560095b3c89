"""Resource SKUs and usages: what the subscription is offered where, and how much of its quotas is in use."""

from __future__ import annotations

import re

from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.sizes import Size, regions, regions_of, sizes, zones_of
from cloudrun.sim.azure.supply import CORES, LOW_PRIORITY, Supply
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

_HOME = "/subscriptions/{subscription}/providers/Microsoft.Compute"
_FILTER = re.compile(r"\s*location\s+eq\s+'([a-z0-9]+)'\s*")
_DISKS = ("Standard_LRS", "StandardSSD_LRS", "Premium_LRS")
_CALLED = {CORES: "Total Regional vCPUs", LOW_PRIORITY: "Total Regional Low-priority vCPUs"}


class Skus:
    """Handlers of these calls."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{_HOME}/skus", "Microsoft.Compute/skus/read", self._skus),
            Route(
                "GET",
                f"{_HOME}/locations/{{location}}/usages",
                "Microsoft.Compute/locations/usages/read",
                self._usages,
            ),
        ]

    def _skus(self, request: Request) -> Reply:
        """One row a size and region, and a few of disks; retired sizes have none."""
        told = request.query.get("$filter", "")
        found = _FILTER.fullmatch(told)
        if told and not found:
            raise ApiError("InvalidFilter", "The only filter that is taken is location eq 'REGION'.", 400)
        places = (found[1],) if found else regions()
        rows = [
            self._row(size, region)
            for region in places
            for size in sizes()
            if region in regions_of(size.name)
        ]
        rows += [_disk_row(name, region) for region in places if region in regions() for name in _DISKS]
        return Reply(200, {"value": rows})

    def _row(self, size: Size, region: str) -> Body:
        zones = list(zones_of(region))
        reason = self._supply.restriction(size, region)
        restrictions = []
        if reason:
            restrictions.append(
                {
                    "type": "Location",
                    "values": [region],
                    "restrictionInfo": {"locations": [region]},
                    "reasonCode": reason,
                }
            )
        return {
            "resourceType": "virtualMachines",
            "name": size.name,
            "tier": "Standard",
            "size": size.short,
            "family": _family(size.family),
            "locations": [region],
            "locationInfo": [{"location": region, "zones": zones, "zoneDetails": []}],
            "capabilities": [{"name": name, "value": value} for name, value in _capabilities(size).items()],
            "restrictions": restrictions,
        }

    def _usages(self, request: Request) -> Reply:
        region = request.params["location"].lower()
        if region not in regions():
            raise ApiError(
                "NoRegisteredProviderFound",
                f"No registered resource provider found for location '{region}'.",
                400,
            )
        rows = [
            _usage("virtualMachines", "Virtual Machines", self._supply.machines(region), 25_000),
            *(
                _usage(each.name, _CALLED.get(each.name, f"{each.name} vCPUs"), each.used, each.limit)
                for each in self._supply.usages(region)
            ),
        ]
        return Reply(200, {"value": rows})


def _capabilities(size: Size) -> dict[str, str]:
    found = {
        "vCPUs": str(size.vcpus),
        "HyperVGenerations": ",".join(size.generations),
        "MemoryGB": f"{size.memory_gib:g}",
        "CpuArchitectureType": "x64",
        "LowPriorityCapable": str(size.spot),
        "PremiumIO": str(size.takes_premium_disks),
        "vCPUsAvailable": str(size.vcpus),
        "EphemeralOSDiskSupported": "False",
    }
    return {**found, "GPUs": str(size.gpus)} if size.gpus else found


def _family(name: str) -> str:
    """This list writes families together where the list of usages has spaces, as Azure's two lists do."""
    joined = name.replace(" ", "")
    return joined[:1].lower() + joined[1:]


def _disk_row(name: str, region: str) -> Body:
    return {
        "resourceType": "disks",
        "name": name,
        "tier": name.partition("_")[0],
        "size": "",
        "locations": [region],
        "locationInfo": [{"location": region, "zones": list(zones_of(region)), "zoneDetails": []}],
        "capabilities": [],
        "restrictions": [],
    }


def _usage(name: str, called: str, used: int, limit: int) -> Body:
    return {
        "limit": limit,
        "unit": "Count",
        "currentValue": used,
        "name": {"value": name, "localizedValue": called},
    }
