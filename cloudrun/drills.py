"""Mishaps played through on the rehearsal cloud, each from its beginning to a tidy end, with what was saved.

A drill uses the same Client as everything else; the rehearsal cloud is only told to misbehave.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from cloudrun.assets import jobs_dir
from cloudrun.client import Client
from cloudrun.errors import MachineError
from cloudrun.events import Event, Note
from cloudrun.models import LaunchOptions, Machine, Market, OnPreempt, Run, RunState
from cloudrun.sim.record import ENDED, SimRecord

TYPE = "p2.xlarge"
EPOCH_BEFORE_MISHAP = 8
NOTICE_S = 20.0  # AWS gives two minutes; a drill need not wait for them
PATIENCE_S = 180.0
THROTTLED = 503  # HTTP status of RequestLimitExceeded
GUARD_HOURS = 15 / 3600


@dataclass(frozen=True, slots=True)
class Told:
    """One sentence of the story, as it happens."""

    text: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the reckoning at the end; `ok` False: it is not as it should be."""

    name: str
    value: str
    ok: bool = True


Story = Iterator[Told | Fact]


def preempt(client: Client, record: SimRecord) -> Story:
    """A spot machine is taken in the middle of a run."""
    run = _submit(client)
    yield Told(f"{run.id} is submitted to {TYPE} on spot")
    before = _wait_for_epoch(client, run.id, EPOCH_BEFORE_MISHAP)
    machine = client.machine(client.run(run.id).machine)
    yield Told(f"epoch {before} on {machine.name} in {machine.zone}: now its provider takes it")
    record.tell("preempt", instance_id=machine.id, notice_s=NOTICE_S, action=None)
    noticed_at = datetime.now(UTC)
    run = client.attach(run.id)
    attempts = client.attempts(run.id)
    yield Told(f"{run.id} went on in {attempts[-1].offer.zone} and {run.state}")
    stopped_at = attempts[0].ended_at or datetime.now(UTC)
    yield Fact("zones", " then ".join(each.offer.zone for each in attempts), ok=len(attempts) == 2)
    yield Fact(
        "from the notice to the job saved at home", f"{(stopped_at - noticed_at).total_seconds():.1f} s"
    )
    yield from _same_result(client, run)
    yield from _money(client, run)


def no_capacity(client: Client, record: SimRecord) -> Story:
    """The two cheapest zones have no machine free."""
    notes: list[str] = []
    offers = client.offers(type=TYPE, market=Market.SPOT)
    zones = list(dict.fromkeys(offer.zone for offer in offers))[:2]
    for zone in zones:
        record.tell("set-capacity", type=TYPE, zone=zone, market="spot", count=0)
    yield Told(f"{' and '.join(zones)}, the cheapest, have no {TYPE} on spot now")
    try:
        machine = client.launch(type=TYPE, market=Market.SPOT, stack="none", on_event=_keep_notes(notes))
    finally:
        for zone in zones:
            record.tell("set-capacity", type=TYPE, zone=zone, market="spot", count=None)
    for note in notes:
        yield Told(note)
    dearer = (machine.price_per_hour_usd or Decimal(0)) - (offers[0].price_per_hour_usd or Decimal(0))
    yield Fact("it is up in", f"{machine.zone}, {dearer:.4f} USD an hour above the cheapest")
    yield Fact("refusals on the way", str(len(notes)), ok=len(notes) == len(zones))
    client.terminate(machine.name)
    lines = [line for line in client.store.list_charges() if line.machine == machine.name]
    yield Fact("cost of the refused launches", "0 USD", ok=all(line.closed_at or line.void for line in lines))
    yield _nothing_left(record)


def lost_client(client: Client, record: SimRecord) -> Story:
    """The computer that submitted is gone; later a second machine is left alone for good."""
    run = _submit(client)
    before = _wait_for_epoch(client, run.id, EPOCH_BEFORE_MISHAP)
    supervisor = client.run(run.id).supervisor_pid or 0
    os.kill(supervisor, signal.SIGKILL)
    yield Told(
        f"epoch {before}: the process that looked after {run.id} is killed; the machine knows nothing of it"
    )
    with TemporaryDirectory(prefix="cloudrun-drill-") as folder:
        other = Client(replace(client.settings, home=Path(folder)))
        found = other.adopt(provider="aws")
        yield Told("another computer with an empty store asks AWS: " + ", ".join(each.name for each in found))
        yield Fact("found from its tags alone", client.run(run.id).machine,
                   ok=client.run(run.id).machine in [each.name for each in found])  # fmt: skip
    run = client.attach(run.id)
    yield Told(f"the next command took {run.id} up again: {run.state}, outputs at home")
    yield from _same_result(client, run)
    yield from _guard_alone(client, record)
    yield _nothing_left(record)


