"""Who may reach our machines: one security group a network, port of SSH only, known addresses only.

The group "cloudrun" belongs to everybody who uses the account with cloudrun. Each owner (user, host,
home folder) has one rule in it, for the address at which AWS sees this computer, and replaces only
that one. Calls where all is prepared: one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cloudrun.errors import NotFound, NotOffered, ProviderError
from cloudrun.models import Machine
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.instances import describe
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import OUR_FILTER, SHOWN_NAME, specifications, tags_of
from cloudrun.providers.firewall import my_address
from cloudrun.providers.rented import fact
from cloudrun.providers.tags import OURS, owner_of

GROUP = "cloudrun"
GROUP_WORDS = "SSH to machines launched by cloudrun, from known addresses only"
NETWORK = "cloudrun-network"  # tag of a group: "default", or the id of the VPC that it was made for
DEFAULT = "default"

GONE = ("InvalidGroup.NotFound", "InvalidGroupId.Malformed")
THERE_ALREADY = ("InvalidPermission.Duplicate", "InvalidGroup.Duplicate")


@dataclass(frozen=True, slots=True)
class Network:
    """Where a machine is put: the group, and a subnet when one was asked for."""

    group: str
    subnet: str = ""


def find_network(session: Session, region: str, subnet: str = "") -> Network:
    """The group for the default network of the region, or for the network of that subnet, made if
    absent, with this computer's address let in. Idempotent, also for processes at the same time.

    Raises NotOffered where the region has no default network.
    """
    with mapped(region=region, what="prepare the network"):
        vpc = _network_of(session, region, subnet) if subnet else ""
        found = _find_group(session, region, vpc) or _make_group(session, region, vpc)
        _let_in(session, region, found)
    return Network(group=found["GroupId"], subnet=subnet)


def open_access(session: Session, machine: Machine) -> None:
    """Let this computer's address of now in to the machine, and its earlier one no more. Idempotent."""
    group = fact(machine, "group") or fact(describe(session, [machine])[0], "group")
    if not group:
        raise NotFound(f"the machine {machine.name} is gone", hint="cloudrun machines list --all")
    with mapped(region=machine.region, what="open SSH"):
        groups = session.client("ec2", machine.region).describe_security_groups(GroupIds=[group])
        _let_in(session, machine.region, groups["SecurityGroups"][0])


def remove_groups(session: Session, region: str) -> None:
    """Delete our groups there that no machine needs any more. Idempotent; one in use stays."""
    with mapped(region=region, what="remove the security group"):
        for group in _our_groups(session, region):
            remove_group(session, region, group["GroupId"])


def remove_group(session: Session, region: str, group: str) -> bool:
    """Delete it if nothing needs it. False while something does."""
    try:
        session.client("ec2", region).delete_security_group(GroupId=group)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("DependencyViolation", "InvalidGroup.InUse"):
            return False
        if code not in GONE:
            raise
    return True


def _network_of(session: Session, region: str, subnet: str) -> str:
    found = session.client("ec2", region).describe_subnets(SubnetIds=[subnet])
    return str(found["Subnets"][0]["VpcId"])


def _find_group(session: Session, region: str, vpc: str) -> Mapping[str, Any] | None:
    for group in _our_groups(session, region):
        if group["VpcId"] == vpc if vpc else tags_of(group).get(NETWORK) == DEFAULT:
            return group
    return None


def _our_groups(session: Session, region: str) -> list[Mapping[str, Any]]:
    named = {"Name": "group-name", "Values": [GROUP]}
    found = session.client("ec2", region).describe_security_groups(Filters=[OUR_FILTER, named])
    groups: list[Mapping[str, Any]] = found["SecurityGroups"]
    return groups


def _make_group(session: Session, region: str, vpc: str) -> Mapping[str, Any]:
    """A group without rules. One that appears at the same moment is taken."""
    ec2 = session.client("ec2", region)
    default = _default_network(session, region)
    if not vpc and not default:
        raise NotOffered(
            f"{region} has no default network (VPC)",
            hint="name a subnet of yours with --subnet, or run: aws ec2 create-default-vpc",
        )
    network = vpc or default
    marks = {OURS: "1", SHOWN_NAME: GROUP, NETWORK: DEFAULT if network == default else network}
    try:
        made = ec2.create_security_group(
            GroupName=GROUP,
            Description=GROUP_WORDS,
            VpcId=network,
            TagSpecifications=specifications(marks, "security-group"),
        )
    except ClientError as error:
        if error.response["Error"]["Code"] not in THERE_ALREADY:
            raise
        found = _find_group(session, region, vpc)
        if found is None:
            raise ProviderError(
                f"a security group {GROUP!r} that is not ours stands in {network} of {region}",
                hint="delete or rename it: it does not carry the tag cloudrun=1",
            ) from error
        return found
    return {"GroupId": made["GroupId"], "VpcId": network, "IpPermissions": []}


def _default_network(session: Session, region: str) -> str:
    answer = session.client("ec2", region).describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
    return next((str(vpc["VpcId"]) for vpc in answer["Vpcs"]), "")


def _let_in(session: Session, region: str, group: Mapping[str, Any]) -> None:
    """First the new rule, then the old one goes: an address that stays is never shut out."""
    ec2 = session.client("ec2", region)
    port, owner = session.settings.ssh_port, owner_of(session.settings)
    address = f"{my_address(session.settings)}/32"
    rules = [rule for rule in group["IpPermissions"] if _is_ssh(rule, port)]
    ranges = [each for rule in rules for each in rule.get("IpRanges", ())]
    if address not in [each["CidrIp"] for each in ranges]:
        try:
            ec2.authorize_security_group_ingress(
                GroupId=group["GroupId"], IpPermissions=[_rule(port, address, owner)]
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in THERE_ALREADY:
                raise
    for old in ranges:
        if old.get("Description") == owner and old["CidrIp"] != address:
            _shut_out(ec2, group["GroupId"], _rule(port, old["CidrIp"], owner))


def _shut_out(ec2: Any, group: str, rule: Mapping[str, Any]) -> None:
    try:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidPermission.NotFound":
            raise


def _rule(port: int, address: str, owner: str) -> dict[str, Any]:
    ranges = [{"CidrIp": address, "Description": owner}]
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": ranges}


def _is_ssh(rule: Mapping[str, Any], port: int) -> bool:
    return rule.get("IpProtocol") == "tcp" and rule.get("FromPort") == rule.get("ToPort") == port
