"""Azure's machines from PENDING to their end: states, times, and all of it found again from tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure_help import CPU, ON_DEMAND, REGION, SPOT, Cloud, open_cloud, spec
from delays import delayed
from waiting import until

from cloudrun.config import Settings
from cloudrun.errors import Credentials, NotFound, ProviderError
from cloudrun.models import Guard, LaunchOptions, Machine, MachineState, Market, OnPreempt
from cloudrun.providers.azure import AzureProvider
from cloudrun.providers.azure.parts import canonical, own_group_of, parts_of_id, stem_of
from cloudrun.providers.azure.session import Session
from cloudrun.providers.rented import fact
from cloudrun.providers.tags import owner_of

ONE_TIME = LaunchOptions(on_preempt=OnPreempt.TERMINATE)
READ = "Microsoft.Compute/virtualMachines/read"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def rules(cloud: Cloud, machine: Machine) -> dict[str, tuple[str, int]]:
    """Whom a machine's security group lets in, by owner."""
    found = cloud.body("network_security_groups", machine, "-nsg")["properties"]["securityRules"]
    told = [rule["properties"] for rule in found]
    return {rule["description"]: (rule["sourceAddressPrefix"], rule["priority"]) for rule in told}


# --- states ---


def test_a_machine_goes_from_pending_to_running(cloud: Cloud) -> None:
    provider = cloud.provider()
    with delayed(cloud.double, creating_s=3600):
        slow = cloud.launch("slow")
        assert slow.state is MachineState.PENDING
        assert provider.describe(slow).state is MachineState.PENDING
    machine = cloud.launch()
    running = cloud.until(machine, MachineState.RUNNING)
    cloud.calls()
    assert provider.describe(running) == running
    assert cloud.calls() == {READ: 1}


