"""A run and its attempts as they begin, and which machine is tried next: the choice behind the road's two
backward edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from cloudrun import catalog
from cloudrun.models import (
    NO_OPTIONS,
    Attempt,
    DataInput,
    LaunchOptions,
    Machine,
    Market,
    Offer,
    Outcome,
    Plan,
    Run,
    RunState,
    Stack,
    Stage,
)

# NVIDIA's images take 60 to 75 GB; the course of 2017 needed 70, and its 30 GB filled at once.
DEFAULT_DISK_GB = 100


@dataclass(frozen=True, slots=True)
class Order:
    """The part of a plan that a walk needs and the store's rows do not hold. Kept in run.json."""

    stack: Stack
    candidates: tuple[Offer, ...]
    disk_gb: int = 0
    keep: bool = False
    gpu_count: int = 0
    checkpoint: str = ""  # folder below the outputs; "" for a job that does not resume
    secrets: tuple[str, ...] = ()  # names of secrets, never their values
    budget_usd: Decimal | None = None
    options: LaunchOptions = NO_OPTIONS
    retry_until_up: bool = False
    data: tuple[DataInput, ...] = ()
    outputs_to: str = ""  # the address of a bucket where outputs go too


def order_of(plan: Plan, secrets: Sequence[str]) -> Order:
    return Order(
        stack=plan.stack,
        candidates=plan.candidates,
        disk_gb=plan.disk_gb,
        keep=plan.keep,
        gpu_count=plan.job.gpu.count,
        checkpoint="checkpoint" if plan.job.resume else "",
        secrets=tuple(secrets),
        budget_usd=plan.budget_usd,
        options=plan.options,
        retry_until_up=plan.retry_until_up,
        data=plan.data,
        outputs_to=plan.outputs_to,
    )


def new_run(plan: Plan, run_id: str, digest: str, *, at: datetime) -> Run:
    """The run that a plan becomes, not kept yet. digest: of its bundle."""
    job, metric = plan.job, plan.job.metric
    return Run(
        id=run_id,
        job=job.name,
        project=job.project,
        preset=plan.preset,
        args=plan.args,
        command=(*job.command, *plan.args),
        stack=plan.stack.name,
        bundle=digest,
        outputs=job.outputs,
        state=RunState.STARTING,
        stage=Stage.RECORD,
        submitted_at=at,
        on=plan.machine,
        metric_name=metric.name if metric else "",
        metric_direction=metric.direction if metric else "max",
        max_hours=plan.max_hours,
        budget_usd=plan.budget_usd,
        resume=job.resume,
        env=plan.env,
    )


def new_attempt(run: Run, number: int, offer: Offer) -> Attempt:
    """A try at the run with that offer, or on the machine that it was given; not kept yet."""
    machine = run.on or machine_name(run, number)
    return Attempt(run=run.id, number=number, token=token_of(run.id, number), offer=offer, machine=machine)


def next_offer(
    candidates: Sequence[Offer], attempts: Sequence[Attempt], *, again: bool = False
) -> Offer | None:
    """The cheapest candidate not yet tried in this round, or None when all were. With `again` the
    round is begun anew then: the one that was tried least often.

    A preemption begins a new round: what had no capacity an hour ago may have some now.
    The offer that was just preempted is tried last, its zone after the other zones.
    """
    since = max((i for i, attempt in enumerate(attempts) if _preempted(attempt)), default=0)
    this_round = attempts[since:]
    taken = this_round[0].offer if this_round and _preempted(this_round[0]) else None
    if taken is None:
        order = list(candidates)
    else:
        order = sorted(candidates, key=lambda offer: (offer == taken, _place(offer) == _place(taken)))
    tried = [attempt.offer for attempt in this_round if not _preempted(attempt)]
    if again:
        return min(order, key=tried.count, default=None)
    return next((offer for offer in order if offer not in tried), None)


def machine_name(run: Run, number: int) -> str:
    """The name of the machine that an attempt launches for itself."""
    base = f"{run.job.replace('_', '-')}-{run.id[:4]}"
    return base if number == 1 else f"{base}-{number}"


def token_of(run_id: str, number: int) -> str:
    """Makes the attempt's launch idempotent at the provider."""
    return f"{run_id}-{number}"


def process_key(attempt: Attempt) -> str:
    """The attempt's name on its machine."""
    return key_of(attempt.run, attempt.number)


def key_of(run: str, number: int) -> str:
    """The name on its machine of a run's attempt with that number."""
    return f"{run}.{number}"


def disk_gb_of(offer: Offer, asked_gb: int) -> int:
    """The size of the disk to rent with a machine, 0 where there is none to rent."""
    return 0 if offer.market is Market.OWN else asked_gb or DEFAULT_DISK_GB


def hourly_usd(offer: Offer, disk_gb: int) -> Decimal | None:
    """Compute, disk and public address of an hour; None where the price is unknown."""
    if offer.market is Market.OWN or offer.price_per_hour_usd is None:
        return offer.price_per_hour_usd
    rest, _ = catalog.running_cost_per_hour_usd(offer.provider, disk_gb_of(offer, disk_gb))
    return offer.price_per_hour_usd + rest


def offer_of(machine: Machine) -> Offer:
    """A machine that exists already, as the offer of an attempt on it."""
    return Offer(
        provider=machine.provider,
        region=machine.region,
        zone=machine.zone,
        type=machine.type,
        market=machine.market,
        price_per_hour_usd=machine.price_per_hour_usd,
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
        gpu_memory_gib=machine.gpu_memory_gib,
        gpu_capability=machine.gpu_capability,
    )


def _preempted(attempt: Attempt) -> bool:
    return attempt.outcome is Outcome.PREEMPTED


def _place(offer: Offer) -> tuple[str, str, str]:
    return (offer.provider, offer.region, offer.zone)
