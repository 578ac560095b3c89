"""moto, and the only place that touches its objects: calls to it, and states that it does not keep itself.

moto is used as it is but for one function, which gives machines loopback addresses.
Its objects are global to a process, so one double runs in a process at a time.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends, elastic_network_interfaces
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, StateReason
from moto.ec2.utils import random_ami_id
from moto.iam.models import iam_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.ssm.models import ssm_backends
from werkzeug.test import EnvironBuilder

from cloudrun.sim.aws.wire import FORM, ApiError, Form, Reply, Request, encode_form, with_body

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

_ERROR_CODE = re.compile(rb"<Code>([^<]+)</Code>|\"__type\": ?\"(?:[^\"#]*#)?([^\"]+)\"")
_MISSING_FILTER = re.compile(r"[Ff]ilter (?:dicts have not been implemented in Moto for )?'([^']+)'")


class Backend:
    """moto's server application and the objects behind it."""

    def __init__(self) -> None:
        self._addresses = Addresses()
        self._app: Any = DomainDispatcherApplication(create_backend_app)

    def reset(self) -> None:
        """Everything that the account had is gone; machines get loopback addresses from now on.

        moto's 1,300 images a region are left out: they are of 2017 and take half a second each time.
        """
        os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
        moto_api_backend.reset()
        setattr(elastic_network_interfaces, "random_public_ip", self._addresses.take)  # noqa: B010

    def call(self, request: Request) -> Reply:
        """What moto answers. What it cannot do becomes an error that a client understands."""
        body = encode_form(request.form) if request.form else request.body
        caught: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            caught["status"], caught["headers"] = int(status.split()[0]), headers

        try:
            content = b"".join(self._app(with_body(request.environ, body), start_response))
        except NotImplementedError as error:
            raise _not_there(request, str(error)) from error
        status, headers = caught["status"], tuple(caught["headers"])
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        if status >= 500 and request.service == "ec2":
            raise _not_there(request, content.decode("utf-8", "replace"))
        found = _ERROR_CODE.search(content) if status >= 400 else None
        code = (found[1] or found[2]).decode() if found else ("" if status < 400 else str(status))
        return Reply(status, content, kind, code, headers)

    def ask(self, region: str, action: str, form: Form) -> Reply:
        """An EC2 call of the double's own, under nobody's rights."""
        filled = {**form, "Action": action, "Version": "2016-11-15"}
        builder = EnvironBuilder(method="POST", data=encode_form(filled), content_type=FORM)
        environ = builder.get_environ()
        environ["HTTP_AUTHORIZATION"] = (
            f"AWS4-HMAC-SHA256 Credential=cloudrun/20260101/{region}/ec2/aws4_request"
        )
        return self.call(Request("ec2", action, region, filled, {}, b"", environ))

    # Instances

    def instance(self, region: str, id: str) -> Instance | None:
        found: Instance | None = self._ec2(region).get_instance_by_id(id)
        return found

    def instances(self, region: str) -> list[Instance]:
        return list(self._ec2(region).all_instances())

    def set_state(
        self, region: str, id: str, state: str, *, transition: str = "", code: str = "", message: str = ""
    ) -> None:
        """The state of an instance and why it is in it."""
        instance = self.find(region, id)
        instance._state.name = state
        instance._state.code = CODES[state]
        instance._reason = transition
        reason: Any = StateReason(f"{code}: {message}", code) if code else None  # a running one has none
        instance.state_reason = reason

    def protect(self, region: str, id: str) -> None:
        """No TerminateInstances ends it, until its attribute is changed."""
        self.find(region, id).disable_api_termination = True

    def set_launch(self, region: str, id: str, *, at: datetime, spot_request_id: str, index: int) -> None:
        """What moto leaves out at a launch or a start."""
        instance = self.find(region, id)
        instance.launch_time = at.replace(tzinfo=None)
        instance.ami_launch_index = index
        if spot_request_id:
            setattr(instance, "spot_instance_request_id", spot_request_id)  # noqa: B010 - read by the answer
        for interface in instance.nics.values():
            interface.delete_on_termination = True  # made by the launch, gone with the instance

    def end(self, region: str, id: str) -> None:
        """The instance, its addresses and its volumes are let go, as a TerminateInstances does."""
        self._ec2(region).terminate_instances([id])

    def halt(self, region: str, id: str) -> None:
        """The address is let go, as a StopInstances does, but for one that is elastic."""
        self._ec2(region).stop_instances([id])
        self._keep_elastic_address(region, id)

    def wake(self, region: str, id: str) -> None:
        """A new address, as a StartInstances does, unless there is one that is elastic."""
        self._ec2(region).start_instances([id])
        self._keep_elastic_address(region, id)

    def is_protected(self, region: str, id: str) -> bool:
        return str(self.find(region, id).disable_api_termination).lower() == "true"

    def set_shutdown_behaviour(self, region: str, id: str, behaviour: str) -> None:
        self.find(region, id).instance_initiated_shutdown_behavior = behaviour

    # Volumes, networks, images

    def volume(self, region: str, id: str) -> Any:
        return self._ec2(region).volumes.get(id)

    def root_volume(self, region: str, instance_id: str) -> Any:
        instance = self.find(region, instance_id)
        for device, mapping in instance.get_block_device_mapping:
            if device == instance.root_device_name:
                return self.volume(region, mapping.volume_id)
        return None

    def image(self, region: str, id: str) -> Any:
        return self._ec2(region).amis.get(id)

    def image_named(self, region: str, name: str) -> str:
        """The id of the account's image of that name, "" where there is none."""
        ours = (each for each in self._ec2(region).amis.values() if each.owner_id == DEFAULT_ACCOUNT_ID)
        return next((str(each.id) for each in ours if each.name == name), "")

    def make_image(self, region: str, instance_id: str, *, name: str, text: str, size_gb: int) -> Any:
        """An image of the account's own, pending."""
        ec2 = self._ec2(region)
        image = OwnImage(ec2, random_ami_id(), self.find(region, instance_id), name, text, size_gb)
        ec2.amis[image.id] = image
        return image

    def set_image_state(self, region: str, id: str, state: str) -> None:
        """Of one that was deregistered meanwhile: nothing."""
        if image := self.image(region, id):
            image.state = state

    def subnet_zone(self, region: str, id: str) -> str:
        """The zone of a subnet, "" where there is no such subnet."""
        return next((str(each.availability_zone) for each in self._subnets(region) if each.id == id), "")

    def has_key_pair(self, region: str, name: str) -> bool:
        return name in self._ec2(region).key_pairs

    def group_id(self, region: str, name: str) -> str:
        group = self._ec2(region).get_security_group_by_name_or_id(name)
        return str(group.id) if group else ""

    def default_group(self, region: str, subnet: str) -> str:
        """The group of machines that name none, of the subnet's network or of the default one."""
        ec2 = self._ec2(region)
        networks = [each.vpc_id for each in self._subnets(region) if each.id == subnet]
        network = networks[0] if networks else getattr(ec2.get_default_vpc(), "id", "")
        if not network:
            raise ApiError("VPCIdNotSpecified", "No default VPC for this user.")
        return str(ec2.get_default_security_group(network).id)

    def group_in_use(self, region: str, group_id: str) -> bool:
        """Whether an interface or an instance that is not gone is in this group."""
        interfaces: Iterable[NetworkInterface] = self._ec2(region).enis.values()
        if any(group_id in (group.id for group in each.group_set) for each in interfaces):
            return True
        return any(
            group_id in (group.id for group in each.security_groups)
            for each in self.instances(region)
            if each.state != "terminated"
        )

    def tags(self, region: str, id: str) -> dict[str, str]:
        return dict(self._ec2(region).tags.get(id, {}))

    def add_tags(self, region: str, id: str, tags: dict[str, str]) -> None:
        if tags:
            self._ec2(region).create_tags([id], tags)

    def parameter(self, region: str, name: str) -> str:
        """The value of a parameter that a launch names; raises what EC2 says of one that is not there."""
        parameters = ssm_backends[DEFAULT_ACCOUNT_ID][region]._parameters
        if name not in parameters:
            raise ApiError("InvalidParameterValue", f"The ssm parameter {name} does not exist.")
        return str(parameters[name][-1].value)

    def has_profile(self, *, name: str, arn: str) -> bool:
        profiles = iam_backends[DEFAULT_ACCOUNT_ID]["aws"].instance_profiles.values()
        return any(profile.name == name or profile.arn == arn for profile in profiles)

    def find(self, region: str, id: str) -> Instance:
        found = self.instance(region, id)
        if found is None:
            raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{id}' does not exist")
        return found

    def _keep_elastic_address(self, region: str, id: str) -> None:
        for address in self._ec2(region).addresses:
            if address.instance is not None and address.instance.id == id:
                address.eni.public_ip = address.public_ip

    def _subnets(self, region: str) -> Iterator[Any]:
        for by_zone in self._ec2(region).subnets.values():
            yield from by_zone.values()

    def _ec2(self, region: str) -> Any:
        return ec2_backends[DEFAULT_ACCOUNT_ID][region]


