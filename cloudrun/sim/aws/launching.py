"""RunInstances: what EC2 refuses, what it fills in, and the same answer to the same token."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from xml.etree import ElementTree as Xml

from cloudrun.models import Market
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.faults import Target
from cloudrun.sim.aws.life import Life
from cloudrun.sim.aws.wire import (
    ApiError,
    Form,
    Reply,
    Request,
    decode_base64,
    ec2_reply,
    parse_xml,
    structures,
    tag_specifications,
    whole_number,
    without_list,
)
from cloudrun.sim.aws.world import Launch, SimInstance, SpotRequest, World

USER_DATA_BYTES = 16384  # before base64 (EC2 user guide, "Run commands at launch")
NO_CAPACITY = "InsufficientInstanceCapacity"
MARKET = "InstanceMarketOptions"
SPOT = f"{MARKET}.SpotOptions"
_RESOLVE = "resolve:ssm:"
_AMI = re.compile(r"ami-[0-9a-f]{8}([0-9a-f]{9})?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A launch as asked for, checked."""

    region: str
    type: str
    market: Market
    image: str
    zones: tuple[str, ...]  # one if the caller chose
    chosen: bool
    least: int
    most: int
    max_price: str
    persistent: bool
    on_interruption: str
    form: Form


class Launching:
    """Makes instances."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    def run_instances(self, request: Request) -> Reply:
        """Launch, or answer again what was launched with this token."""
        token = request.form.get("ClientToken", "")
        print_ = _fingerprint(request.form)
        known = self._world.launches.get((request.region, token)) if token else None
        if known:
            return self._answer_again(request.region, known, print_)
        wanted = self._read(request.region, request.form)
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
            wanted = self._read(request.region, request.form)
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

    # What was asked for

    def _read(self, region: str, form: Form) -> Wanted:
        """Raises what EC2 answers to a request that is wrong."""
        _refuse_what_is_not_rehearsed(form)
        wanted_type = form.get("InstanceType", "m1.small")
        if not seeds.is_known(wanted_type):
            raise ApiError("InvalidParameterValue", f"Invalid value '{wanted_type}' for InstanceType.")
        market = self._market(form)
        options = {key.removeprefix(SPOT + "."): value for key, value in form.items() if key.startswith(SPOT)}
        on_interruption = options.get("InstanceInterruptionBehavior", "terminate")
        persistent = options.get("SpotInstanceType", "one-time") == "persistent"
        if on_interruption != "terminate" and not persistent:
            raise ApiError(
                "InvalidParameterCombination",
                f"The instance interruption behavior {on_interruption} needs a persistent request.",
            )
        least, most = whole_number(form, "MinCount", 0), whole_number(form, "MaxCount", 0)
        if not 1 <= least <= most:
            raise ApiError("InvalidParameterValue", f"Value ({most}) for parameter maxCount is invalid.")
        image = self._image(region, form, wanted_type)
        self._check_names(region, form)
        zones, chosen = self._zones(region, form, wanted_type)
        return Wanted(
            region=region,
            type=wanted_type,
            market=market,
            image=image,
            zones=zones,
            chosen=chosen,
            least=least,
            most=most,
            max_price=options.get("MaxPrice", ""),
            persistent=persistent,
            on_interruption=on_interruption,
            form=form,
        )

    def _market(self, form: Form) -> Market:
        kind = form.get(f"{MARKET}.MarketType", "")
        if kind not in ("", "spot"):
            raise ApiError("InvalidParameterValue", f"The market type {kind} is not rehearsed.")
        return Market.SPOT if kind else Market.ON_DEMAND

    def _image(self, region: str, form: Form, type: str) -> str:
        ami = form.get("ImageId", "")
        if ami.startswith(_RESOLVE):
            ami = self._world.backend.parameter(region, ami.removeprefix(_RESOLVE))
        if not ami:
            raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
        if not _AMI.fullmatch(ami):
            raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{ami}"')
        image = self._world.backend.image(region, ami)
        if image is None:
            raise ApiError("InvalidAMIID.NotFound", f"The image id '[{ami}]' does not exist")
        fitting = seeds.architectures_of(type)
        if fitting and image.architecture not in fitting:
            raise ApiError(
                "InvalidParameterValue",
                f"The architecture '{','.join(fitting)}' of the specified instance type does not match the "
                f"architecture '{image.architecture}' of the specified AMI.",
            )
        return ami

    def _check_names(self, region: str, form: Form) -> None:
        """Key pair, profile, user data: moto accepts anything there, or answers otherwise than EC2."""
        backend = self._world.backend
        key = form.get("KeyName", "")
        if key and not backend.has_key_pair(region, key):
            raise ApiError("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
        name, arn = form.get("IamInstanceProfile.Name", ""), form.get("IamInstanceProfile.Arn", "")
        if (name or arn) and not backend.has_profile(name=name, arn=arn):
            field = "name" if name else "arn"
            raise ApiError(
                "InvalidParameterValue",
                f"Value ({name or arn}) for parameter iamInstanceProfile.{field} is invalid. "
                f"Invalid IAM Instance Profile {field}",
            )
        if len(decode_base64(form.get("UserData", ""))) > USER_DATA_BYTES:
            raise ApiError("InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES} bytes")

    def _zones(self, region: str, form: Form, type: str) -> tuple[tuple[str, ...], bool]:
        """Where it may go, and whether the caller said so."""
        offering = seeds.zones_offering(region, type)
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId", "")
        zone = form.get("Placement.AvailabilityZone", "")
        if subnet:
            zone = self._world.backend.subnet_zone(region, subnet)
            if not zone:
                raise ApiError("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
        elif zone and zone not in seeds.zones_of(region):
            raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        if zone and zone not in offering:
            others = f" or choosing {', '.join(offering)}" if offering else ""
            raise ApiError(
                "Unsupported",
                f"Your requested instance type ({type}) is not supported in your requested Availability Zone "
                f"({zone}). Please retry your request by not specifying an Availability Zone{others}.",
            )
        if not offering:
            raise ApiError(
                "Unsupported", "The requested configuration is currently not supported. Please check the "
                "documentation for supported configurations."
            )  # fmt: skip
        return ((zone,), True) if zone else (offering, False)

    # Where it goes

    def _place(self, wanted: Wanted) -> tuple[str, int]:
        """The zone and how many; raises for what is missing: capacity, price, quota."""
        zone, count = self._room(wanted)
        world = self._world
        fault = world.faults.take(
            Target("RunInstances", wanted.region, zone, wanted.type, wanted.market.value), launch=True
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


def _refuse_what_is_not_rehearsed(form: Form) -> None:
    if any(key.startswith("LaunchTemplate") for key in form):
        raise ApiError("UnsupportedOperation", "Launch templates are not rehearsed.")


def _fingerprint(form: Form) -> str:
    """The same for the same request, whatever the order of its parameters."""
    told = sorted((key, value) for key, value in form.items() if key not in ("ClientToken", "Version"))
    return hashlib.sha256(repr(told).encode()).hexdigest()
