"""The life of an instance: pending to running to stopped or gone, with the machine behind it.

Each change is announced at once (pending, stopping, shutting-down) and done a moment later. Machines boot
and end outside the lock, one at a time per instance.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cloudrun.models import Market
from cloudrun.sim.aws import metadata_paths
from cloudrun.sim.aws.images import user_of
from cloudrun.sim.aws.wire import decode_base64
from cloudrun.sim.aws.world import GONE, SimInstance, World
from cloudrun.sim.packages import cards
from cloudrun.sim.spec import MachineSpec

USER = "Client.UserInitiatedShutdown", "User initiated shutdown"
SELF = "Client.InstanceInitiatedShutdown", "Instance initiated shutdown"
SPOT_END = "Server.SpotInstanceTermination", "Spot instance termination"
SPOT_STOP = "Server.SpotInstanceShutdown", "Instance was stopped because there is no Spot capacity"
BROKEN = "Server.InternalError", "Internal error on launch"

log = logging.getLogger(__name__)

Reason = tuple[str, str]
Ended = Callable[[SimInstance, Reason], None]


class Life:
    """Moves instances from state to state. `on_end` hears of each that stopped or ended."""

    def __init__(self, world: World, on_end: Ended) -> None:
        self._world = world
        self._on_end = on_end

    def begin(self, instance: SimInstance) -> None:
        """The instance is pending from now on, its machine boots. Also after a stop."""
        world = self._world
        instance.notice = None
        self._become(instance, "pending")
        world.backend.set_launch(
            instance.region,
            instance.id,
            at=datetime.now(UTC),
            spot_request_id=instance.request_id,
            index=instance.index,
        )
        ready_at = time.monotonic() + world.delays.pending_s
        world.timers.work(lambda: self._boot(instance, ready_at))

    def stop(self, instance: SimInstance, reason: Reason) -> None:
        """Stopping from now on, stopped a moment later; the disk stays."""
        self._become(instance, "stopping", reason)
        self._world.timers.work(lambda: self._power_off(instance, reason))

    def terminate(self, instance: SimInstance, reason: Reason) -> None:
        """Shutting down from now on, terminated a moment later, with all that was made for it. Idempotent."""
        if instance.state in GONE:
            return
        self._become(instance, "shutting-down", reason)
        self._world.timers.work(lambda: self._destroy(instance, reason))

    def reboot(self, instance: SimInstance) -> None:
        self._world.timers.work(lambda: self._reboot(instance))

    def powered_off(self, instance_id: str) -> None:
        """The system inside ended itself: what that means was said at the launch."""
        world = self._world
        with world.lock:
            instance = world.instances.get(instance_id)
            if instance is None or instance.state != "running":
                return
            if self._ends_with_its_system(instance):
                world.backend.end(instance.region, instance.id)
                self.terminate(instance, SELF)
            else:
                world.backend.halt(instance.region, instance.id)
                self.stop(instance, SELF)

    def _ends_with_its_system(self, instance: SimInstance) -> bool:
        if instance.market == Market.SPOT and not self._world.requests[instance.request_id].persistent:
            return True  # a one-time machine cannot be stopped
        return instance.form.get("InstanceInitiatedShutdownBehavior", "stop") == "terminate"

    # What happens a moment later, in threads of the timers

    def _boot(self, instance: SimInstance, ready_at: float) -> None:
        try:
            with instance.machine_lock:
                if instance.state != "pending":
                    return
                self._boot_machine(instance)
        except Exception:
            log.exception("%s does not boot", instance.id)
            self._give_up(instance)
            return
        left_s = max(0.0, ready_at - time.monotonic())
        self._world.timers.after(left_s, lambda: self._arrive(instance, "pending", "running"))

    def _boot_machine(self, instance: SimInstance) -> None:
        world = self._world
        if world.host is None:
            return
        with world.lock:
            spec = self._spec(instance)
        if instance.machine is None:
            instance.machine = world.host.create(spec, on_off=self.powered_off)
        else:
            instance.machine.move(spec.host)
        instance.machine.boot()

    def _spec(self, instance: SimInstance) -> MachineSpec:
        backend = self._world.backend
        known = backend.find(instance.region, instance.id)
        root = backend.root_volume(instance.region, instance.id)
        image = instance.form["ImageId"]
        kept = self._world.kept_disks.get(image)
        return MachineSpec(
            id=instance.id,
            host=known.public_ip or known.private_ip or "",
            hostname=known.private_dns_name.partition(".")[0],
            user=user_of(self._world, instance.region, image),
            user_data=decode_base64(instance.form.get("UserData", "")),
            disk_gb=int(root.size),
            respond=metadata_paths.service(self._world, instance),
            image=kept.folder if kept else None,
            gpu=cards("aws", instance.type),
        )

    def _give_up(self, instance: SimInstance) -> None:
        with self._world.lock:
            if instance.state in GONE:
                return
            self._world.backend.end(instance.region, instance.id)
            self.terminate(instance, BROKEN)

    def _power_off(self, instance: SimInstance, reason: Reason) -> None:
        started = time.monotonic()
        with instance.machine_lock:
            if instance.machine is not None and instance.state == "stopping":
                instance.machine.power_off(grace_s=self._world.delays.grace_s)
        left_s = self._world.delays.stopping_s - (time.monotonic() - started)
        self._world.timers.after(
            max(0.0, left_s), lambda: self._arrive(instance, "stopping", "stopped", reason)
        )

    def _destroy(self, instance: SimInstance, reason: Reason) -> None:
        started = time.monotonic()
        with instance.machine_lock:
            if instance.machine is not None:
                instance.machine.destroy()
                instance.machine = None
        left_s = self._world.delays.shutting_down_s - (time.monotonic() - started)
        self._world.timers.after(
            max(0.0, left_s), lambda: self._arrive(instance, "shutting-down", "terminated", reason)
        )

    def _reboot(self, instance: SimInstance) -> None:
        with instance.machine_lock:
            if instance.machine is not None and instance.state == "running":
                instance.machine.power_off(grace_s=self._world.delays.grace_s)
                instance.machine.boot()

    def _arrive(self, instance: SimInstance, old: str, new: str, reason: Reason = ("", "")) -> None:
        with self._world.lock:
            if instance.state != old:
                return
            self._become(instance, new, reason)
            if new in ("stopped", "terminated"):
                self._on_end(instance, reason)

    def _become(self, instance: SimInstance, state: str, reason: Reason = ("", "")) -> None:
        code, message = reason
        instance.state, instance.reason = state, code
        if state not in ("pending", "running"):
            self._world.release_capacity(instance)
        self._world.backend.set_state(
            instance.region, instance.id, state, transition=_transition(code), code=code, message=message
        )


def _transition(code: str) -> str:
    """StateTransitionReason. That of a system that ended itself has no time in it, as descriptions of
    such instances show that people have published (2019 to 2026)."""
    at = f"({datetime.now(UTC):%Y-%m-%d %H:%M:%S} GMT)"
    if code in (SPOT_END[0], SPOT_STOP[0]):
        return f"Service initiated {at}"
    return {USER[0]: f"User initiated {at}", SELF[0]: "User initiated", BROKEN[0]: BROKEN[0]}.get(code, "")