class OwnImage(Ami):
    """What CreateImage makes: its root disk as big as the instance's."""

    def __init__(self, ec2: Any, id: str, instance: Instance, name: str, text: str, size_gb: int) -> None:
        super().__init__(
            ec2,
            id,
            instance=instance,
            name=name,
            description=text,
            state="pending",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=instance.root_device_name,
            region_name=str(instance.placement),
            snapshot_description=f"Created by CreateImage({instance.id}) for {id}",
        )
        self.ebs_snapshot.volume.size = size_gb

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        [mapping] = super().block_device_mappings
        size_gb = self.ebs_snapshot.volume.size
        mapping["Ebs"] |= {"VolumeSize": size_gb, "DeleteOnTermination": True, "VolumeType": "gp3"}
        return [mapping]


class Addresses:
    """Public addresses: 127.x.y.z at random, so that two doubles on one computer rarely meet; none twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._random = random.SystemRandom()

    def take(self) -> str:
        while True:
            numbers = (self._random.randrange(16, 250) for _ in range(3))
            address = ".".join(map(str, (127, *numbers)))
            if address not in self._taken:
                self._taken.add(address)
                return address


def _not_there(request: Request, complaint: str) -> ApiError:
    """What EC2 says to a filter or an action that it does not have: moto fails there in its own way."""
    unknown = _MISSING_FILTER.search(complaint)
    if unknown:
        return ApiError("InvalidParameterValue", f"The filter '{unknown[1]}' is invalid")
    return ApiError("InvalidAction", f"The action {request.action} is not valid here: the rehearsal lacks it")
