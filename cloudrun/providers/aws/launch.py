"""RunInstances, once: everything about a machine is in that one call.

Where the account is prepared (our security group is there and lets us in, the image was looked up today)
a launch is two calls: DescribeSecurityGroups and RunInstances, for one machine or for fifty.

Idempotent by LaunchSpec.token also after a kill at any point, see launched.py. Calls used, for the
rights that a policy must grant:

    ec2:RunInstances ec2:CreateTags ec2:DescribeInstances ec2:DescribeImages
    network.py: ec2:DescribeSecurityGroups ec2:CreateSecurityGroup ec2:AuthorizeSecurityGroupIngress
                ec2:RevokeSecurityGroupIngress ec2:DeleteSecurityGroup ec2:DescribeSubnets ec2:DescribeVpcs
    power.py, addresses.py: ec2:StopInstances ec2:StartInstances ec2:TerminateInstances
                ec2:CancelSpotInstanceRequests ec2:DescribeSpotInstanceRequests ec2:DeleteTags
                ec2:AllocateAddress ec2:AssociateAddress ec2:DisassociateAddress ec2:ReleaseAddress
                ec2:DescribeAddresses
    disks.py:   ec2:DescribeVolumes ec2:ModifyVolume ec2:DescribeVolumesModifications
    leftovers.py: ec2:DescribeRegions ec2:DescribeTags ec2:DeleteVolume ec2:DescribeSnapshots
                ec2:DeleteSnapshot ec2:DeregisterImage
    The first spot launch of an account makes a role: iam:CreateServiceLinkedRole for spot.amazonaws.com.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from cloudrun.errors import ConnectionLost, ImageNotFound, ProviderError, Refused
from cloudrun.guard import policy
from cloudrun.keys import make_keys
from cloudrun.models import LaunchSpec, Machine, Market, OnPreempt
from cloudrun.payload import user_data
from cloudrun.providers import tags as t
from cloudrun.providers.answers import kept
from cloudrun.providers.aws.addresses import free_address, make_address
from cloudrun.providers.aws.errors import MORE, mapped, shipped
from cloudrun.providers.aws.images import find_image, image_key, login_user
from cloudrun.providers.aws.instances import by_token, describe, machine_of
from cloudrun.providers.aws.network import Network, find_network
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import launch_tags, specifications, tags_of
from cloudrun.providers.launched import Launched, launch_folder, load_launched, now, share_keys
from cloudrun.providers.refusals import Row
from cloudrun.providers.rented import as_asked

RELEASE = ("sudo", "shutdown", "-h", "now")  # what that means is said at the launch: stop or terminate
# Ubuntu takes 2 GB, a driver with CUDA 10 to 15, torch 5, and NVIDIA's images up to 75; half a cent an hour.
LEAST_DISK_GB = 64
DISK_TYPE = "gp3"
IMAGE_AGE = timedelta(days=1)  # an image never changes; the file is swept by age
STALE_GROUP = ("InvalidGroup.NotFound", "InvalidGroupId.Malformed")
SAYS_NOTHING = ("credentials", "rights", "rate")  # kinds of refusal: EC2 did not look at the token
OTHER_REQUEST = "IdempotentParameterMismatch"


def launch(session: Session, spec: LaunchSpec, count: int | None = None) -> list[Machine]:
    """Ask for one machine, or with `count` for that many: all or none. Returns at once.

    Raises NoCapacity, Quota, NotOffered, ImageNotFound, Credentials; ConnectionLost where the answer got
    lost: then the machine may be there, and the same launch again tells.
    """
    folder = launch_folder(session.settings, spec.name, batch=count is not None)
    known = load_launched(folder)
    if known and known.token != spec.token:
        _clear_name(session, folder, known, spec.name)
        known = None
    if known and known.machines:
        return describe(session, known.machines)
    repeated = known is not None
    if known is None:
        known = _prepare(session, spec, folder, count)
    answer = _run(session, spec, folder, known, repeated=repeated)
    if isinstance(answer, list):
        return answer
    return _keep(session, spec, folder, known, answer)


@dataclass(frozen=True, slots=True)
class _Root:
    """The root disk of an image."""

    device: str
    size_gb: int


def _prepare(session: Session, spec: LaunchSpec, folder: Path, count: int | None) -> Launched:
    """Make keys and request, and keep both before anything is asked for."""
    region, options = spec.offer.region, spec.options
    if options.fixed_address and count is not None:
        raise Refused("a fixed address is for one machine", hint="launch these one by one")
    if options.dns_label or options.resource_group:
        raise Refused(
            "AWS knows neither DNS labels nor resource groups", hint="they are for Azure: leave them out"
        )
    image = spec.image or find_image(session, spec.stack, region)
    root = _root_of(session, region, image)
    network = find_network(session, region, options.subnet)
    user = login_user(image_key(spec.stack))
    on_preempt = on_preempt_of(spec)
    disk_gb = max(spec.disk_gb or LEAST_DISK_GB, root.size_gb)
    owner = t.owner_of(session.settings)
    tags = launch_tags(spec, owner=owner, user=user, disk_gb=disk_gb, on_preempt=on_preempt, count=count)
    if options.fixed_address:
        tags[t.ADDRESS] = make_address(session, region, tags)
    keys = make_keys(folder, comment=f"cloudrun {spec.name}")
    notices = "aws" if spec.offer.market is Market.SPOT else ""
    data = user_data(keys, user=user, policy=policy(spec.guard, RELEASE, notices=notices))
    request = {
        "ClientToken": spec.token,
        "MinCount": count or 1,
        "MaxCount": count or 1,
        "ImageId": image,
        "InstanceType": spec.offer.type,
        "UserData": base64.b64encode(data).decode(),
        "BlockDeviceMappings": [_disk(root.device, disk_gb, options.disk_type or DISK_TYPE)],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
            "InstanceMetadataTags": "enabled",
        },
        **_place(spec, network),
        **_market(spec, on_preempt),
        **_tagged(tags, spec.offer.market),
    }
    launched = Launched(spec.token, region, now(), request)
    launched.save(folder)
    return launched


def on_preempt_of(spec: LaunchSpec) -> OnPreempt | None:
    """What becomes of a spot machine that is taken: one of a run ends, for the run goes on elsewhere;
    one that was launched to stay waits with its disk, and can be stopped and started."""
    if spec.offer.market is not Market.SPOT:
        return None
    return spec.options.on_preempt or (OnPreempt.TERMINATE if spec.run_owned else OnPreempt.STOP)


def _place(spec: LaunchSpec, network: Network) -> dict[str, Any]:
    """Default subnets give public addresses by themselves; another one is told to."""
    if network.subnet:
        interface = {
            "DeviceIndex": 0,
            "SubnetId": network.subnet,
            "Groups": [network.group],
            "AssociatePublicIpAddress": True,
        }
        return {"NetworkInterfaces": [interface]}
    zone = {"Placement": {"AvailabilityZone": spec.offer.zone}} if spec.offer.zone else {}
    return {"SecurityGroupIds": [network.group], **zone}


def _market(spec: LaunchSpec, on_preempt: OnPreempt | None) -> dict[str, Any]:
    """Spot options, and what a shutdown from inside (the guard's) does.

    Who launched a machine to stay wants it gone at its deadline. A run's machine keeps its disk, should
    nobody be there to pull the outputs; one-time spot cannot, a persistent one always does.
    """
    if on_preempt is None:
        return {"InstanceInitiatedShutdownBehavior": "stop" if spec.run_owned else "terminate"}
    most = spec.options.max_price_per_hour_usd
    if on_preempt is OnPreempt.STOP:
        options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
        shutdown = "stop"
    else:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        shutdown = "terminate"
    if most is not None:
        options["MaxPrice"] = f"{most:f}"
    return {
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options},
        "InstanceInitiatedShutdownBehavior": shutdown,
    }


def _tagged(tags: Mapping[str, str], market: Market) -> dict[str, Any]:
    kinds = ["instance", "volume"]
    if market is Market.SPOT:
        kinds.append("spot-instances-request")
    return {"TagSpecifications": specifications(tags, *kinds)}


def _disk(device: str, disk_gb: int, kind: str) -> dict[str, Any]:
    disk = {"VolumeType": kind, "VolumeSize": disk_gb, "Encrypted": True, "DeleteOnTermination": True}
    return {"DeviceName": device, "Ebs": disk}


def _root_of(session: Session, region: str, image: str) -> _Root:
    def ask() -> dict[str, Any]:
        with mapped(region=region, what=f"image {image}"):
            found = session.client("ec2", region).describe_images(ImageIds=[image])["Images"]
        if not found:
            raise ImageNotFound(f"there is no image {image} in {region}", hint="run: cloudrun images list")
        device = found[0].get("RootDeviceName") or "/dev/sda1"
        sizes = [
            each["Ebs"].get("VolumeSize", 0)
            for each in found[0].get("BlockDeviceMappings", ())
            if each.get("DeviceName") == device and "Ebs" in each
        ]
        return {"device": device, "size_gb": max(sizes, default=0)}

    return _Root(**kept(session, f"root-{region}-{image}", IMAGE_AGE, ask).value)


def _run(
    session: Session, spec: LaunchSpec, folder: Path, known: Launched, *, repeated: bool
) -> Mapping[str, Any] | list[Machine]:
    """The call. Its answer, or the machines where another request with this token made them."""
    place = {"region": known.region, "type": spec.offer.type, "what": "launch"}
    try:
        with mapped(**place):
            try:
                return _call(session, known)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in STALE_GROUP:  # another process has just removed it with its last machine
                    return _call(session, _with_network(session, spec, folder, known))
                if code == OTHER_REQUEST and (found := by_token(session, known.region, spec.token)):
                    return found
                raise
    except ProviderError as error:
        if _may_be_there(error, repeated=repeated):
            raise ConnectionLost(
                f"whether AWS launched {spec.name} is not known: {error.message}",
                hint="give the same command again, or run: cloudrun machines list",
            ) from error
        _take_back(session, folder, known)
        raise


def _take_back(session: Session, folder: Path, known: Launched) -> None:
    """EC2 refused: what was made for the machine goes."""
    tags = tags_of(known.request["TagSpecifications"][0])
    if allocation := tags.get(t.ADDRESS, "").partition(" ")[0]:
        free_address(session, known.region, allocation)
    shutil.rmtree(folder, ignore_errors=True)


def _call(session: Session, known: Launched) -> Mapping[str, Any]:
    request = dict(known.request)
    request["UserData"] = base64.b64decode(request["UserData"])  # botocore encodes it again
    answer: Mapping[str, Any] = session.client("ec2", known.region, retry=False).run_instances(**request)
    return answer


def _with_network(session: Session, spec: LaunchSpec, folder: Path, known: Launched) -> Launched:
    network = find_network(session, known.region, spec.options.subnet)
    changed = replace(known, request={**known.request, **_place(spec, network)})
    changed.save(folder)
    return changed


def _may_be_there(error: ProviderError, *, repeated: bool) -> bool:
    """Whether the call may have made the machine although it failed. A repeated one that was refused for
    the caller's sake (credentials, too many calls) says nothing of what the first one did."""
    cause = error.__cause__
    if isinstance(cause, ClientError):
        code = cause.response["Error"]["Code"]
        row: Row | None = MORE.get(code) or shipped().get(code)
        kind = row.kind if row else ""
        return kind == "trouble" or (repeated and kind in SAYS_NOTHING)
    if isinstance(cause, EndpointConnectionError):
        return repeated
    return isinstance(cause, BotoCoreError)


def _keep(
    session: Session, spec: LaunchSpec, folder: Path, known: Launched, answer: Mapping[str, Any]
) -> list[Machine]:
    """The answer as machines, kept in the request's place."""
    instances = sorted(answer["Instances"], key=lambda each: each.get("AmiLaunchIndex", 0))
    machines = tuple(_machine(session, spec, each) for each in instances)
    done = replace(known, request={}, machines=machines)
    if len(machines) > 1 or machines[0].name != spec.name:
        share_keys(session.settings, done, folder)
        machines = tuple(_machine(session, spec, each) for each in instances)  # now with their host keys
        done = replace(done, machines=machines)
    done.save(folder)
    return list(machines)


def _machine(session: Session, spec: LaunchSpec, instance: Mapping[str, Any]) -> Machine:
    return as_asked(machine_of(session.settings, spec.offer.region, instance), spec)


def _clear_name(session: Session, folder: Path, known: Launched, name: str) -> None:
    """Another launch has used this name. Its keys go, unless they open a machine that is still there."""
    with mapped(region=known.region, what="launch"), suppress(FileNotFoundError):
        if by_token(session, known.region, known.token):
            raise ProviderError(
                f"a machine named {name} is there already, in {known.region}",
                hint=f"choose another name, or run: cloudrun machines adopt && cloudrun terminate {name}",
            )
        shutil.rmtree(folder)
