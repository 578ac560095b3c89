"""RunInstances: where it goes, what EC2 fills in, and the same answer to the same token."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from xml.etree import ElementTree as Xml

from cloudrun.models import Market
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.life import Life
from cloudrun.sim.aws.wanted import Reader, Wanted
from cloudrun.sim.aws.wire import (
    ApiError,
    Form,
    Reply,
    Request,
    ec2_reply,
    parse_xml,
    structures,
    tag_specifications,
    whole_number,
    without_list,
)
from cloudrun.sim.aws.world import Launch, SimInstance, SpotRequest, World
from cloudrun.sim.faults import Target

NO_CAPACITY = "InsufficientInstanceCapacity"


class Launching:
    """Makes instances."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life
        self._reader = Reader(world)

    def run_instances(self, request: Request) -> Reply:
        """Launch, or answer again what was launched with this token."""
        token = request.form.get("ClientToken", "")
        print_ = _fingerprint(request.form)
        known = self._world.launches.get((request.region, token)) if token else None
        if known:
            return self._answer_again(request.region, known, print_)
        wanted = self._reader.read(request.region, request.form)
        zone, count = self._place(wanted)
        if request.form.get("DryRun") == "true":
            raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        ids, failed = self.launch(wanted, zone, count)
        if failed:
            return failed
        reservation = self._world.instances[ids[0]].reservation
        if token:
            self._world.launches[request.region, token] = Launch(print_, reservation, ids)
        return self._answer(request.region, ids)

    def again(self, request: SpotRequest) -> str:
        """A new instance for a persistent request; "" while there is no capacity for it."""
        try:
            wanted = self._reader.read(request.region, request.form)
            zone, count = self._place(wanted)
        except ApiError:
            return ""
        ids, _ = self.launch(wanted, zone, count, for_request=request)
        return ids[0] if ids else ""

    def launch(
        self, wanted: Wanted, zone: str, count: int, *, for_request: SpotRequest | None = None
    ) -> tuple[list[str], Reply | None]:
        """The ids of the instances, all pending; or what moto said against it."""
        world = self._world
        form = self._complete(wanted, zone, count)
        made = world.backend.ask(wanted.region, "RunInstances", form)
        if made.status != 200:
            return [], made
        world.capacity.take(wanted.type, zone, wanted.market, count)
        root = parse_xml(made)
        ids = [element.text or "" for element in root.findall("instancesSet/item/instanceId")]
        visible_at = datetime.now(UTC) + timedelta(seconds=world.visible_after_s)
        for index, instance_id in enumerate(ids):
            instance = SimInstance(
                id=instance_id,
                region=wanted.region,
                zone=zone,
                type=wanted.type,
                market=wanted.market,
                vcpus=seeds.vcpus_of(wanted.type),
                form=form,
                reservation=root.findtext("reservationId", ""),
                index=index,
                visible_at=visible_at,
            )
            world.instances[instance_id] = instance
            if form.get("DisableApiTermination") == "true":
                world.backend.protect(wanted.region, instance_id)
            if wanted.market == Market.SPOT:
                self._request_for(instance, wanted, for_request)
            self._life.begin(instance)
        return ids, None

    def _request_for(self, instance: SimInstance, wanted: Wanted, known: SpotRequest | None) -> None:
        """Every spot instance belongs to a request of its own."""
        world = self._world
        if known is None:
            known = SpotRequest(
                id=world.new_request_id(),
                region=wanted.region,
                zone=instance.zone,
                type=wanted.type,
                persistent=wanted.persistent,
                max_price=wanted.max_price,
                on_interruption=wanted.on_interruption,
                form=_for_one(wanted.form),
                created_at=datetime.now(UTC),
            )
            world.requests[known.id] = known
            tags = tag_specifications(wanted.form, "spot-instances-request")
            world.backend.add_tags(wanted.region, known.id, tags)
        known.instance_id = instance.id
        known.zone = instance.zone
        known.become("active", "fulfilled")
        instance.request_id = known.id

    def _answer_again(self, region: str, known: Launch, print_: str) -> Reply:
        if known.fingerprint != print_:
            raise ApiError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous "
                "request(s).",
            )
        if all(self._world.instances[each].state == "terminated" for each in known.instance_ids):
            raise ApiError(
                "IdempotentInstanceTerminated",
                "The request uses the same client token as a previous request for which the instance has "
                "been terminated.",
            )
        return self._answer(region, known.instance_ids)

    def _answer(self, region: str, ids: list[str]) -> Reply:
        """A RunInstances answer, out of what a description says of these instances now."""
        form = {f"InstanceId.{number}": each for number, each in enumerate(ids, start=1)}
        described = parse_xml(self._world.backend.ask(region, "DescribeInstances", form))
        [reservation] = described.findall("reservationSet/item")
        content: dict[str, Xml.Element] = {element.tag: element for element in reservation}
        return ec2_reply("RunInstances", content)

    # Where it goes

    def _place(self, wanted: Wanted) -> tuple[str, int]:
        """The zone and how many; raises for what is missing: capacity, price, quota."""
        zone, count = self._room(wanted)
        world = self._world
        fault = world.faults.take(
            Target("RunInstances", wanted.region, zone, wanted.type, wanted.market.value), machine=True
        )
        if fault:
            raise fault.error()
        if count < wanted.least:
            raise self._no_capacity(wanted)
        self._check_price(wanted, zone)
        vcpus = seeds.vcpus_of(wanted.type) * count
        world.quotas.check(wanted.region, wanted.type, wanted.market, vcpus, world.vcpus_used)
        return zone, count

    def _room(self, wanted: Wanted) -> tuple[str, int]:
        """The first zone with room for all, else the one with most."""
        best = (wanted.zones[0], 0)
        for zone in wanted.zones:
            free = self._world.capacity.free(wanted.type, zone, wanted.market)
            count = wanted.most if free is None else min(free, wanted.most)
            if count == wanted.most:
                return zone, count
            best = max(best, (zone, count), key=lambda found: found[1])
        return best

    def _no_capacity(self, wanted: Wanted) -> ApiError:
        if not wanted.chosen:
            spot = wanted.market == Market.SPOT
            kind = "Spot capacity" if spot else f"{wanted.type} capacity in {wanted.region}"
            return ApiError(NO_CAPACITY, f"There is no {kind} available that matches your request.")
        others = [
            zone
            for zone in seeds.zones_offering(wanted.region, wanted.type)
            if self._world.capacity.free(wanted.type, zone, wanted.market) != 0
        ]
        elsewhere = (
            f" You can currently get {wanted.type} capacity by not specifying an Availability Zone in your "
            f"request or choosing {', '.join(others)}."
        )
        return ApiError(
            NO_CAPACITY,
            f"We currently do not have sufficient {wanted.type} capacity in the Availability Zone you "
            f"requested ({wanted.zones[0]}). Our system will be working on provisioning additional capacity."
            + (elsewhere if others else ""),
        )

    def _check_price(self, wanted: Wanted, zone: str) -> None:
        if wanted.market != Market.SPOT or not wanted.max_price:
            return
        try:
            limit = Decimal(wanted.max_price)
        except InvalidOperation:
            raise ApiError("InvalidParameterValue", f"Invalid spot price {wanted.max_price}") from None
        price = self._world.spot_prices.price(wanted.region, zone, wanted.type, datetime.now(UTC))
        if price is not None and limit < price:
            raise ApiError(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {limit} is lower than the minimum required Spot request "
                f"fulfillment price of {price}.",
            )

    def _complete(self, wanted: Wanted, zone: str, count: int) -> Form:
        """The request with what EC2 fills in itself."""
        form = {**wanted.form, "ImageId": wanted.image, "MinCount": str(count), "MaxCount": str(count)}
        if "SubnetId" not in form and "NetworkInterface.1.SubnetId" not in form:
            form["Placement.AvailabilityZone"] = zone
        if not _names_groups(form):
            form["SecurityGroupId.1"] = self._world.backend.default_group(
                wanted.region, form.get("SubnetId", "")
            )
        image = self._world.backend.image(wanted.region, wanted.image)
        return _with_root(form, image.root_device_name, seeds.root_size_gb(image))


