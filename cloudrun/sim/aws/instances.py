"""The calls about instances that are there: describe, stop, start, reboot, terminate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cloudrun.models import Market
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.backend import CODES
from cloudrun.sim.aws.life import USER, Life
from cloudrun.sim.aws.wire import (
    ApiError,
    Form,
    Reply,
    Request,
    ec2_reply,
    filters_of,
    fits,
    members,
    with_filters,
)
from cloudrun.sim.aws.world import GONE, STOPPED_BY_USER, SimInstance, World
from cloudrun.sim.faults import Target

_ID = re.compile(r"i-[0-9a-f]{8}([0-9a-f]{9})?")
_NO_INSTANCE = "i-0"  # a filter value that nothing has


class Instances:
    """Handlers of these calls."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    def describe(self, request: Request) -> Reply:
        """moto's description; filters that it lacks are judged here, what is not visible yet is left out."""
        filters = filters_of(request.form)
        ours = {name: filters.pop(name) for name in _FILTERS if name in filters}
        hidden = self._world.hidden(request.region)
        if not ours and not hidden:
            return self._world.backend.call(request)
        fitting = [
            each.id
            for each in self._world.in_region(request.region)
            if each.id not in hidden and all(fits(_FILTERS[name](each), ours[name]) for name in ours)
        ]
        wanted = filters.get("instance-id")
        shown = [each for each in fitting if wanted is None or each in wanted]
        filters["instance-id"] = shown or [_NO_INSTANCE]
        return self._world.backend.call(request.with_form(with_filters(request.form, filters)))

    def describe_offerings(self, request: Request) -> Reply:
        """moto takes wildcards in the type for letters: they are spelt out here."""
        filters = filters_of(request.form)
        types = filters.get("instance-type", [])
        if any(mark in each for each in types for mark in "*?"):
            filters["instance-type"] = seeds.types_like(types) or [_NO_INSTANCE]
        return self._world.backend.call(request.with_form(with_filters(request.form, filters)))

    def check_visible(self, request: Request) -> None:
        """Raises for ids that are misspelt, or that this call does not see yet."""
        named = members(request.form, "InstanceId") or [request.form.get("InstanceId", "")]
        hidden = self._world.hidden(request.region)
        for each in filter(None, named):
            if not _ID.fullmatch(each):
                raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{each}"')
            if each in hidden:
                raise _not_found([each])

    def terminate(self, request: Request) -> Reply:
        """All of them or none. Those that are gone stay gone."""
        found = self._named(request)
        for each in found:
            if self._world.backend.is_protected(each.region, each.id):
                raise ApiError(
                    "OperationNotPermitted",
                    f"The instance '{each.id}' may not be terminated. Modify its 'disableApiTermination' "
                    f"instance attribute and try again.",
                )
        before = {each.id: each.state for each in found}
        for each in found:
            if each.state not in GONE:
                self._world.backend.end(each.region, each.id)
                self._life.terminate(each, USER)
        return _changes("TerminateInstances", before, found)

    def stop(self, request: Request) -> Reply:
        found = self._named(request)
        for each in found:
            self._check_can_stop(each)
        before = {each.id: each.state for each in found}
        for each in found:
            if each.state == "running":
                self._world.backend.halt(each.region, each.id)
                self._life.stop(each, USER)
        return _changes("StopInstances", before, found)

    def start(self, request: Request) -> Reply:
        found = self._named(request)
        for each in found:
            if each.state not in ("running", "stopped", "pending"):
                raise _wrong_state(each, "started")
        resting = [each for each in found if each.state == "stopped"]
        for each in resting:
            self._check_can_start(each)
        before = {each.id: each.state for each in found}
        for each in resting:
            self.wake(each)
        return _changes("StartInstances", before, found)

    def reboot(self, request: Request) -> Reply:
        found = self._named(request)
        for each in found:
            if each.state not in ("running", "pending"):
                raise _wrong_state(each, "rebooted")
        for each in found:
            self._life.reboot(each)
        return ec2_reply("RebootInstances", {"return": True})

    def modify_attribute(self, request: Request) -> Reply:
        """What moto does not take: the shutdown behaviour."""
        behaviour = request.form.get("InstanceInitiatedShutdownBehavior.Value", "")
        if not behaviour:
            return self._world.backend.call(request)
        if behaviour not in ("stop", "terminate"):
            raise ApiError("InvalidParameterValue", f"Value ({behaviour}) for the attribute is invalid.")
        instance = self._find(request.region, request.form.get("InstanceId", ""))
        instance.form["InstanceInitiatedShutdownBehavior"] = behaviour
        self._world.backend.set_shutdown_behaviour(instance.region, instance.id, behaviour)
        return ec2_reply("ModifyInstanceAttribute", {"return": True})

    def wake(self, instance: SimInstance) -> None:
        """A stopped instance gets a new address and boots."""
        world = self._world
        world.capacity.take(instance.type, instance.zone, instance.market, 1)
        instance.holds_capacity = True
        world.backend.wake(instance.region, instance.id)
        self._life.begin(instance)
        if instance.request_id:
            world.requests[instance.request_id].become("active", "fulfilled")

    def can_wake(self, instance: SimInstance) -> bool:
        try:
            self._check_room(instance)
        except ApiError:
            return False
        return True

    def _check_can_stop(self, instance: SimInstance) -> None:
        if instance.state in ("pending", *GONE):
            raise _wrong_state(instance, "stopped")
        if instance.market == Market.SPOT and not self._world.requests[instance.request_id].persistent:
            raise ApiError(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time "
                f"Spot Instance request. You can only stop Spot Instances associated with persistent Spot "
                f"Instance requests.",
            )

    def _check_can_start(self, instance: SimInstance) -> None:
        request = self._world.requests.get(instance.request_id)
        if request and request.status != STOPPED_BY_USER:
            raise ApiError(
                "IncorrectSpotRequestState",
                "Only Amazon EC2 can restart an interrupted stopped Spot Instance.",
            )
        self._check_room(instance)

    def _check_room(self, instance: SimInstance) -> None:
        """Capacity and quota: a stopped machine has neither."""
        world = self._world
        place = instance.region, instance.zone, instance.type
        fault = world.faults.take(Target("StartInstances", *place, instance.market.value), machine=True)
        if fault:
            raise fault.error()
        if world.capacity.free(instance.type, instance.zone, instance.market) == 0:
            raise ApiError(
                "InsufficientInstanceCapacity",
                f"Insufficient capacity: there is no {instance.type} free in {instance.zone} now.",
            )
        vcpus = seeds.vcpus_of(instance.type)
        world.quotas.check(instance.region, instance.type, instance.market, vcpus, world.vcpus_used)

    def _named(self, request: Request) -> list[SimInstance]:
        ids = list(dict.fromkeys(members(request.form, "InstanceId")))
        if not ids:
            raise ApiError("MissingParameter", "The request must contain the parameter InstanceId")
        known = {each.id: each for each in self._world.in_region(request.region)}
        missing = [each for each in ids if each not in known]
        if missing:
            raise _not_found(missing)
        if request.form.get("DryRun") == "true":
            raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        return [known[each] for each in ids]

    def _find(self, region: str, id: str) -> SimInstance:
        found = self._world.instances.get(id)
        if found is None or found.region != region:
            raise _not_found([id])
        return found


