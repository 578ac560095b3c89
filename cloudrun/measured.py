"""How long runs of a job really took, by GPU: the hours of a comparison, and its measured ratios of speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING

from cloudrun.comparing import Speed
from cloudrun.ledger import BYTES_PER_GB
from cloudrun.models import Run, RunState

if TYPE_CHECKING:
    from cloudrun.store import Store

LOOKED_AT = 500  # newest runs of a job; older ones say little about the code of today


def hours_of(run: Run) -> Decimal | None:
    """From the first start of its process to its end; None while it has not both."""
    if run.started_at is None or run.ended_at is None:
        return None
    return Decimal(max(0, (run.ended_at - run.started_at) // timedelta(microseconds=1))) / 3_600_000_000


def hours_by_gpu(store: Store, *, job: str, preset: str) -> dict[str, list[Decimal]]:
    """The hours of each run of that job and preset that succeeded at its first try, by the GPU of its
    machine; "" is a machine without one. A run that was preempted took longer than its work."""
    found: dict[str, list[Decimal]] = {}
    for run in store.list_runs(job=job, state=RunState.SUCCEEDED, limit=LOOKED_AT):
        hours, machine = hours_of(run), store.get_machine(run.machine)
        if run.preset == preset and hours and machine is not None and len(store.list_attempts(run.id)) == 1:
            found.setdefault(machine.gpu, []).append(hours)
    return found


def sent_gb(store: Store, run: Run) -> Decimal:
    """What the run sent home as the ledger has it, else as much as its outputs hold at home."""
    clouds = {attempt.offer.provider for attempt in store.list_attempts(run.id)}  # not a bucket's of another
    sent = store.list_charges(run=run.id, what="egress")
    lines = [line for line in sent if line.provider in clouds and not line.void]
    return sum((line.quantity for line in lines), Decimal(0)) or Decimal(run.outputs_bytes) / BYTES_PER_GB


def speeds(hours: Mapping[str, Sequence[Decimal]], base: str) -> dict[str, Speed]:
    """The ratio of medians of every other GPU to the base, by its name in lower case."""
    if base not in hours:
        return {}
    usual = median(hours[base])
    return {
        gpu.casefold(): Speed(
            (usual / median(some)).quantize(Decimal("0.01")),
            f"measured: {len(some)} of our runs beside {len(hours[base])}",
        )
        for gpu, some in hours.items()
        if gpu and gpu != base
    }
