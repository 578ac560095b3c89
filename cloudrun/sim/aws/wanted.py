"""What a RunInstances asks for, and what EC2 refuses about it before it looks for a place."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloudrun.models import Market
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.wire import ApiError, Form, decode_base64, whole_number
from cloudrun.sim.aws.world import World

USER_DATA_BYTES = 16384  # before base64 (EC2 user guide, "Run commands at launch")
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


class Reader:
    """Reads launches against what the account has."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, region: str, form: Form) -> Wanted:
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


def _refuse_what_is_not_rehearsed(form: Form) -> None:
    if any(key.startswith("LaunchTemplate") for key in form):
        raise ApiError("UnsupportedOperation", "Launch templates are not rehearsed.")
