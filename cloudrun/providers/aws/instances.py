"""EC2's instances as our machines: states, times, addresses, and all of it rebuilt from tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from cloudrun.catalog.loader import find_type
from cloudrun.config import Settings
from cloudrun.errors import Credentials
from cloudrun.images import IMAGE_FACT
from cloudrun.models import Machine, MachineState, Market, OnPreempt, SshAddress
from cloudrun.providers import tags as t
from cloudrun.providers.answers import side_by_side
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import COUNT, tags_of
from cloudrun.providers.rented import fact, ssh_address, told_by

PROVIDER = "aws"
USUAL_USER = "ubuntu"  # of an instance whose tag was removed
LIVE = ("pending", "running", "stopping", "stopped")
ENDED = ("shutting-down", "terminated")
YOUNG = timedelta(
    minutes=5
)  # after a launch EC2 may not know its id everywhere (EC2 API, eventual consistency)
MOST_FILTER_VALUES = 200  # of one filter (EC2 API reference, DescribeInstances)
MOST_RESULTS = 1000  # of one page

STATES = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPED,  # billed no more
    "stopped": MachineState.STOPPED,
    "shutting-down": MachineState.TERMINATED,  # billed no more
    "terminated": MachineState.TERMINATED,
}
# Reasons of AWS's own, of StateReason (EC2 API reference): it took the machine, or could not give it.
TAKEN = ("Server.Spot", "Server.InsufficientInstanceCapacity", "Server.InternalError")
SPOT_STOP = "Server.Spot"
TIME = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")  # in StateTransitionReason
# What a region answers that this account may not ask; it holds no machine that this account could end.
CLOSED = ("OptInRequired", "AuthFailure", "UnauthorizedOperation", "AccessDenied", "AccessDeniedException")


def describe(session: Session, machines: Sequence[Machine]) -> list[Machine]:
    """The machines as they are now, in the order given: one call for all of a region (200 of them).

    What others know of them is kept. An id that EC2 does not know is TERMINATED, within five minutes of
    its launch PENDING. One with another token is somebody else's: TERMINATED.
    """
    seen: dict[str, Machine] = {}
    for region in sorted({machine.region for machine in machines}):
        there = [machine for machine in machines if machine.region == region]
        with mapped(region=region, what="describe"):
            found = {each["InstanceId"]: each for each in by_id(session, region, [one.id for one in there])}
            for machine in there:
                seen[machine.id] = _now(session, machine, found.get(machine.id))
    return [seen[machine.id] for machine in machines]


def by_id(session: Session, region: str, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """Those of the ids that EC2 knows. As a filter: asked for by id, one that is not visible yet, or
    not any more, would fail them all."""
    wanted = sorted({*filter(None, ids)})
    parts = [wanted[i : i + MOST_FILTER_VALUES] for i in range(0, len(wanted), MOST_FILTER_VALUES)]
    return [each for part in parts for each in _ask(session, region, {"instance-id": part})]


def by_token(session: Session, region: str, token: str) -> list[Machine]:
    """The machines of one launch that are not gone, as far as EC2 shows them yet."""
    found = _ask(session, region, {f"tag:{t.TOKEN}": [token], "instance-state-name": LIVE})
    return [machine_of(session.settings, region, each) for each in found]


def list_all(session: Session) -> list[Machine]:
    """Every machine with our tags that is not gone, in every enabled region, asked side by side.

    A region that the account may not ask is left out, unless all are. Raises what else goes wrong:
    a machine that is not listed would count as gone.
    """
    return [machine for found in each_region(session, list_region) for machine in found]


def each_region(session: Session, work: Any) -> list[Any]:
    """`work(session, region)` of every enabled region that may be asked, side by side."""
    with mapped(region=session.home_region, what="list the regions"):
        regions = session.regions()
    results: list[Any] = side_by_side(lambda region: _unless_closed(session, region, work), regions)
    refusals = [result for result in results if isinstance(result, Credentials)]
    if len(refusals) == len(regions):
        raise refusals[0]
    return [result for result in results if not isinstance(result, Credentials)]


def machine_of(settings: Settings, region: str, instance: Mapping[str, Any]) -> Machine:
    """A machine rebuilt from what EC2 describes, its tags above all."""
    tags = tags_of(instance)
    known = find_type(PROVIDER, instance["InstanceType"])
    state, detail = _state_and_detail(instance, tags)
    name = _name(instance, tags)
    return Machine(
        id=instance["InstanceId"],
        name=name,
        provider=PROVIDER,
        region=region,
        zone=instance["Placement"]["AvailabilityZone"],
        type=instance["InstanceType"],
        market=Market.SPOT if instance.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND,
        state=state,
        address=_address(settings, name, instance, tags, state),
        launched_at=instance["LaunchTime"].astimezone(UTC),
        ended_at=_ended_at(instance, state),
        gpu=known.gpu if known else "",
        gpu_count=known.gpu_count if known else 0,
        gpu_memory_gib=known.gpu_memory_gib if known else 0.0,
        gpu_capability=known.gpu_capability if known else None,
        detail=detail,
        **told_by(tags),
    )


def is_young(machine: Machine) -> bool:
    """Whether EC2 may still not know its id."""
    return machine.launched_at is not None and datetime.now(UTC) - machine.launched_at < YOUNG


def list_region(session: Session, region: str) -> list[Machine]:
    found = _ask(session, region, {f"tag:{t.OURS}": ["1"], "instance-state-name": LIVE})
    return [machine_of(session.settings, region, each) for each in found]


def _ask(session: Session, region: str, filters: Mapping[str, Sequence[str]]) -> list[Mapping[str, Any]]:
    pages = session.client("ec2", region).get_paginator("describe_instances")
    asked = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    answers: Iterable[Mapping[str, Any]] = pages.paginate(
        Filters=asked, PaginationConfig={"PageSize": MOST_RESULTS}
    )
    return [each for page in answers for group in page["Reservations"] for each in group["Instances"]]


def _unless_closed(session: Session, region: str, work: Any) -> Any:
    """What the work returns, or the refusal of a region that is closed to this account."""
    try:
        with mapped(region=region, what="list"):
            return work(session, region)
    except Credentials as refusal:
        cause = refusal.__cause__
        if isinstance(cause, ClientError) and cause.response["Error"]["Code"] in CLOSED:
            return refusal
        raise


def _now(session: Session, machine: Machine, instance: Mapping[str, Any] | None) -> Machine:
    if instance is None:
        return _unknown(machine)
    seen = machine_of(session.settings, machine.region, instance)
    if seen.token != machine.token:
        return replace(machine, state=MachineState.TERMINATED, address=None)
    if seen.ended_at is None and (seen.state.gone or seen.state is MachineState.STOPPED):
        ended_at = machine.ended_at or _spot_end(session, seen) or _latest_end(machine)
        seen = replace(seen, ended_at=ended_at)
    return replace(
        machine,
        state=seen.state,
        zone=seen.zone,
        address=seen.address,
        ended_at=seen.ended_at,
        disk_gb=seen.disk_gb or machine.disk_gb,
        detail=seen.detail,
    )


def _unknown(machine: Machine) -> Machine:
    """EC2 shows what is gone for an hour or so, and what is new after a moment."""
    if is_young(machine) and not machine.state.gone:
        return replace(machine, state=MachineState.PENDING)
    state = machine.state if machine.state.gone else MachineState.TERMINATED
    return replace(machine, state=state, address=None, ended_at=machine.ended_at or _latest_end(machine))


def _latest_end(machine: Machine) -> datetime | None:
    """Where AWS has no time: the guard ended the machine at its deadline at the latest."""
    deadline = machine.deadline_at
    return deadline if deadline and deadline < datetime.now(UTC) else None


def _state_and_detail(
    instance: Mapping[str, Any], tags: Mapping[str, str]
) -> tuple[MachineState, tuple[tuple[str, str], ...]]:
    raw = instance["State"]["Name"]
    reason = instance.get("StateReason", {}).get("Code", "")
    state = STATES.get(raw, MachineState.PENDING)
    if state is MachineState.TERMINATED and reason.startswith(TAKEN):
        state = MachineState.PREEMPTED
    groups = instance.get("SecurityGroups") or ()
    facts = {
        "token": tags.get(t.TOKEN, ""),
        "state": raw,
        "reason": reason if state is not MachineState.RUNNING else "",
        "preempted": "stop" if state is MachineState.STOPPED and reason.startswith(SPOT_STOP) else "",
        "on-preempt": tags.get(t.ON_PREEMPT, ""),
        "spot-request": instance.get("SpotInstanceRequestId", ""),
        "group": groups[0]["GroupId"] if groups else "",
        "fixed-address": tags.get(t.ADDRESS, ""),
        IMAGE_FACT: instance.get("ImageId", ""),
    }
    return state, tuple((name, value) for name, value in facts.items() if value)


def _name(instance: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    base = tags.get(t.NAME, instance["InstanceId"])
    return f"{base}-{instance.get('AmiLaunchIndex', 0) + 1}" if tags.get(COUNT) else base


def _address(
    settings: Settings, name: str, instance: Mapping[str, Any], tags: Mapping[str, str], state: MachineState
) -> SshAddress | None:
    """The public address; the private one in a subnet that gives no other."""
    if state not in (MachineState.RUNNING, MachineState.PENDING):
        return None
    host = instance.get("PublicIpAddress", "")
    if not host and state is MachineState.RUNNING:
        host = instance.get("PrivateIpAddress", "")
    if not host:
        return None
    return ssh_address(settings, name, host, tags.get(t.USER, USUAL_USER))


def _ended_at(instance: Mapping[str, Any], state: MachineState) -> datetime | None:
    """EC2's own time of the last stop or end. It stands there in words, after a user's own call only."""
    if state in (MachineState.PENDING, MachineState.RUNNING):
        return None
    found = TIME.search(instance.get("StateTransitionReason", ""))
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None


def _spot_end(session: Session, machine: Machine) -> datetime | None:
    """When spot took or stopped it: the time stands with its request only."""
    request = fact(machine, "spot-request")
    taken = machine.state is MachineState.PREEMPTED or fact(machine, "preempted")
    if not taken or not request:
        return None
    filters = [{"Name": "spot-instance-request-id", "Values": [request]}]
    answer = session.client("ec2", machine.region).describe_spot_instance_requests(Filters=filters)
    times = [each["Status"]["UpdateTime"] for each in answer["SpotInstanceRequests"]]
    return times[0].astimezone(UTC) if times else None


def persistent(machine: Machine) -> bool:
    """Whether EC2 would fulfil the machine's spot request again."""
    return machine.market is Market.SPOT and fact(machine, "on-preempt") == OnPreempt.STOP
