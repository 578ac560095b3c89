"""States of instances on the double, and the machines behind them: here one that only keeps a record."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from double_help import PERSISTENT, QUICK, TYPE, ZONE, Account, account, ids_of, named, refused, until

from cloudrun.sim.aws import Delays
from cloudrun.sim.spec import MachineSpec

USER_DATA = "#cloud-config\nruncmd: [true]\n"


@dataclass
class Recorded:
    """A machine that writes down what is done with it."""

    spec: MachineSpec
    on_off: Callable[[str], None]
    host: str
    done: list[str] = field(default_factory=list)
    disk_gb: int = 0
    running: bool = False
    fails: bool = False

    def boot(self) -> None:
        if self.fails:
            raise RuntimeError("no kernel")
        self.done.append("boot")
        self.running = True

    def power_off(self, *, grace_s: float = 0) -> None:
        self.done.append("power off")
        self.running = False

    def move(self, host: str) -> None:
        self.host = host

    def grow(self, disk_gb: int) -> None:
        self.disk_gb = disk_gb

    def destroy(self) -> None:
        self.done.append("destroy")
        self.running = False

    def shutdown(self) -> None:
        """As somebody inside does it."""
        self.running = False
        threading.Thread(target=self.on_off, args=(self.spec.id,)).start()


class Host:
    """Makes them."""

    kind = "recorded"

    def __init__(self) -> None:
        self.machines: dict[str, Recorded] = {}
        self.fails = False

    def create(self, spec: MachineSpec, *, on_off: Callable[[str], None]) -> Recorded:
        machine = Recorded(spec, on_off, spec.host, disk_gb=spec.disk_gb, fails=self.fails)
        self.machines[spec.id] = machine
        return machine

    def close(self) -> None:
        """Nothing to remove."""


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def aws(host: Host) -> Iterator[Account]:
    with account(host) as each:
        yield each


def why(account: Account, one: str) -> tuple[str, str]:
    found = account.describe(one)
    return found["StateReason"]["Code"], found["StateTransitionReason"]


def test_a_machine_boots_with_what_the_launch_said(aws: Account, host: Host) -> None:
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 33}}
    one = aws.running(user_data=USER_DATA, BlockDeviceMappings=[disk])
    instance, spec = aws.describe(one), host.machines[one].spec
    assert spec.user_data == USER_DATA.encode()
    assert (spec.disk_gb, spec.user, spec.host) == (33, "ubuntu", instance["PublicIpAddress"])
    assert instance["PrivateDnsName"].startswith(spec.hostname)
    assert host.machines[one].done == ["boot"]


def test_the_disk_is_as_big_as_the_image_where_nobody_said(aws: Account, host: Host) -> None:
    one = aws.running()
    assert host.machines[one].disk_gb == 8


def test_pending_lasts_until_the_machine_is_up(host: Host) -> None:
    with account(host, Delays(pending_s=3600)) as aws:
        [one] = aws.launch()
        until(lambda: one in host.machines and host.machines[one].running, "the machine to boot")
        assert aws.state(one) == "pending"
        with refused("IncorrectInstanceState"):
            aws.ec2.stop_instances(InstanceIds=[one])
        answer = aws.ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"][0]
        assert answer["PreviousState"]["Name"] == "pending"
        aws.wait(one, "terminated")


def test_a_machine_that_does_not_boot_ends_with_the_reason(aws: Account, host: Host) -> None:
    host.fails = True
    [one] = aws.launch()
    aws.wait(one, "terminated")
    assert why(aws, one)[0] == "Server.InternalError"
    assert host.machines[one].done == ["destroy"]


def test_stop_keeps_the_machine_and_start_gives_another_address(aws: Account, host: Host) -> None:
    one = aws.running()
    before = aws.describe(one)
    answer = aws.ec2.stop_instances(InstanceIds=[one])["StoppingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "stopping")
    stopped = aws.wait(one, "stopped")
    assert "PublicIpAddress" not in stopped
    assert stopped["StateTransitionReason"].startswith("User initiated (2")
    assert why(aws, one)[0] == "Client.UserInitiatedShutdown"
    answer = aws.ec2.start_instances(InstanceIds=[one])["StartingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("stopped", "pending")
    after = aws.wait(one, "running")
    assert after["PublicIpAddress"] != before["PublicIpAddress"]
    assert host.machines[one].host == after["PublicIpAddress"]
    assert after["StateTransitionReason"] == ""
    assert "StateReason" not in after
    assert host.machines[one].done == ["boot", "power off", "boot"]


def test_an_elastic_address_stays(aws: Account, host: Host) -> None:
    one = aws.running()
    made = aws.ec2.allocate_address(Domain="vpc")
    aws.ec2.associate_address(InstanceId=one, AllocationId=made["AllocationId"])
    aws.ec2.stop_instances(InstanceIds=[one])
    assert aws.wait(one, "stopped")["PublicIpAddress"] == made["PublicIp"]
    aws.ec2.start_instances(InstanceIds=[one])
    assert aws.wait(one, "running")["PublicIpAddress"] == made["PublicIp"]
    assert host.machines[one].host == made["PublicIp"]


def test_stopping_and_starting_twice_changes_nothing(aws: Account, host: Host) -> None:
    one = aws.running()
    aws.ec2.start_instances(InstanceIds=[one])
    aws.ec2.stop_instances(InstanceIds=[one])
    aws.wait(one, "stopped")
    aws.ec2.stop_instances(InstanceIds=[one])
    assert aws.state(one) == "stopped"
    assert host.machines[one].done == ["boot", "power off"]


def test_terminate_destroys_the_machine_and_is_silent_when_it_is_gone(aws: Account, host: Host) -> None:
    one = aws.running()
    answer = aws.ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"][0]
    assert answer["CurrentState"]["Name"] == "shutting-down"
    aws.wait(one, "terminated")
    assert host.machines[one].done == ["boot", "destroy"]
    answer = aws.ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"][0]
    assert answer["PreviousState"]["Name"] == answer["CurrentState"]["Name"] == "terminated"
    with refused("IncorrectInstanceState", "started"):
        aws.ec2.start_instances(InstanceIds=[one])
    with refused("IncorrectInstanceState", "stopped"):
        aws.ec2.stop_instances(InstanceIds=[one])
    with refused("IncorrectInstanceState", "rebooted"):
        aws.ec2.reboot_instances(InstanceIds=[one])


def test_terminate_takes_all_or_none(aws: Account) -> None:
    one = aws.running()
    with refused("InvalidInstanceID.NotFound", "i-0123456789abcdef0"):
        aws.ec2.terminate_instances(InstanceIds=[one, "i-0123456789abcdef0"])
    with refused("InvalidInstanceID.Malformed"):
        aws.ec2.terminate_instances(InstanceIds=[one, "i-nonsense"])
    assert aws.state(one) == "running"


def test_a_protected_instance_is_not_terminated(aws: Account) -> None:
    [safe] = aws.launch(DisableApiTermination=True)
    other = aws.running()
    with refused("OperationNotPermitted", safe):
        aws.ec2.terminate_instances(InstanceIds=[other, safe])
    assert aws.state(other) == "running"
    aws.ec2.modify_instance_attribute(InstanceId=safe, DisableApiTermination={"Value": False})
    aws.ec2.terminate_instances(InstanceIds=[safe])
    aws.wait(safe, "terminated")


def test_reboot_keeps_state_and_address(aws: Account, host: Host) -> None:
    one = aws.running()
    before = aws.describe(one)["PublicIpAddress"]
    aws.ec2.reboot_instances(InstanceIds=[one])
    until(lambda: host.machines[one].done == ["boot", "power off", "boot"], "the reboot")
    assert aws.state(one) == "running"
    assert aws.describe(one)["PublicIpAddress"] == before


@pytest.mark.parametrize(("behaviour", "end"), [("terminate", "terminated"), ("stop", "stopped")])
def test_a_machine_that_ends_itself_ends_as_the_launch_said(
    aws: Account, host: Host, behaviour: str, end: str
) -> None:
    one = aws.running(InstanceInitiatedShutdownBehavior=behaviour)
    host.machines[one].shutdown()
    aws.wait(one, end)
    assert why(aws, one) == ("Client.InstanceInitiatedShutdown", "User initiated")
    by_reason = [named("state-reason-code", "Client.InstanceInitiatedShutdown")]
    assert ids_of(aws.ec2.describe_instances(Filters=by_reason)) == [one]
    assert ("destroy" in host.machines[one].done) == (end == "terminated")


def test_what_a_shutdown_means_can_be_changed(aws: Account, host: Host) -> None:
    one = aws.running(InstanceInitiatedShutdownBehavior="stop")
    change = {"Value": "terminate"}
    aws.ec2.modify_instance_attribute(InstanceId=one, InstanceInitiatedShutdownBehavior=change)
    told = aws.ec2.describe_instance_attribute(InstanceId=one, Attribute="instanceInitiatedShutdownBehavior")
    assert told["InstanceInitiatedShutdownBehavior"] == change
    host.machines[one].shutdown()
    aws.wait(one, "terminated")


@pytest.mark.parametrize(("spot", "end"), [({}, "terminated"), (PERSISTENT, "stopped")])
def test_spot_that_ends_itself(aws: Account, host: Host, spot: dict[str, str], end: str) -> None:
    one = aws.running(spot=spot, InstanceInitiatedShutdownBehavior="stop")
    host.machines[one].shutdown()
    aws.wait(one, end)
    assert aws.request_of(one)["State"] == ("disabled" if spot else "closed")


def test_a_shutdown_of_a_machine_that_is_stopping_anyway_changes_nothing(aws: Account, host: Host) -> None:
    one = aws.running(InstanceInitiatedShutdownBehavior="terminate")
    aws.ec2.stop_instances(InstanceIds=[one])
    host.machines[one].on_off(one)
    aws.wait(one, "stopped")


def test_the_metadata_service_knows_the_machine(aws: Account, host: Host) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cloudrun-name", "Value": "k80"}]}]
    one = aws.running(spot={}, MetadataOptions={"InstanceMetadataTags": "enabled"}, TagSpecifications=tags)
    instance = aws.describe(one)
    assert metadata(host, one, "instance-id") == one
    assert metadata(host, one, "placement/availability-zone") == instance["Placement"]["AvailabilityZone"]
    assert metadata(host, one, "placement/region") == "us-east-1"
    assert metadata(host, one, "public-ipv4") == instance["PublicIpAddress"]
    assert metadata(host, one, "tags/instance/cloudrun-name") == "k80"
    assert metadata(host, one, "instance-life-cycle") == "spot"
    assert metadata(host, one, "spot/instance-action") is None
    assert metadata(host, one, "no/such/thing") is None


def test_tags_are_not_readable_where_the_launch_did_not_ask(aws: Account, host: Host) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cloudrun-name", "Value": "k80"}]}]
    one = aws.running(TagSpecifications=tags)
    assert metadata(host, one, "tags/instance/cloudrun-name") is None


def test_a_spot_notice_stands_in_the_metadata_until_the_machine_is_taken(aws: Account, host: Host) -> None:
    one = aws.running(spot={})
    aws.double.preempt(one, notice_s=3600)
    told = json.loads(metadata(host, one, "spot/instance-action") or "{}")
    assert told["action"] == "terminate"
    assert told["time"].endswith("Z")
    assert metadata(host, one, "events/recommendations/rebalance")
    assert metadata(host, one, "spot/termination-time") == told["time"]
    aws.double.preempt(one, notice_s=0)
    aws.wait(one, "terminated")
    assert host.machines[one].done == ["boot", "destroy"]


def test_a_machine_that_comes_back_has_no_notice(aws: Account, host: Host) -> None:
    one = aws.running(spot=PERSISTENT)
    aws.double.preempt(one, notice_s=3600)
    assert json.loads(metadata(host, one, "spot/instance-action") or "{}")["action"] == "stop"
    aws.double.preempt(one, notice_s=0)
    until(lambda: host.machines[one].done == ["boot", "power off", "boot"], "the machine to come back")
    aws.wait(one, "running")
    assert metadata(host, one, "spot/instance-action") is None


def test_a_grown_volume_makes_the_machines_disk_bigger(aws: Account, host: Host) -> None:
    one = aws.running()
    aws.ec2.modify_volume(VolumeId=aws.root_volume(one), Size=50)
    until(lambda: host.machines[one].disk_gb == 50, "the disk to grow")


def test_the_end_of_the_double_ends_every_machine(host: Host) -> None:
    with account(host, QUICK) as aws:
        ids = aws.launch(count=3)
        for each in ids:
            aws.wait(each, "running")
    assert all(host.machines[each].done[-1] == "destroy" for each in ids)


def test_a_start_without_capacity_is_refused(aws: Account) -> None:
    one = aws.running(Placement={"AvailabilityZone": ZONE})
    aws.ec2.stop_instances(InstanceIds=[one])
    aws.wait(one, "stopped")
    aws.double.set_capacity(TYPE, ZONE, count=0)
    with refused("InsufficientInstanceCapacity", ZONE):
        aws.ec2.start_instances(InstanceIds=[one])
    assert aws.state(one) == "stopped"


def test_a_group_in_use_cannot_be_deleted(aws: Account) -> None:
    group = aws.ec2.create_security_group(GroupName="cloudrun", Description="ssh")["GroupId"]
    one = aws.running(SecurityGroupIds=[group])
    assert [each["GroupId"] for each in aws.describe(one)["SecurityGroups"]] == [group]
    with refused("DependencyViolation", group):
        aws.ec2.delete_security_group(GroupId=group)
    with refused("DependencyViolation", group):
        aws.ec2.delete_security_group(GroupName="cloudrun")
    aws.ec2.terminate_instances(InstanceIds=[one])
    aws.wait(one, "terminated")
    aws.ec2.delete_security_group(GroupId=group)
    assert aws.ec2.describe_security_groups(Filters=[named("group-name", "cloudrun")])["SecurityGroups"] == []


def metadata(host: Host, one: str, path: str) -> str | None:
    """What a machine reads, with a token, as IMDSv2 wants it."""
    respond = host.machines[one].spec.respond
    headers = {"x-aws-ec2-metadata-token-ttl-seconds": "60"}
    _, token = respond("PUT", "/latest/api/token", headers)
    status, body = respond("GET", f"/latest/meta-data/{path}", {"x-aws-ec2-metadata-token": token.decode()})
    return body.decode() if status == 200 else None
