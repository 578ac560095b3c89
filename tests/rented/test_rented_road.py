"""The whole road on rented machines: real SSH into machines of the rehearsal cloud, real EC2 calls."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from rented_help import DRILL, ONE_TIME, TYPE, RentedCloud, epochs_of, submit_drill, wait_for

from cloudrun.client import Client
from cloudrun.errors import NoCapacity, Refused
from cloudrun.events import Event, Note
from cloudrun.models import MachineState, Market, OnPreempt, RunState


def test_a_run_rents_a_machine_and_lets_it_go(client: Client, cloud: RentedCloud) -> None:
    run = client.attach(submit_drill(client, epochs=3).id)
    assert (run.state, run.exit_code) == (RunState.SUCCEEDED, 0)
    assert epochs_of(client.files(run.id).outputs / "metrics.jsonl") == [1, 2, 3]
    assert client.machines() == []
    assert cloud.live() == []
    assert client.store.list_charges(open_only=True) == []
    kinds = {charge.what for charge in client.store.list_charges(run=run.id)}
    assert kinds == {"compute", "address", "disk"}
    assert run.cost_usd is not None
    assert run.cost_usd > 0


def test_a_machine_that_stays_from_launch_to_end(client: Client, cloud: RentedCloud) -> None:
    machine = client.launch(type=TYPE, market=Market.SPOT, name="k80", stack="none", disk_gb=20)
    assert machine.state is MachineState.RUNNING
    first_key = machine.address.host_key if machine.address else ""
    assert not (client.settings.keys_dir / "k80" / "host_key").exists()  # replaced, and gone from here
    assert client.submit(client.plan(DRILL, on="k80", args=("--epochs", "2"))).state is RunState.SUCCEEDED
    assert [finding for finding in client.examine("k80") if not finding.ok] == []

    client.resize_disk("k80", disk_gb=30)
    client.resize_disk("k80", disk_gb=30)  # again: nothing happens
    size = client.shell("k80").run("df --block-size=1G --output=size / | tail -1").text
    assert 28 <= int(size) <= 30
    with pytest.raises(Refused, match="cannot be made smaller"):
        client.resize_disk("k80", disk_gb=10)
    disks = [charge for charge in client.store.list_charges(machine="k80") if charge.what == "disk"]
    assert [(disk.quantity, disk.closed_at is None) for disk in disks] == [(20, False), (30, True)]

    client.shell("k80").run("echo kept > kept")
    before = machine.address.host if machine.address else ""
    assert client.stop("k80").state is MachineState.STOPPED
    still = [charge.what for charge in client.store.list_charges(machine="k80", open_only=True)]
    assert still == ["disk"]
    client.set_budget(Decimal("0.01"))
    with pytest.raises(Refused, match="of the month's budget"):
        client.start("k80")
    still = [charge.what for charge in client.store.list_charges(machine="k80", open_only=True)]
    assert still == ["disk"]
    client.set_budget(None)
    machine = client.start("k80")
    assert machine.address is not None
    assert machine.address.host != before
    assert machine.address.host_key == first_key
    assert client.shell("k80").run("cat kept").text == "kept"
    open_now = {charge.what for charge in client.store.list_charges(machine="k80", open_only=True)}
    assert open_now == {"compute", "address", "disk"}

    (ended,) = client.terminate("k80")
    assert ended.state is MachineState.TERMINATED
    assert cloud.live() == []
    assert client.store.list_charges(open_only=True) == []


def keep(notes: list[str]) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)

    return watch


def test_full_zones_are_passed_over_in_price_order(client: Client, cloud: RentedCloud) -> None:
    offers = client.offers(type=TYPE, market=Market.SPOT)
    prices = [offer.price_per_hour_usd for offer in offers]
    assert prices == sorted(prices)
    for offer in offers[:2]:
        cloud.fill(offer.zone)
    notes: list[str] = []
    machine = client.launch(
        type=TYPE,
        market=Market.SPOT,
        stack="none",
        on_event=keep(notes),
    )
    assert machine.zone == offers[2].zone
    assert len(notes) == 2
    refused = [charge for charge in client.store.list_charges() if charge.void]
    assert {charge.what for charge in refused} == {"compute", "address", "disk"}
    assert len(refused) == 6


def test_nobody_has_one(client: Client, cloud: RentedCloud) -> None:
    cloud.fill("")
    with pytest.raises(NoCapacity, match="no free machine"):
        client.launch(type=TYPE, market=Market.SPOT, stack="none", regions=("us-east-2",))
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
    assert cloud.live() == []


def test_asked_until_one_is_up(client: Client, cloud: RentedCloud) -> None:
    cloud.fill("")
    notes: list[str] = []

    def free_on_second_round(event: object) -> None:
        if isinstance(event, Note):
            notes.append(event.message)
            if "asking all again" in event.message:
                cloud.calm()

    machine = client.launch(
        type=TYPE,
        market=Market.SPOT,
        stack="none",
        regions=("us-east-2",),
        retry_until_up=True,
        on_event=free_on_second_round,
    )
    assert machine.state is MachineState.RUNNING
    assert sum("asking all again" in note for note in notes) == 1


def test_several_machines_are_one_request(client: Client, cloud: RentedCloud) -> None:
    machines = client.launch_many(3, type=TYPE, market=Market.SPOT, name="m", stack="none", disk_gb=8)
    assert [machine.name for machine in machines] == ["m-1", "m-2", "m-3"]
    assert len({machine.id for machine in machines}) == 3
    assert sum(call["action"] == "RunInstances" for call in cloud.calls()) == 1
    hosts = {client.shell(machine.name).run("hostname").text for machine in machines}
    assert len(hosts) == 3
    ended = client.terminate("m-1", "m-2", "m-3")
    assert {machine.state for machine in ended} == {MachineState.TERMINATED}
    # once more when they are gone, to take their security group along
    assert sum(call["action"] == "TerminateInstances" for call in cloud.calls()) == 2
    assert client.store.list_charges(open_only=True) == []


def test_a_maximum_below_the_price_is_refused_by_the_cloud(client: Client) -> None:
    options = ONE_TIME.__class__(on_preempt=OnPreempt.TERMINATE, max_price_per_hour_usd=Decimal("0.001"))
    with pytest.raises(NoCapacity, match="maximum"):
        client.launch(type=TYPE, market=Market.SPOT, stack="none", options=options, regions=("us-east-2",))


def test_a_one_time_spot_machine_cannot_be_stopped(client: Client) -> None:
    client.launch(type=TYPE, market=Market.SPOT, name="once", stack="none", options=ONE_TIME)
    with pytest.raises(Refused, match="once"):
        client.stop("once")


def test_the_deadline_ends_a_machine_that_nobody_looks_after(client: Client, cloud: RentedCloud) -> None:
    machine = client.launch(
        type=TYPE, market=Market.SPOT, stack="none", max_hours=25 / 3600, options=ONE_TIME
    )
    wait_for(lambda: cloud.state(machine.id) == "terminated")
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
