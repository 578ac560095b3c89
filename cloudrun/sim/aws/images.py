"""Images of one's own: CreateImage switches the machine off, keeps its disk, and switches it on again.

moto knows the image and its snapshot; what is on the disk lies with the maker of the machines.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.wire import ApiError, Reply, Request, ec2_reply, tag_specifications
from cloudrun.sim.aws.world import GONE, SimInstance, World

# CreateImage, EC2 API reference: 3 to 128 of letters, digits, ( ) [ ] space . / - ' @ _
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptDisk:
    """What an image of the account boots with."""

    user: str
    folder: Path | None  # None: without machines there are no disks


class Images:
    """Handlers of the calls that make and remove them; moto describes them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create(self, request: Request) -> Reply:
        """Pending from now on; available once the disk is kept. Of a machine that ends meanwhile: failed."""
        backend, form = self._world.backend, request.form
        name = form.get("Name", "")
        instance = self._named(request)
        if not _NAME.fullmatch(name):
            raise ApiError("InvalidAMIName.Malformed", f"AMI name '{name}' is malformed")
        if taken := backend.image_named(request.region, name):
            raise ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {taken}")
        if form.get("NoReboot") == "true":
            raise ApiError("UnsupportedOperation", "NoReboot is not rehearsed: disks are kept while off.")
        size_gb = int(backend.root_volume(request.region, instance.id).size)
        image = backend.make_image(
            request.region, instance.id, name=name, text=form.get("Description", ""), size_gb=size_gb
        )
        backend.add_tags(request.region, image.id, tag_specifications(form, "image"))
        backend.add_tags(request.region, image.ebs_snapshot.id, tag_specifications(form, "snapshot"))
        ready_at = time.monotonic() + self._world.delays.imaging_s
        self._world.timers.work(lambda: self._keep(instance, image.id, ready_at))
        return ec2_reply("CreateImage", {"imageId": image.id})

    def deregister(self, request: Request) -> Reply:
        """Machines that were launched from it stay, and its snapshots too."""
        answer = self._world.backend.call(request)
        image = request.form.get("ImageId", "")
        if answer.status == 200:
            self._world.kept_disks.pop(image, None)
            if self._world.host:
                self._world.host.discard(image)
        return answer

    def _named(self, request: Request) -> SimInstance:
        named = request.form.get("InstanceId", "")
        found = self._world.instances.get(named)
        if found is None or found.region != request.region:
            raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{named}' does not exist")
        if found.state not in ("running", "stopped"):
            raise ApiError(
                "IncorrectState", f"The instance '{named}' is {found.state}: no image can be made."
            )
        return found

    def _keep(self, instance: SimInstance, image: str, ready_at: float) -> None:
        """Outside the lock: the disk is copied."""
        try:
            with instance.machine_lock:
                folder = self._capture(instance, image)
        except Exception:
            log.exception("no image of %s", instance.id)
            self._arrive(instance, image, "failed")
            return
        self._world.kept_disks[image] = KeptDisk(self._user(instance), folder)
        left_s = max(0.0, ready_at - time.monotonic())
        self._world.timers.after(left_s, lambda: self._arrive(instance, image, "available"))

    def _capture(self, instance: SimInstance, image: str) -> Path | None:
        host, machine = self._world.host, instance.machine
        if instance.state in GONE:
            raise ApiError("IncorrectState", f"{instance.id} ended meanwhile")
        if host is None or machine is None:
            return None
        machine.power_off(grace_s=self._world.delays.grace_s)
        folder = host.capture(instance.id, image)
        if instance.state == "running":
            machine.boot()
        return folder

    def _arrive(self, instance: SimInstance, image: str, state: str) -> None:
        with self._world.lock:
            self._world.backend.set_image_state(instance.region, image, state)

    def _user(self, instance: SimInstance) -> str:
        return user_of(self._world, instance.region, instance.form["ImageId"])


def user_of(world: World, region: str, image: str) -> str:
    """The user that an image lets in: one of the account's own the same as what it was made from."""
    kept = world.kept_disks.get(image)
    return kept.user if kept else seeds.login_user(world.backend.image(region, image))
