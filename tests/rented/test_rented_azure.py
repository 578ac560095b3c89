"""The road at Azure: real SSH into machines of the rehearsal cloud, Microsoft's own clients towards it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from exhaustive import exhaustive
from held_run import EPOCHS, held
from rented_help import AZURE_TYPE, DRILL, RentedCloud, epochs_of, wait_for

from cloudrun.client import Client
from cloudrun.errors import ConnectionLost, MachineError, Refused
from cloudrun.events import Event, Note
from cloudrun.models import (
    LaunchOptions,
    MachineState,
    Market,
    OnPreempt,
    Outcome,
    Run,
    RunState,
)
from cloudrun.sim.record import AZURE

NC6 = "Standard_NC6"
STAYS = LaunchOptions(on_preempt=OnPreempt.STOP)
START = "Microsoft.Compute/virtualMachines/start/action"
LATE = {"operation": "Microsoft.Compute/virtualMachines/write", "late": True}


def all_epochs(client: Client, run: Run) -> bool:
    return epochs_of(client.files(run.id).outputs / "metrics.jsonl") == list(range(1, EPOCHS + 1))


def test_a_machine_that_stays_from_launch_to_end(client: Client, cloud: RentedCloud) -> None:
    options = LaunchOptions(dns_label="my-k80")
    machine = client.launch(type="nc6", name="az", stack="none", disk_gb=40, options=options)
    assert machine.state is MachineState.RUNNING
    assert dict(machine.detail)["dns"] == f"my-k80.{machine.region}.cloudapp.azure.com"
    first_key = machine.address.host_key if machine.address else ""
    assert not (client.settings.keys_dir / "az" / "host_key").exists()  # replaced, and gone from here
    assert client.submit(client.plan(DRILL, on="az", args=("--epochs", "2"))).state is RunState.SUCCEEDED
    assert [finding for finding in client.examine("az") if not finding.ok] == []

    client.resize_disk("az", disk_gb=60)
    size = client.shell("az").run("df --block-size=1G --output=size / | tail -1").text
    assert 57 <= int(size) <= 60
    with pytest.raises(Refused, match="cannot be made smaller"):
        client.resize_disk("az", disk_gb=30)

    client.shell("az").run("echo kept > kept")
    assert client.stop("az").state is MachineState.STOPPED
    still = {charge.what for charge in client.store.list_charges(machine="az", open_only=True)}
    assert still == {"disk", "address"}  # a static address is billed on
    machine = client.start("az")
    assert machine.address is not None
    assert machine.address.host_key == first_key
    assert client.shell("az").run("cat kept").text == "kept"

    (ended,) = client.terminate("az")
    assert ended.state is MachineState.TERMINATED
    wait_for(lambda: cloud.live() == [])
    assert client.store.list_charges(open_only=True) == []
    wait_for(lambda: client.audit(provider="azure") == [])


def test_a_preempted_run_is_saved_and_goes_on_elsewhere(
    client: Client, cloud: RentedCloud, tmp_path: Path
) -> None:
    with held(client, tmp_path, type=AZURE_TYPE) as begun:
        cloud.preempt(client.machine(begun.run.machine).id, notice_s=30)
        run = begun.ended()
    first, second = client.attempts(run.id)
    assert (first.outcome, second.outcome) == (Outcome.PREEMPTED, Outcome.SUCCEEDED)
    assert all_epochs(client, run)
    wait_for(lambda: cloud.live() == [])
    assert client.store.list_charges(open_only=True) == []


def test_an_evicted_machine_is_started_again_on_its_disk(
    client: Client, cloud: RentedCloud, tmp_path: Path
) -> None:
    with held(client, tmp_path, type=AZURE_TYPE, options=STAYS) as begun:
        cloud.preempt(client.machine(begun.run.machine).id, notice_s=5)
        run = begun.ended()
    assert run.state is RunState.SUCCEEDED
    assert [attempt.machine for attempt in client.attempts(run.id)] == [run.machine]
    assert all_epochs(client, run)
    wait_for(lambda: cloud.live() == [])


@pytest.mark.parametrize("late", [True, *exhaustive(False)])
def test_without_room_for_an_evicted_machine_the_run_goes_on_elsewhere(
    client: Client, cloud: RentedCloud, tmp_path: Path, late: bool
) -> None:
    with held(client, tmp_path, type=AZURE_TYPE, options=STAYS) as begun:
        cloud.record.tell("fault", AZURE, operation=START, code="AllocationFailed", late=late)
        cloud.preempt(client.machine(begun.run.machine).id, notice_s=5)
        run = begun.ended()
    first, second = client.attempts(run.id)
    assert run.state is RunState.SUCCEEDED
    assert (first.outcome, second.outcome) == (Outcome.PREEMPTED, Outcome.SUCCEEDED)
    assert all_epochs(client, run)
    wait_for(lambda: cloud.live() == [])  # with its disk


def test_a_launch_that_is_refused_late_takes_the_next_region(client: Client, cloud: RentedCloud) -> None:
    offers = client.offers(type=AZURE_TYPE, market=Market.SPOT)
    cloud.record.tell("fault", AZURE, code="AllocationFailed", region=offers[0].region, **LATE)
    notes: list[str] = []
    machine = client.launch(
        type=AZURE_TYPE, market=Market.SPOT, name="late", stack="none", on_event=keep(notes)
    )
    assert machine.region == offers[1].region
    assert any(offers[0].region in note for note in notes)
    client.terminate("late")
    wait_for(lambda: client.audit(provider="azure") == [])
    lines = [line for line in client.store.list_charges() if line.region == offers[0].region]
    assert all(line.void for line in lines)


def test_its_guard_deallocates_a_machine_that_nobody_looks_after(client: Client, cloud: RentedCloud) -> None:
    machine = client.launch(type=AZURE_TYPE, name="alone", stack="none", max_hours=25 / 3600)
    wait_for(lambda: cloud.state(machine.id) == "deallocated")
    [seen] = client.machines()
    assert seen.state is MachineState.STOPPED
    still = {charge.what for charge in client.store.list_charges(machine="alone", open_only=True)}
    assert still == {"disk", "address"}


def test_a_machine_switched_off_inside_is_seen_to_be_billed_and_healed(
    client: Client, cloud: RentedCloud
) -> None:
    client.launch(type=NC6, name="off", stack="none")
    with suppress(ConnectionLost):  # it may be off before it has answered
        client.shell("off").run("nohup sh -c 'sleep 0.3; sudo shutdown -h now' >/dev/null 2>&1 &")
    wait_for(lambda: client.machines()[0].state is MachineState.HALTED)
    assert {line.what for line in client.store.list_charges(machine="off", open_only=True)} >= {"compute"}
    with pytest.raises(MachineError, match="billed on"):
        client.reach("off")
    [found] = [item for item in client.audit(provider="azure") if item.kind == "machine"]
    assert found.problem == "switched off from inside, billed on"
    assert [finding.mended for finding in client.examine("off", mend=True)] == [True]
    wait_for(lambda: client.machines()[0].state is MachineState.STOPPED)
    assert "compute" not in {line.what for line in client.store.list_charges(machine="off", open_only=True)}


def test_offers_of_both_clouds_are_ranked_together(client: Client) -> None:
    found = client.offers(gpus=("K80", "T4"))
    assert {offer.provider for offer in found} == {"aws", "azure"}
    fitting = [offer for offer in found if offer.fits]
    assert {offer.provider for offer in fitting} == {"aws", "azure"}
    prices = [offer.price_per_hour_usd for offer in fitting if offer.price_per_hour_usd is not None]
    assert prices == sorted(prices)


def keep(notes: list[str]) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)

    return watch