# Filters of DescribeInstances that moto has not
_FILTERS: dict[str, Callable[[SimInstance], str]] = {
    "client-token": lambda instance: instance.form.get("ClientToken", ""),
    "instance-lifecycle": lambda instance: "spot" if instance.market == Market.SPOT else "",
    "spot-instance-request-id": lambda instance: instance.request_id,
    "reservation-id": lambda instance: instance.reservation,
    "launch-index": lambda instance: str(instance.index),
    "state-reason-code": lambda instance: instance.reason,
    "instance-state-code": lambda instance: str(CODES[instance.state]),
}


def _changes(action: str, before: dict[str, str], found: Iterable[SimInstance]) -> Reply:
    rows = [
        {
            "instanceId": each.id,
            "currentState": _state(each.state),
            "previousState": _state(before[each.id]),
        }
        for each in found
    ]
    return ec2_reply(action, {"instancesSet": rows})


def _state(name: str) -> Form:
    return {"code": str(CODES[name]), "name": name}


def _wrong_state(instance: SimInstance, verb: str) -> ApiError:
    return ApiError(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
    )


def _not_found(ids: list[str]) -> ApiError:
    text = f"The instance ID '{ids[0]}' does not exist"
    if len(ids) > 1:
        text = f"The instance IDs '{', '.join(ids)}' do not exist"
    return ApiError("InvalidInstanceID.NotFound", text)