def _with_root(form: Form, device: str, least_gb: int) -> Form:
    """The root volume as the image has it, where the request does not say otherwise."""
    mappings = structures(form, "BlockDeviceMapping")
    root = next((each for each in mappings if each.get("DeviceName") == device), None)
    if root is None:
        root = {"DeviceName": device}
        mappings.append(root)
    size = whole_number(root, "Ebs.VolumeSize", least_gb)
    if size < least_gb:
        raise ApiError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size}GB is smaller than snapshot of the image, expect size >= {least_gb}GB",
        )
    root["Ebs.VolumeSize"] = str(size)
    root.setdefault("Ebs.DeleteOnTermination", "true")
    completed = without_list(form, "BlockDeviceMapping")
    for number, each in enumerate(mappings, start=1):
        completed |= {f"BlockDeviceMapping.{number}.{key}": value for key, value in each.items()}
    return completed


def _for_one(form: Form) -> Form:
    """What a persistent request launches when it is fulfilled again."""
    told = {key: value for key, value in form.items() if key != "ClientToken"}
    return {**told, "MinCount": "1", "MaxCount": "1"}


def _names_groups(form: Form) -> bool:
    return any(key.startswith(("SecurityGroup", "NetworkInterface.")) for key in form)


def _fingerprint(form: Form) -> str:
    """The same for the same request, whatever the order of its parameters."""
    told = sorted((key, value) for key, value in form.items() if key not in ("ClientToken", "Version"))
    return hashlib.sha256(repr(told).encode()).hexdigest()
