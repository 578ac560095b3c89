"""Stop, start, terminate, and the guard's policy in the tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from cloudrun.errors import NoCapacity, NotFound, Refused
from cloudrun.models import Guard, Machine, MachineState, Market
from cloudrun.providers import tags as t
from cloudrun.providers.aws.addresses import free_address
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.instances import (
    ENDED,
    by_id,
    describe,
    is_young,
    machine_of,
    persistent,
)
from cloudrun.providers.aws.network import remove_groups
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import to_aws
from cloudrun.providers.launched import forget_keys
from cloudrun.providers.rented import fact

UNKNOWN = "InvalidInstanceID.NotFound"
WRONG_STATE = ("IncorrectInstanceState", "IncorrectSpotRequestState")


def stop(session: Session, machine: Machine) -> None:
    """Turn it off, disk kept. Idempotent. Raises Refused for spot that cannot be stopped."""
    if machine.market is Market.SPOT and not persistent(_with_facts(session, [machine])[0]):
        raise Refused(
            f"{machine.name} is one-time spot, which cannot be stopped",
            hint="terminate it, or launch with --on-preempt stop for one that can",
        )
    with mapped(region=machine.region, type=machine.type, what="stop"):
        session.client("ec2", machine.region).stop_instances(InstanceIds=[machine.id])


def start(session: Session, machine: Machine) -> Machine:
    """Turn it on again; its address is a new one, and not known yet. Idempotent.

    Raises NotFound when it is gone, NoCapacity also while it is still stopping.
    """
    ec2 = session.client("ec2", machine.region, retry=False)
    with mapped(region=machine.region, type=machine.type, what="start"):
        try:
            ec2.start_instances(InstanceIds=[machine.id])
        except ClientError as error:
            if error.response["Error"]["Code"] not in (UNKNOWN, *WRONG_STATE):
                raise
            _explain_refused_start(session, machine)
            raise
    return replace(machine, state=MachineState.PENDING, address=None, ended_at=None)


def terminate(session: Session, machines: Sequence[Machine]) -> None:
    """End them and free what was made for them: two calls a region at most, fixed addresses aside.

    A persistent spot request is cancelled first, or EC2 would fulfil it again. The security group is
    still needed while machines shut down: it goes with a later terminate, or as a leftover.
    """
    for region in sorted({machine.region for machine in machines}):
        there = [machine for machine in machines if machine.region == region and machine.id]
        known = [each for each in _with_facts(session, there) if fact(each, "token") == each.token]
        if known:
            _terminate(session, region, known)


def set_guard(session: Session, machine: Machine, guard: Guard) -> None:
    """Keep the changed policy in the tags, for whoever rebuilds the machine from them."""
    changed = t.guard_tags(guard)
    ec2 = session.client("ec2", machine.region)
    kept = {key: value for key, value in changed.items() if value}
    gone = [{"Key": key} for key, value in changed.items() if not value]
    with mapped(region=machine.region, what="tag"):
        if kept:
            ec2.create_tags(Resources=[machine.id], Tags=to_aws(kept))
        if gone:
            ec2.delete_tags(Resources=[machine.id], Tags=gone)


def _with_facts(session: Session, machines: Sequence[Machine]) -> list[Machine]:
    """The machines with the provider's facts; EC2 is asked only where a record came without them."""
    bare = [machine for machine in machines if not _has_facts(machine)]
    fresh = {machine.id: machine for machine in _rebuilt(session, bare)} if bare else {}
    return [
        replace(machine, detail=fresh[machine.id].detail) if machine.id in fresh else machine
        for machine in machines
    ]


def _has_facts(machine: Machine) -> bool:
    ours = bool(fact(machine, "token"))
    return ours and (machine.market is not Market.SPOT or bool(fact(machine, "spot-request")))


def _rebuilt(session: Session, machines: Sequence[Machine]) -> list[Machine]:
    region = machines[0].region
    with mapped(region=region, what="describe"):
        found = by_id(session, region, [machine.id for machine in machines])
    return [machine_of(session.settings, region, each) for each in found]


def _terminate(session: Session, region: str, machines: Sequence[Machine]) -> None:
    ec2 = session.client("ec2", region)
    with mapped(region=region, what="terminate"):
        requests = [fact(machine, "spot-request") for machine in machines if persistent(machine)]
        if any(requests):
            ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[each for each in requests if each])
        states = _end(session, region, machines)
        for machine in machines:
            if allocation := fact(machine, "fixed-address").partition(" ")[0]:
                free_address(session, region, allocation)
        forget_keys(session.settings, machines)
        if all(state == "terminated" for state in states):
            remove_groups(session, region)


def _end(session: Session, region: str, machines: Sequence[Machine]) -> list[str]:
    """EC2's states afterwards, of those that it still knows. An unknown id would fail them all."""
    ec2 = session.client("ec2", region)
    ids = [machine.id for machine in machines]
    try:
        answer = ec2.terminate_instances(InstanceIds=ids)
    except ClientError as error:
        if error.response["Error"]["Code"] != UNKNOWN or any(is_young(machine) for machine in machines):
            raise
        ids = [each["InstanceId"] for each in by_id(session, region, ids)]
        if not ids:
            return []
        answer = ec2.terminate_instances(InstanceIds=ids)
    changes: list[Mapping[str, Any]] = answer["TerminatingInstances"]
    return [change["CurrentState"]["Name"] for change in changes]


def _explain_refused_start(session: Session, machine: Machine) -> None:
    """Raise what a refused start really means; return where EC2's own word is the best."""
    [seen] = describe(session, [machine])
    if seen.state.gone or fact(seen, "state") in ENDED:
        raise NotFound(f"the machine {machine.name} is gone", hint="launch a new one")
    if fact(seen, "preempted"):
        raise NoCapacity(
            f"AWS stopped {machine.name} for want of spot capacity and starts it by itself",
            hint="wait, or terminate it and launch elsewhere",
        )
    if fact(seen, "state") in ("stopping", "stopped"):  # stopped: since it was refused
        raise NoCapacity(f"{machine.name} was still stopping", hint="try again in a moment")
