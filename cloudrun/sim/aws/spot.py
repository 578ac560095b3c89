"""Spot: requests, interruptions with and without notice, price history, placement scores.

States and status codes of requests: EC2 user guide, "Spot Instance request status" and
"Manage your Spot Instances", read 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cloudrun.catalog import list_types
from cloudrun.models import Market
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.instances import Instances
from cloudrun.sim.aws.launching import Launching
from cloudrun.sim.aws.life import SPOT_END, SPOT_STOP, Life, Reason
from cloudrun.sim.aws.prices import HISTORY, PriceChange
from cloudrun.sim.aws.wire import (
    ApiError,
    Reply,
    Request,
    ec2_reply,
    filters_of,
    fits,
    members,
    page,
    read_time,
    whole_number,
)
from cloudrun.sim.aws.world import STOPPED_BY_USER, SimInstance, SpotRequest, World

PRODUCT = "Linux/UNIX"
MOST_SCORES = 10  # regions or zones of one answer (EC2 user guide, "Spot placement score")
ACTIONS = ("terminate", "stop", "hibernate")
CAPACITY, PRICE = "no-capacity", "by-price"  # why EC2 takes a machine back
_ROWS = 1000  # of a page (DescribeSpotPriceHistory)


class Spot:
    """Handlers of the spot calls, and what happens to spot machines by themselves."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.life = Life(world, self._ended)
        self.launching = Launching(world, self.life)
        self.instances = Instances(world, self.life)

    # Interruptions

    def preempt(self, instance_id: str, notice_s: float, action: str, why: str = CAPACITY) -> None:
        """Give notice now and take the machine back in notice_s seconds; 0: without a word.

        Raises ValueError for what cannot be preempted. A machine that has its notice keeps it.
        """
        instance = self._world.instances.get(instance_id)
        if instance is None:
            raise ValueError(f"no instance {instance_id!r}")
        if instance.market != Market.SPOT or instance.state != "running":
            raise ValueError(
                f"{instance_id} is {instance.market.value} and {instance.state}: only running spot is taken"
            )
        request = self._world.requests[instance.request_id]
        action = action or request.on_interruption
        if action not in ACTIONS:
            raise ValueError(f"action {action!r}; known: {', '.join(ACTIONS)}")
        if notice_s > 0:
            if instance.notice:
                return
            instance.notice = action, datetime.now(UTC) + timedelta(seconds=notice_s)
            request.become("active", "marked-for-termination" if action == "terminate" else "marked-for-stop")
        self._world.timers.after(notice_s, lambda: self._take(instance, action, why))

    def _take(self, instance: SimInstance, action: str, why: str) -> None:
        with self._world.lock:
            if instance.state != "running":
                return
            instance.holds_capacity = False  # somebody else has it now
            request = self._world.requests[instance.request_id]
            if action == "terminate":
                request.become("open" if request.persistent else "closed", f"instance-terminated-{why}")
                self._world.backend.end(instance.region, instance.id)
                self.life.terminate(instance, SPOT_END)
                return
            request.become("disabled", f"instance-stopped-{why}")
            self._world.backend.halt(instance.region, instance.id)
            self.life.stop(instance, SPOT_STOP)

    def _ended(self, instance: SimInstance, reason: Reason) -> None:
        """An instance stopped or is gone: what becomes of its request."""
        request = self._world.requests.get(instance.request_id)
        if request is None or request.instance_id != instance.id or request.state in ("cancelled", "closed"):
            return
        if instance.state == "stopped" and reason != SPOT_STOP:
            request.become("disabled", STOPPED_BY_USER)
        elif instance.state == "terminated" and reason != SPOT_END:
            request.become("open" if request.persistent else "closed", "instance-terminated-by-user")
        if _waits(request):
            self._world.timers.after(self._world.delays.refill_s, lambda: self._refill(request))

    def _refill(self, request: SpotRequest) -> None:
        """EC2 fulfils an open request again: the same disk if it had stopped it, else a new instance."""
        with self._world.lock:
            if not _waits(request):
                return
            instance = self._world.instances[request.instance_id]
            if instance.state == "stopped":
                done = self.instances.can_wake(instance)
                if done:
                    self.instances.wake(instance)
            else:
                done = bool(self.launching.again(request))
            if not done:
                if request.state == "open" and request.status != "capacity-not-available":
                    request.become("open", "capacity-not-available")
                self._world.timers.after(self._world.delays.refill_s, lambda: self._refill(request))

    def price_rose(self, type: str, zone: str, price_usd: Decimal, notice_s: float) -> None:
        """Machines whose maximum is below the price are taken back."""
        for instance in list(self._world.instances.values()):
            request = self._world.requests.get(instance.request_id)
            if request is None or (instance.type, instance.zone) != (type, zone):
                continue
            if instance.state == "running" and request.max_price and Decimal(request.max_price) < price_usd:
                self.preempt(instance.id, notice_s, "", PRICE)

    # Requests

    def describe_requests(self, request: Request) -> Reply:
        ids = members(request.form, "SpotInstanceRequestId")
        found = [each for each in self._world.requests.values() if each.region == request.region]
        self._check_ids(ids, found)
        filters = filters_of(request.form)
        rows = [
            self._row(each)
            for each in found
            if (not ids or each.id in ids) and all(self._fits(each, *one) for one in filters.items())
        ]
        shown, token = page(rows, request.form, most=_ROWS)
        return ec2_reply(
            "DescribeSpotInstanceRequests",
            {"spotInstanceRequestSet": shown, "nextToken": token or None},
        )

    def cancel_requests(self, request: Request) -> Reply:
        """Running machines go on; one that is stopped ends with its request."""
        ids = members(request.form, "SpotInstanceRequestId")
        found = [each for each in self._world.requests.values() if each.region == request.region]
        self._check_ids(ids, found)
        rows = []
        for each in found:
            if each.id not in ids:
                continue
            if each.state not in ("cancelled", "closed"):
                self._cancel(each)
            rows.append({"spotInstanceRequestId": each.id, "state": each.state})
        return ec2_reply("CancelSpotInstanceRequests", {"spotInstanceRequestSet": rows})

    def _cancel(self, request: SpotRequest) -> None:
        instance = self._world.instances[request.instance_id]
        if instance.state in ("stopping", "stopped"):
            request.become("cancelled", "instance-terminated-by-service")
            self._world.backend.end(instance.region, instance.id)
            self.life.terminate(instance, SPOT_END)
        elif instance.state in ("pending", "running"):
            request.become("cancelled", "request-canceled-and-instance-running")
        else:
            request.become("cancelled", "canceled-before-fulfillment")

    def _check_ids(self, ids: list[str], found: list[SpotRequest]) -> None:
        known = {each.id for each in found}
        for each in ids:
            if each not in known:
                raise ApiError(
                    "InvalidSpotInstanceRequestID.NotFound",
                    f"The spot instance request ID '{each}' does not exist",
                )

    def _fits(self, request: SpotRequest, name: str, values: list[str]) -> bool:
        tags = self._world.backend.tags(request.region, request.id)
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            return key in tags and fits(tags[key], values)
        if name == "tag-key":
            return any(fits(key, values) for key in tags)
        if name not in _FILTERS:
            raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
        return fits(_FILTERS[name](request), values)

    def _row(self, request: SpotRequest) -> dict[str, Any]:
        tags = self._world.backend.tags(request.region, request.id)
        return {
            "spotInstanceRequestId": request.id,
            "spotPrice": request.max_price or None,
            "type": "persistent" if request.persistent else "one-time",
            "state": request.state,
            "status": {
                "code": request.status,
                "updateTime": request.status_at,
                "message": _MESSAGES.get(request.status, request.status.replace("-", " ")),
            },
            "instanceId": request.instance_id,
            "instanceInterruptionBehavior": request.on_interruption,
            "createTime": request.created_at,
            "productDescription": PRODUCT,
            "launchedAvailabilityZone": request.zone,
            "launchSpecification": {"imageId": request.form["ImageId"], "instanceType": request.type},
            "tagSet": [{"key": key, "value": value} for key, value in tags.items()],
        }

    # Prices

    def price_history(self, request: Request) -> Reply:
        """Newest first, with the price in effect when the time asked for began."""
        form, filters = request.form, filters_of(request.form)
        unknown = set(filters) - {"availability-zone", "instance-type", "product-description"}
        if unknown:
            raise ApiError("InvalidParameterValue", f"The filter '{min(unknown)}' is invalid")
        now = datetime.now(UTC)
        until = min(read_time(form.get("EndTime", "")) or now, now)
        since = max(read_time(form.get("StartTime", "")) or now - HISTORY, now - HISTORY)
        rows = self._changes(request, min(since, until), until)
        rows.sort(key=lambda change: (change.at, change.type, change.zone), reverse=True)
        shown, token = page(rows, form, most=_ROWS)
        return ec2_reply(
            "DescribeSpotPriceHistory",
            {"spotPriceHistorySet": [_price_row(change) for change in shown], "nextToken": token},
        )

    def _changes(self, request: Request, since: datetime, until: datetime) -> list[PriceChange]:
        form, filters = request.form, filters_of(request.form)
        products = members(form, "ProductDescription") or filters.get("product-description", ["*"])
        if not fits(PRODUCT, products) and not fits(f"{PRODUCT} (Amazon VPC)", products):
            return []
        zone_given = [form["AvailabilityZone"]] if form.get("AvailabilityZone") else None
        zones = zone_given or filters.get("availability-zone", ["*"])
        types = members(form, "InstanceType") or [known.type for known in list_types(seeds.PROVIDER)]
        return [
            change
            for name in types
            if fits(name, filters.get("instance-type", ["*"]))
            for zone in seeds.zones_offering(request.region, name)
            if fits(zone, zones)
            for change in self._world.spot_prices.changes(
                request.region, zone, name, since=since, until=until
            )
        ]

    def placement_scores(self, request: Request) -> Reply:
        """1 to 10, of what is free: 9 where nobody set a limit, 3 where it is scarce, 1 where none is."""
        form = request.form
        types = members(form, "InstanceType")
        target = whole_number(form, "TargetCapacity", 1)
        by_zone = form.get("SingleAvailabilityZone") == "true"
        rows = []
        for region in members(form, "RegionName") or [request.region]:
            scores = {
                zone: max(self._score(name, zone, target) for name in types)
                for zone in seeds.zones_of(region)
                if any(zone in seeds.zones_offering(region, name) for name in types)
            }
            if by_zone:
                rows += [
                    {"region": region, "availabilityZoneId": seeds.zone_id(region, zone), "score": score}
                    for zone, score in scores.items()
                ]
            else:
                rows.append({"region": region, "score": max(scores.values(), default=1)})
        rows.sort(key=lambda row: int(str(row["score"])), reverse=True)
        return ec2_reply("GetSpotPlacementScores", {"spotPlacementScoreSet": rows[:MOST_SCORES]})

    def _score(self, type: str, zone: str, target: int) -> int:
        free = self._world.capacity.free(type, zone, Market.SPOT)
        if free is None:
            return 9
        return 1 if free < target else 3