def test_one_that_was_switched_off_inside_is_billed_on(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.halt(machine.id)
    halted = cloud.until(machine, MachineState.HALTED)
    assert (halted.address, halted.ended_at) == (None, None)
    assert fact(halted, "state") == "stopped"


def test_a_stopped_machine_keeps_disk_and_address(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    provider = cloud.provider()
    provider.stop(machine)
    off = until(lambda: provider.describe(machine), lambda seen: fact(seen, "state") == "deallocated")
    assert off.ended_at is not None
    assert abs(datetime.now(UTC) - off.ended_at) < timedelta(minutes=1)
    assert fact(off, "fixed-address") == fact(machine, "fixed-address")
    assert not fact(off, "preempted")
    provider.start(off)
    back = cloud.until(off, MachineState.RUNNING)
    assert (back.address, back.ended_at) == (machine.address, None)


def test_a_machine_that_is_being_stopped_counts_as_stopped(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.delay(deallocating_s=3600)
    cloud.provider().stop(machine)
    going = cloud.provider().describe(machine)
    assert (going.state, fact(going, "state")) == (MachineState.STOPPED, "stopping")


def test_a_spot_machine_that_is_taken_waits_with_its_disk(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=SPOT)
    cloud.double.preempt(machine.id, notice_s=0)
    off = cloud.until(machine, MachineState.STOPPED)
    assert fact(off, "preempted") == "deallocate"


def test_a_spot_machine_that_is_taken_for_good_is_preempted(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=SPOT, options=ONE_TIME)
    cloud.double.preempt(machine.id, notice_s=0)
    provider = cloud.provider()
    gone = until(lambda: provider.describe(machine), lambda seen: seen.state.gone)
    assert gone.state is MachineState.PREEMPTED
    assert gone.address is None
    provider.terminate(gone)
    cloud.until_empty()
    assert provider.describe(gone).state is MachineState.PREEMPTED  # as it was known
    assert provider.describe(machine).state is MachineState.TERMINATED


@pytest.mark.parametrize("options", [LaunchOptions(), ONE_TIME])
def test_what_we_terminate_is_not_preempted(cloud: Cloud, options: LaunchOptions) -> None:
    machine = cloud.launch_running(offer=SPOT, options=options)
    provider = cloud.provider()
    cloud.calls()
    provider.terminate(machine)
    assert cloud.calls() == {"Microsoft.Resources/subscriptions/resourceGroups/delete": 1}
    assert provider.describe(machine).state is MachineState.TERMINATED  # while Azure is at it
    assert not (cloud.settings.keys_dir / "t4").exists()
    cloud.until_empty()
    assert provider.describe(machine).state is MachineState.TERMINATED
    provider.terminate(machine)


def test_one_whose_deadline_has_passed_was_not_taken(cloud: Cloud) -> None:
    soon = Guard(issued_at=datetime.now(UTC), deadline_at=datetime.now(UTC) + timedelta(seconds=1))
    machine = cloud.launch_running(offer=SPOT, guard=soon)
    until(lambda: datetime.now(UTC), lambda now: soon.deadline_at is not None and now > soon.deadline_at)
    cloud.double.preempt(machine.id, notice_s=0)
    assert not fact(cloud.until(machine, MachineState.STOPPED), "preempted")


def test_a_stranger_is_neither_described_nor_ended(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=CPU)
    stranger = replace(machine, token="another")
    provider = cloud.provider()
    assert provider.describe(stranger).state is MachineState.TERMINATED
    provider.terminate(stranger)
    assert provider.describe(machine).state is MachineState.RUNNING


def test_refusals_to_tell_are_raised(cloud: Cloud) -> None:
    """A machine that cannot be asked about is not taken for gone."""
    machine = cloud.launch(offer=CPU)
    for ask in (lambda: cloud.provider().describe(machine), cloud.provider().list_machines):
        cloud.double.fault(READ, "AuthorizationFailed")
        with pytest.raises(Credentials):
            ask()


# --- from an empty store ---


def test_everything_is_found_again_from_tags(cloud: Cloud, tmp_path: Path) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=5)
    guard = Guard(issued_at=datetime.now(UTC), deadline_at=deadline, idle_minutes=45.0)
    first = cloud.launch_running("one", guard=guard, disk_gb=100, run_owned=True)
    second = cloud.launch_running("two", offer=replace(CPU, region="westeurope"))
    found = {each.name: each for each in cloud.provider(home=tmp_path / "other").list_machines()}
    assert sorted(found) == ["one", "two"]
    one, two = found["one"], found["two"]
    assert (one.id, one.token, one.stack) == (first.id, first.token, "none")
    assert (one.market, one.run_owned, one.disk_gb) == (Market.SPOT, True, 100)
    assert (one.deadline_at, one.idle_minutes) == (deadline, 45.0)
    assert (one.price_per_hour_usd, one.gpu, one.gpu_memory_gib) == (SPOT.price_per_hour_usd, "T4", 16.0)
    assert (two.region, two.market, two.state) == ("westeurope", Market.ON_DEMAND, MachineState.RUNNING)
    assert one.address is not None
    assert second.address is not None
    assert (two.address and two.address.host) == second.address.host
    assert one.address.host_key == ""  # the keys are on the other computer
    again = cloud.provider().list_machines()
    assert {each.id: each.address for each in again} == {first.id: first.address, second.id: second.address}


def test_machines_of_others_are_none_of_ours(cloud: Cloud) -> None:
    ours = cloud.launch_running(offer=CPU)
    compute, parts = cloud.session().compute, parts_of_id(ours.id)
    change = {"tags": {"cloudrun": "0"}}
    compute.virtual_machines.begin_update(parts.group, parts.stem, change, polling_interval=0.01).result()
    assert cloud.provider().list_machines() == []


def test_the_list_leaves_out_what_goes(cloud: Cloud) -> None:
    cloud.delay(deleting_s=0.5)
    machine = cloud.launch_running(offer=CPU)
    cloud.provider().terminate(machine)
    assert cloud.provider().list_machines() == []


def test_names_come_from_the_token_alone() -> None:
    stem = stem_of("m-1")
    assert stem == stem_of("m-1") != stem_of("m-2")
    loud = f"/subscriptions/S/resourceGroups/{own_group_of(stem).upper()}/providers/x/virtualMachines/{stem}"
    assert parts_of_id(canonical(loud)).own_group
    assert parts_of_id(loud).own_group
    assert not parts_of_id(loud.replace("CLOUDRUN", "TEAM")).own_group


# --- who is let in ---


def test_another_address_is_let_in_and_the_earlier_one_no_more(cloud: Cloud, tmp_path: Path) -> None:
    machine = cloud.launch(offer=CPU)
    owner = owner_of(cloud.settings)
    provider = cloud.provider()
    cloud.calls()
    provider.open_access(machine)
    assert cloud.calls() == {"Microsoft.Network/networkSecurityGroups/read": 1}  # it is let in already
    cloud.here.address = "203.0.113.99"
    provider.open_access(machine)
    until(lambda: rules(cloud, machine), lambda seen: seen == {owner: ("203.0.113.99/32", 1000)})
    other = cloud.provider(home=tmp_path / "other")
    cloud.here.address = "198.51.100.4"
    other.open_access(machine)
    neighbour = owner_of(other._session.settings)
    expected = {owner: ("203.0.113.99/32", 1000), neighbour: ("198.51.100.4/32", 1001)}
    until(lambda: rules(cloud, machine), lambda seen: seen == expected)


def test_nobody_is_let_in_to_what_is_gone(cloud: Cloud) -> None:
    machine = cloud.launch(offer=CPU)
    cloud.provider().terminate(machine)
    cloud.until_empty()
    with pytest.raises(NotFound, match="gone"):
        cloud.provider().open_access(machine)


def test_an_address_service_that_does_not_answer_ends_a_launch_that_leaves_nothing(cloud: Cloud) -> None:
    cloud.here.address = "nothing of use"
    with pytest.raises(ProviderError, match="does not tell this computer's address"):
        cloud.launch()
    cloud.until_empty()


# --- the account ---


def test_without_a_subscription_the_way_to_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    session = Session(Settings(home=tmp_path / "home"))
    with pytest.raises(Credentials, match="subscription") as caught:
        _ = session.subscription
    assert "az login" in caught.value.hint
    profile = '\ufeff{"subscriptions": [{"id": "one"}, {"id": "two", "isDefault": true}]}'
    (tmp_path / "azureProfile.json").write_text(profile, encoding="utf-8")
    assert session.subscription == "two"
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "three")
    assert session.subscription == "three"


def test_without_credentials_a_launch_says_so_and_leaves_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    provider = AzureProvider(cloud.settings)  # nothing of the session before
    with pytest.raises(Credentials, match="credentials"):
        provider.launch(spec(offer=CPU))
    with pytest.raises(Credentials):
        provider.list_machines()
    assert not (cloud.settings.keys_dir / "t4").exists()


def test_a_token_that_has_expired_is_replaced(cloud: Cloud) -> None:
    machine = cloud.launch(offer=CPU)
    cloud.double.expire_tokens()
    assert cloud.provider().describe(machine).region == REGION
