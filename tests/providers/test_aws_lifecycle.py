"""Machines on AWS from pending to gone: states, times, addresses, and what a record of one is good for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from aws_help import CPU, ON_DEMAND, REGION, SPOT, Cloud, open_cloud, spec
from waiting import until

from cloudrun.errors import ConfigError, Credentials, NoCapacity, NotFound, ProviderError, Refused
from cloudrun.models import Guard, LaunchOptions, Machine, MachineState, Market
from cloudrun.providers.aws import instances
from cloudrun.providers.aws import session as sessions
from cloudrun.providers.base import (
    Batch,
    Firewalled,
    Leftovers,
    ResizableDisk,
    SelfRelease,
    SpotHistory,
    Stoppable,
)

ONE_TIME = {"run_owned": True}
PERSISTENT = {"run_owned": False}
BARE = "detail", "zone", "address"  # what a store may not know of a machine


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def test_what_it_can_do(cloud: Cloud) -> None:
    provider = cloud.provider()
    for ability in (Stoppable, SelfRelease, Batch, ResizableDisk, SpotHistory, Firewalled, Leftovers):
        assert isinstance(provider, ability), ability
    machine = cloud.launch()
    assert provider.notices(machine) == "aws"
    assert provider.notices(replace(machine, market=Market.ON_DEMAND)) == ""
    assert provider.release_command(machine) == ("sudo", "shutdown", "-h", "now")


# --- what is there ---


def test_a_new_id_that_is_not_known_everywhere_yet_is_pending(cloud: Cloud) -> None:
    cloud.double.set_visible_after_s(1000)
    machine = cloud.launch()
    provider = cloud.provider()
    assert provider.describe(machine).state is MachineState.PENDING
    with pytest.raises(ProviderError, match="InvalidInstanceID"):
        provider.terminate(machine)  # not silently: it is there
    assert len(cloud.alive()) == 1


def test_an_old_id_that_is_not_known_is_gone(cloud: Cloud) -> None:
    machine = cloud.launch_running()
    launched_at = datetime.now(UTC) - timedelta(days=2)
    lost = replace(machine, id="i-0123456789abcdef0", launched_at=launched_at)
    seen = cloud.provider().describe(lost)
    assert (seen.state, seen.address, seen.ended_at) == (MachineState.TERMINATED, None, None)
    deadline = launched_at + timedelta(hours=3)
    seen = cloud.provider().describe(replace(lost, deadline_at=deadline))
    assert seen.ended_at == deadline  # its guard ended it then at the latest
    cloud.provider().terminate(lost)
    assert cloud.provider().describe(machine).state is MachineState.RUNNING


def test_many_are_described_in_the_order_given(cloud: Cloud) -> None:
    one, two = cloud.launch("one", offer=CPU), cloud.launch("two", offer=replace(CPU, region="us-west-2"))
    lost = replace(one, id="i-0123456789abcdef0", launched_at=datetime.now(UTC) - timedelta(days=2))
    cloud.calls()
    seen = cloud.provider().describe_many([two, lost, one])
    assert [machine.id for machine in seen] == [two.id, lost.id, one.id]
    assert [machine.state.gone for machine in seen] == [False, True, False]
    assert cloud.calls() == {"DescribeInstances": 2}  # one a region


def test_another_computer_knows_all_from_the_tags(cloud: Cloud, tmp_path: Path) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=5)
    guard = Guard(issued_at=datetime.now(UTC), deadline_at=deadline, idle_minutes=45.0)
    made = cloud.launch_running("k80", offer=SPOT, guard=guard, disk_gb=120, run_owned=True)
    many = cloud.provider().launch_many(spec("many", offer=CPU), 2)
    for machine in many:
        cloud.until(machine, MachineState.RUNNING)
    found = {machine.name: machine for machine in cloud.provider(home=tmp_path / "other").list_machines()}
    assert sorted(found) == ["k80", "many-1", "many-2"]
    k80 = found["k80"]
    assert (k80.id, k80.token, k80.region, k80.zone) == (made.id, made.token, made.region, made.zone)
    assert (k80.market, k80.price_per_hour_usd) == (Market.SPOT, Decimal("0.27"))
    assert (k80.deadline_at, k80.idle_minutes) == (deadline, 45.0)
    assert (k80.disk_gb, k80.run_owned, k80.stack) == (120, True, "none")
    assert (k80.gpu_count, k80.gpu_capability) == (1, 3.7)
    assert k80.address is not None
    assert made.address is not None
    assert (k80.address.host, k80.address.host_key) == (made.address.host, "")  # its keys are not here
    assert found["many-1"].run_owned is False
    assert [found[f"many-{n}"].id for n in (1, 2)] == [machine.id for machine in many]


def test_a_region_that_is_closed_is_left_out_and_one_that_fails_is_not(cloud: Cloud) -> None:
    made = cloud.launch(offer=CPU)
    cloud.double.fault("DescribeInstances", "OptInRequired", status=403, region="us-west-2", times=None)
    assert [machine.id for machine in cloud.provider().list_machines()] == [made.id]
    cloud.double.clear_faults()
    cloud.double.fault("DescribeInstances", "InvalidParameter", status=400, region="us-west-2", times=None)
    with pytest.raises(ProviderError, match="us-west-2"):
        cloud.provider().list_machines()
    cloud.double.clear_faults()
    cloud.double.fault("DescribeInstances", "UnauthorizedOperation", status=403, times=None)
    with pytest.raises(Credentials):  # nothing was seen anywhere
        cloud.provider().list_machines()


def test_every_enabled_region_is_asked(cloud: Cloud) -> None:
    far = cloud.launch(offer=replace(CPU, region="ap-northeast-1"))
    provider = cloud.stranger()
    assert [machine.id for machine in provider.list_machines()] == [far.id]
    regions = provider._session.regions()
    assert regions[0] == REGION
    assert cloud.calls()["DescribeInstances"] == len(regions) > 15


def test_foreign_tags_break_nothing(cloud: Cloud) -> None:
    made = cloud.launch_running()
    strange = {"cloudrun-price": "cheap", "cloudrun-deadline": "soon", "cloudrun-idle-minutes": "x"}
    strange |= {"cloudrun-disk-gb": "-1", "cloudrun-stack": ""}
    tags = [{"Key": key, "Value": value} for key, value in strange.items()]
    cloud.ec2().create_tags(Resources=[made.id], Tags=tags)
    [seen] = cloud.provider().list_machines()
    assert (seen.price_per_hour_usd, seen.deadline_at, seen.idle_minutes) == (None, None, None)


# --- stop and start ---


def test_stop_and_start_at_another_address(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(**PERSISTENT)
    assert machine.address
    for _ in range(2):
        provider.stop(machine)
    off = provider.describe(machine)
    assert (off.state, off.address) == (MachineState.STOPPED, None)
    assert off.ended_at is not None
    assert abs(datetime.now(UTC) - off.ended_at) < timedelta(minutes=1)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "stopped")
    started = provider.start(off)
    assert (started.state, started.address, started.ended_at) == (MachineState.PENDING, None, None)
    again = cloud.until(started, MachineState.RUNNING)
    assert again.address
    assert again.address.host != machine.address.host
    assert again.ended_at is None
    assert provider.start(again).id == machine.id


def test_a_start_that_cannot_be_yet_says_why(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.delay(stopping_s=30.0)
    provider.stop(machine)
    with pytest.raises(NoCapacity, match="still stopping"):
        provider.start(machine)


def test_a_start_refused_just_before_it_has_stopped_may_be_tried_again(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(offer=ON_DEMAND)
    provider.stop(machine)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "stopped")
    cloud.double.fault("StartInstances", "IncorrectInstanceState", status=400)
    with pytest.raises(NoCapacity, match="still stopping"):
        provider.start(machine)
    assert cloud.until(provider.start(machine), MachineState.RUNNING).address


def test_a_start_without_capacity_is_told_at_once(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(offer=ON_DEMAND)
    provider.stop(machine)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "stopped")
    cloud.double.fault("StartInstances", "InsufficientInstanceCapacity", status=500, times=None)
    cloud.calls()
    with pytest.raises(NoCapacity):
        provider.start(machine)
    assert cloud.calls()["StartInstances"] == 1


def test_one_time_spot_cannot_be_stopped(cloud: Cloud) -> None:
    machine = cloud.launch_running(**ONE_TIME)
    with pytest.raises(Refused, match="one-time") as caught:
        cloud.provider().stop(machine)
    assert "--on-preempt stop" in caught.value.hint
    with pytest.raises(Refused):
        cloud.provider().stop(bare(machine))


def test_what_is_gone_is_not_started(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.provider().terminate(machine)
    with pytest.raises(NotFound, match="gone"):
        cloud.provider().start(machine)


# --- the end ---


def test_terminate_ends_it_at_ec2s_own_time_and_forgets_its_keys(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(offer=ON_DEMAND)
    provider.terminate(machine)
    seen = provider.describe(machine)
    assert seen.state is MachineState.TERMINATED  # billed no more, though it is still shutting down
    assert seen.ended_at is not None
    assert abs(datetime.now(UTC) - seen.ended_at) < timedelta(minutes=1)
    assert not (cloud.settings.keys_dir / "k80").exists()
    assert provider.list_machines() == []
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "terminated")
    ended_at = provider.describe(machine).ended_at
    assert ended_at is not None
    assert abs(ended_at - seen.ended_at) < timedelta(seconds=30)
    assert cloud.ec2().describe_volumes()["Volumes"] == []
    provider.terminate(machine)  # silent, and takes the group with it, that nobody needs any more
    filters = [{"Name": "group-name", "Values": ["cloudrun"]}]
    assert cloud.ec2().describe_security_groups(Filters=filters)["SecurityGroups"] == []


@pytest.mark.parametrize(("more", "calls"), [(ONE_TIME, 1), (PERSISTENT, 2)])
def test_fifty_end_in_two_calls(cloud: Cloud, more: dict[str, bool], calls: int) -> None:
    cloud.double.set_quota(REGION, "L-34B43A08", 1000)
    offer = replace(CPU, market=Market.SPOT)
    many = cloud.provider().launch_many(spec("many", offer=offer, **more), 50)
    until(lambda: cloud.double.instances(), lambda found: all(each["state"] == "running" for each in found))
    cloud.calls()
    cloud.provider().terminate_many(many)
    assert sum(cloud.calls().values()) == calls
    assert cloud.alive() == []
    assert list(cloud.settings.keys_dir.iterdir()) == []


def test_a_persistent_request_does_not_bring_it_back(cloud: Cloud) -> None:
    machine = cloud.launch_running(**PERSISTENT)
    cloud.provider().terminate(machine)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "terminated")
    assert cloud.request()["State"] == "cancelled"
    assert cloud.alive() == []


def test_a_record_without_details_is_enough_to_end_it(cloud: Cloud) -> None:
    machine = cloud.launch_running(options=LaunchOptions(fixed_address=True), **PERSISTENT)
    cloud.provider().terminate(bare(machine))
    assert cloud.alive() == []
    ec2 = cloud.ec2()
    assert ec2.describe_spot_instance_requests()["SpotInstanceRequests"][0]["State"] == "cancelled"
    assert ec2.describe_addresses()["Addresses"] == []


def test_those_that_are_gone_do_not_save_the_others(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    old = datetime.now(UTC) - timedelta(days=2)
    gone = replace(machine, id="i-0123456789abcdef0", name="gone", launched_at=old)
    cloud.provider().terminate_many([gone, replace(machine, launched_at=old)])
    assert cloud.alive() == []
    cloud.provider().terminate_many([gone])


def test_the_other_ones_of_a_launch_keep_their_keys(cloud: Cloud) -> None:
    one, two = cloud.provider().launch_many(spec("many", offer=CPU), 2)
    cloud.provider().terminate(one)
    assert sorted(each.name for each in cloud.settings.keys_dir.iterdir()) == [".many", "many-2"]
    cloud.provider().terminate(two)
    assert list(cloud.settings.keys_dir.iterdir()) == []


# --- spot takes it ---


def test_a_machine_that_spot_took_is_preempted_at_ec2s_own_time(cloud: Cloud) -> None:
    machine = cloud.launch_running(**ONE_TIME)
    cloud.double.preempt(machine.id, notice_s=0)
    seen = cloud.until(machine, MachineState.PREEMPTED)
    assert seen.address is None
    seen = until(lambda: cloud.provider().describe(machine), lambda found: found.ended_at is not None)
    assert seen.ended_at == cloud.request()["Status"]["UpdateTime"]
    cloud.provider().terminate(seen)
    assert not (cloud.settings.keys_dir / "k80").exists()


def test_a_persistent_one_waits_with_its_disk_and_comes_back(cloud: Cloud) -> None:
    machine = cloud.launch_running(**PERSISTENT)
    cloud.double.set_capacity("p2.xlarge", count=0)
    cloud.double.preempt(machine.id, notice_s=0)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "stopped")
    off = cloud.provider().describe(machine)
    assert off.state is MachineState.STOPPED
    assert off.ended_at is not None
    assert abs(off.ended_at - cloud.request()["Status"]["UpdateTime"]) <= timedelta(minutes=1)
    assert ("preempted", "stop") in off.detail
    with pytest.raises((NoCapacity, ProviderError)):
        cloud.provider().start(off)
    cloud.double.set_capacity("p2.xlarge", count=None)
    again = cloud.until(machine, MachineState.RUNNING)
    assert ("preempted", "stop") not in again.detail
    assert again.id == machine.id


def test_a_stop_of_ones_own_is_no_preemption(cloud: Cloud) -> None:
    machine = cloud.launch_running(**PERSISTENT)
    cloud.provider().stop(machine)
    assert "preempted" not in dict(cloud.until(machine, MachineState.STOPPED).detail)


# --- guard, disk, address ---


def test_a_changed_guard_stands_in_the_tags(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running()
    deadline = datetime.now(UTC) + timedelta(hours=9)
    provider.set_guard(machine, Guard(issued_at=datetime.now(UTC), deadline_at=deadline, idle_minutes=None))
    [seen] = provider.list_machines()
    assert (seen.deadline_at, seen.idle_minutes) == (deadline, None)
    provider.set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=10))
    [seen] = provider.list_machines()
    assert (seen.deadline_at, seen.idle_minutes) == (None, 10.0)


def test_a_disk_grows_once_in_six_hours(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(disk_gb=64)
    provider.resize_disk(machine, 64)
    assert provider.disk_ready(machine, 64)
    provider.resize_disk(machine, 100)
    until(lambda: provider.disk_ready(machine, 100), bool)
    assert provider.describe(machine).disk_gb == 100
    assert provider.list_machines()[0].disk_gb == 100
    with pytest.raises(Refused, match="100 GB"):
        provider.resize_disk(machine, 50)
    with pytest.raises(ProviderError, match="six hours"):
        provider.resize_disk(machine, 200)


def test_a_disk_that_grows_is_not_ready_and_may_be_asked_for_again(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(disk_gb=64)
    cloud.delay(modifying_s=3600)
    for _ in range(2):
        provider.resize_disk(machine, 100)
        assert not provider.disk_ready(machine, 100)


def test_a_machine_without_a_disk_of_ours(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.provider().terminate(machine)
    until(lambda: cloud.ec2().describe_volumes()["Volumes"], lambda left: not left)
    with pytest.raises(NotFound):
        cloud.provider().resize_disk(machine, 100)


def test_a_fixed_address_stays_over_stop_and_start_and_goes_at_the_end(cloud: Cloud) -> None:
    provider = cloud.provider()
    machine = cloud.launch_running(offer=ON_DEMAND, options=LaunchOptions(fixed_address=True))
    assert machine.address
    [made] = cloud.ec2().describe_addresses()["Addresses"]
    assert (made["PublicIp"], made["InstanceId"]) == (machine.address.host, machine.id)
    cloud.calls()
    provider.describe(machine)
    assert cloud.calls() == {"DescribeInstances": 1}  # given once
    provider.stop(machine)
    until(lambda: cloud.instance(machine)["State"]["Name"], lambda state: state == "stopped")
    provider.start(machine)
    again = cloud.until(machine, MachineState.RUNNING)
    assert again.address
    assert again.address.host == machine.address.host
    provider.terminate(again)
    assert cloud.ec2().describe_addresses()["Addresses"] == []
    provider.terminate(again)


# --- the account ---


def test_without_boto3_it_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
sys.modules["boto3"] = None  # as if it were not installed
from cloudrun.config import Settings
from cloudrun.errors import ProviderError
from cloudrun.providers import load_provider
try:
    load_provider("aws", Settings(home=Path(sys.argv[1])))
except ProviderError as error:
    print(error.exit_code, error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "3 pip install 'cloudrun[aws]'"


def test_throttled_questions_are_asked_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = cloud.launch_running()
    monkeypatch.setattr(sessions, "LONGEST_WAIT_S", 0.01)
    cloud.double.throttle("DescribeInstances", times=2)
    assert cloud.provider().describe(machine).state is MachineState.RUNNING


def test_without_credentials_it_says_so(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    with pytest.raises(Credentials, match="credentials") as caught:
        cloud.stranger().list_machines()
    assert "aws configure" in caught.value.hint
    with pytest.raises(Credentials):
        cloud.stranger().launch(spec())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREHEARSAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "rehearsal")
    with pytest.raises(ConfigError, match="region"):
        cloud.stranger().list_machines()
    monkeypatch.setenv("AWS_REGION", REGION)
    assert cloud.stranger()._session.home_region == REGION


def test_a_profile_that_is_not_there(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    with pytest.raises(Credentials, match="nobodys"):
        cloud.stranger().list_machines()


def bare(machine: Machine) -> Machine:
    """As a store has it that knows the machine by another way."""
    return replace(machine, detail=(), zone="", address=None)


def test_states_of_ec2_are_all_known() -> None:
    assert set(instances.STATES) == {*instances.LIVE, *instances.ENDED}