def throttle(client: Client, record: SimRecord) -> Story:
    """Every second call is refused with RequestLimitExceeded."""
    record.tell("forget-calls")
    record.tell("throttle", every=2, times=None)
    yield Told("every second call to AWS is refused: RequestLimitExceeded")
    try:
        machine = client.launch(type=TYPE, market=Market.SPOT, stack="none")
        yield Told(f"{machine.name} is up in {machine.zone}")
        client.terminate(machine.name)
    finally:
        record.tell("clear-faults")
    calls = record.ask("calls")
    refused = [call for call in calls if call["status"] == THROTTLED]
    yield Fact("calls", f"{len(calls)}, of them refused {len(refused)}", ok=bool(refused))
    yield Fact("machines launched", "1", ok=sum(call["action"] == "RunInstances" for call in calls) >= 1)
    yield _nothing_left(record)


DRILLS: dict[str, Callable[[Client, SimRecord], Story]] = {
    "preempt": preempt,
    "no-capacity": no_capacity,
    "lost-client": lost_client,
    "throttle": throttle,
}


def _submit(client: Client) -> Run:
    plan = client.plan(jobs_dir() / "drill", type=TYPE, market=Market.SPOT)
    return client.submit(plan, detach=True)


def _guard_alone(client: Client, record: SimRecord) -> Story:
    """A machine whose client never comes back ends itself at its deadline."""
    options = LaunchOptions(on_preempt=OnPreempt.TERMINATE)
    machine = client.launch(
        type=TYPE, market=Market.SPOT, stack="none", max_hours=GUARD_HOURS, options=options
    )
    yield Told(f"{machine.name} is launched with a deadline in {GUARD_HOURS * 3600:.0f} s, and left alone")
    ended = _wait(lambda: _state(record, machine) == "terminated")
    yield Fact("it ended itself", f"state at AWS: {_state(record, machine)}", ok=ended)
    client.machines()
    cost = client.machine_cost_usd(client.machine(machine.name))
    yield Fact("what it cost", f"{cost} USD")


def _same_result(client: Client, run: Run) -> Story:
    """The run's metric against the same job by hand, in one piece."""
    if run.state is not RunState.SUCCEEDED:
        yield Fact("the run", f"{run.state}: {run.message}", ok=False)
        return
    with TemporaryDirectory(prefix="cloudrun-drill-") as folder:
        subprocess.run(
            [sys.executable, str(jobs_dir() / "drill" / "train.py"), *run.args],
            env={**os.environ, "CLOUDRUN_OUTPUT_DIR": folder, "CLOUDRUN_RESUME_FROM": ""},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        whole = _last(Path(folder, "metrics.jsonl"))
    ours = _last(client.files(run.id).outputs / "metrics.jsonl")
    yield Fact("validation loss", f"{ours['val_loss']}, in one piece {whole['val_loss']}", ok=ours == whole)


def _money(client: Client, run: Run) -> Story:
    spot = client.run(run.id).cost_usd or Decimal(0)
    ended_at = run.ended_at or datetime.now(UTC)
    hours = Decimal((ended_at - run.submitted_at).total_seconds()) / 3600
    fixed = client.offers(type=TYPE, market=Market.ON_DEMAND)[0].price_per_hour_usd or Decimal(0)
    yield Fact("cost (simulated prices)", f"{spot:.4f} USD on spot, with disk and address")
    yield Fact("the same time on demand", f"{hours * fixed:.4f} USD, without them")


def _nothing_left(record: SimRecord) -> Fact:
    left = [each["id"] for each in record.instances() if each["state"] not in (*ENDED, "stopped")]
    return Fact("machines left running there", str(len(left)), ok=not left)


def _state(record: SimRecord, machine: Machine) -> str:
    states = {each["id"]: each["state"] for each in record.ask("instances")}
    return str(states.get(machine.id, "unknown"))


def _wait_for_epoch(client: Client, run_id: str, epoch: int) -> int:
    """Until the run has logged that epoch; returns the last one."""
    epochs: list[int] = []

    def reached() -> bool:
        text = b"".join(client.logs(run_id)).decode("utf-8", "replace")
        epochs[:] = [json.loads(line)["epoch"] for line in text.splitlines() if line.startswith('{"epoch"')]
        return bool(epochs) and epochs[-1] >= epoch

    if not _wait(lambda: reached() or client.run(run_id).state.final) or not epochs:
        raise MachineError(f"{run_id} did not get to epoch {epoch}", hint=f"cloudrun status {run_id}")
    return epochs[-1]


def _wait(condition: Callable[[], bool]) -> bool:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.1)
    return True


def _keep_notes(notes: list[str]) -> Callable[[Event], None]:
    def keep(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)

    return keep


def _last(path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(path.read_text().splitlines()[-1])
    return found