_MESSAGES = {
    "fulfilled": "Your Spot request is fulfilled.",
    "instance-terminated-no-capacity": "Your Spot instance was terminated because there is no Spot capacity "
    "available that matches your request.",
    "instance-stopped-no-capacity": "Your Spot instance was stopped because there is no Spot capacity "
    "available that matches your request.",
}

_FILTERS: dict[str, Callable[[SpotRequest], str]] = {
    "spot-instance-request-id": lambda request: request.id,
    "instance-id": lambda request: request.instance_id,
    "state": lambda request: request.state,
    "status-code": lambda request: request.status,
    "type": lambda request: "persistent" if request.persistent else "one-time",
    "launch.instance-type": lambda request: request.type,
    "launched-availability-zone": lambda request: request.zone,
    "spot-price": lambda request: request.max_price,
}


def _waits(request: SpotRequest) -> bool:
    """Whether EC2 will fulfil it again by itself."""
    stopped_by_ec2 = request.state == "disabled" and request.status != STOPPED_BY_USER
    return request.state == "open" or stopped_by_ec2


def _price_row(change: PriceChange) -> dict[str, Any]:
    return {
        "instanceType": change.type,
        "productDescription": PRODUCT,
        "spotPrice": f"{change.price_usd:f}",
        "timestamp": change.at,
        "availabilityZone": change.zone,
    }
