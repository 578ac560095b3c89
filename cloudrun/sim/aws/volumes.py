"""Volumes that grow, and security groups that are in use: what moto lets through and EC2 does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cloudrun.sim.aws.wire import (
    ApiError,
    Reply,
    Request,
    ec2_reply,
    filters_of,
    fits,
    members,
    page,
    whole_number,
)
from cloudrun.sim.aws.world import GONE, World

# ModifyVolume, API reference until 2025: six hours between two changes of a volume. The newest text allows
# four changes within 24 hours; the older rule is the stricter one, and what holds for it holds for both.
BETWEEN_CHANGES = timedelta(hours=6)
_ROWS = 500


@dataclass(slots=True)
class Modification:
    """One change of a volume."""

    region: str
    volume_id: str
    original_gb: int
    target_gb: int
    volume_type: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    state: str = "modifying"  # modifying | optimizing | completed
    progress: int = 0


class Volumes:
    """Handlers of the calls about volumes and groups."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changes: dict[str, Modification] = {}  # the newest of each volume

    def modify(self, request: Request) -> Reply:
        """The new size is there after modifying, the volume is at full speed after optimizing."""
        volume_id = request.form.get("VolumeId", "")
        volume = self._world.backend.volume(request.region, volume_id)
        if volume is None:
            raise ApiError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        size_gb = whole_number(request.form, "Size", int(volume.size))
        if size_gb < volume.size:
            raise ApiError("InvalidParameterValue", "New size cannot be smaller than existing size")
        self._check_last(volume_id)
        original_gb = int(volume.size)
        made = self._world.backend.call(request)
        if made.status != 200:
            return made
        change = Modification(request.region, volume_id, original_gb, size_gb, str(volume.volume_type))
        self._changes[volume_id] = change
        timers = self._world.timers
        timers.after(self._world.delays.modifying_s, lambda: timers.work(lambda: self._optimize(change)))
        return ec2_reply("ModifyVolume", {"volumeModification": _row(change)})

    def describe_modifications(self, request: Request) -> Reply:
        ids = members(request.form, "VolumeId")
        for each in ids:
            if each not in self._changes:
                raise ApiError(
                    "InvalidVolumeModification.NotFound", f"Modification for volume '{each}' does not exist."
                )
        filters = filters_of(request.form)
        unknown = set(filters) - set(_FILTERS)
        if unknown:
            raise ApiError("InvalidParameterValue", f"The filter '{min(unknown)}' is invalid")
        rows = [
            _row(change)
            for change in self._changes.values()
            if change.region == request.region
            and (not ids or change.volume_id in ids)
            and all(fits(_FILTERS[name](change), values) for name, values in filters.items())
        ]
        shown, token = page(rows, request.form, most=_ROWS)
        return ec2_reply(
            "DescribeVolumesModifications", {"volumeModificationSet": shown, "nextToken": token or None}
        )

    def delete_group(self, request: Request) -> Reply:
        """Refused as long as an instance or an interface is in the group."""
        backend, form = self._world.backend, request.form
        group = form.get("GroupId") or backend.group_id(request.region, form.get("GroupName", ""))
        if group and backend.group_in_use(request.region, group):
            raise ApiError("DependencyViolation", f"resource {group} has a dependent object")
        return self._world.backend.call(request)

    def _check_last(self, id: str) -> None:
        last = self._changes.get(id)
        if last is None:
            return
        if last.state != "completed":
            raise ApiError(
                "IncorrectModificationState",
                f"Cannot modify volume {id}: it is in modification state {last.state.upper()}",
            )
        if datetime.now(UTC) - last.started_at < BETWEEN_CHANGES:
            raise ApiError(
                "VolumeModificationRateExceeded",
                "You've reached the maximum modification rate per volume limit. Wait at least 6 hours "
                "between modifications per EBS volume.",
            )

    def _optimize(self, change: Modification) -> None:
        """The machine's disk gets bigger, outside the lock: it may take a moment."""
        with self._world.lock:
            machine = self._machine_on(change)
        if machine is not None:
            machine.grow(change.target_gb)
        with self._world.lock:
            change.state, change.progress = "optimizing", 50
        self._world.timers.after(self._world.delays.optimizing_s, lambda: self._complete(change))

    def _complete(self, change: Modification) -> None:
        with self._world.lock:
            change.state, change.progress, change.ended_at = "completed", 100, datetime.now(UTC)

    def _machine_on(self, change: Modification) -> Any:
        for instance in self._world.in_region(change.region):
            if instance.state in GONE or instance.machine is None:
                continue
            root = self._world.backend.root_volume(instance.region, instance.id)
            if root is not None and root.id == change.volume_id:
                return instance.machine
        return None


_FILTERS: dict[str, Callable[[Modification], str]] = {
    "volume-id": lambda change: change.volume_id,
    "modification-state": lambda change: change.state,
    "original-size": lambda change: str(change.original_gb),
    "target-size": lambda change: str(change.target_gb),
}


def _row(change: Modification) -> dict[str, Any]:
    return {
        "volumeId": change.volume_id,
        "modificationState": change.state,
        "originalSize": change.original_gb,
        "targetSize": change.target_gb,
        "originalVolumeType": change.volume_type,
        "targetVolumeType": change.volume_type,
        "progress": change.progress,
        "startTime": change.started_at,
        "endTime": change.ended_at,
    }
