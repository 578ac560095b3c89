"""Public addresses that stay over stop and start (elastic IPs): one a machine, made and freed with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from botocore.exceptions import ClientError

from cloudrun.models import Machine, MachineState
from cloudrun.providers import tags as t
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import SHOWN_NAME, specifications
from cloudrun.providers.rented import fact

GONE = ("InvalidAllocationID.NotFound", "InvalidAddress.NotFound", "InvalidAssociationID.NotFound")


def make_address(session: Session, region: str, tags: Mapping[str, str]) -> str:
    """An address for the machine of those tags, "ALLOCATION HOST". The one that an earlier try at the
    same launch made is taken."""
    ec2 = session.client("ec2", region)
    with mapped(region=region, what="allocate an address"):
        token = [{"Name": f"tag:{t.TOKEN}", "Values": [tags[t.TOKEN]]}]
        found = ec2.describe_addresses(Filters=token)["Addresses"]
        if not found:
            marks = {key: tags[key] for key in (t.OURS, t.NAME, SHOWN_NAME, t.TOKEN, t.OWNER)}
            found = [
                ec2.allocate_address(Domain="vpc", TagSpecifications=specifications(marks, "elastic-ip"))
            ]
    return f"{found[0]['AllocationId']} {found[0]['PublicIp']}"


def with_address(session: Session, machine: Machine) -> Machine:
    """A running machine gets its address as soon as EC2 allows it: not before it runs. One call, once."""
    allocation, _, host = fact(machine, "fixed-address").partition(" ")
    if machine.state is not MachineState.RUNNING or not allocation or machine.address is None:
        return machine
    if machine.address.host != host:
        with mapped(region=machine.region, what="give the address"):
            session.client("ec2", machine.region).associate_address(
                AllocationId=allocation, InstanceId=machine.id
            )
    return replace(machine, address=replace(machine.address, host=host))


def free_address(session: Session, region: str, allocation: str) -> None:
    """Take it from its machine and give it back. Idempotent."""
    ec2 = session.client("ec2", region)
    wanted = [{"Name": "allocation-id", "Values": [allocation]}]
    with mapped(region=region, what="free the address"):
        for address in ec2.describe_addresses(Filters=wanted)["Addresses"]:
            if association := address.get("AssociationId"):
                _unless_gone(ec2.disassociate_address, AssociationId=association)
            _unless_gone(ec2.release_address, AllocationId=allocation)


def _unless_gone(call: Callable[..., object], **arguments: str) -> None:
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in GONE:
            raise
