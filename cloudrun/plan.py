"""Stages 1 to 4 of the road as one free step: what would run, where, on what, at which price.

Everything that can be refused is refused here, before anything is paid for. A plan for this
computer, or for a machine that exists, touches neither network nor price lists.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

from cloudrun import catalog
from cloudrun.attempts import offer_of
from cloudrun.bundle import refuse_secrets, scan
from cloudrun.cautions import bundle_warnings, egress_warnings, limits, offer_warnings
from cloudrun.config import Settings
from cloudrun.errors import ProviderError, Quota, Refused
from cloudrun.guard import PULL_GRACE_MINUTES
from cloudrun.jobs import DEFAULT_STACKS, find_preset, find_shared, load_job
from cloudrun.models import (
    NO_OPTIONS,
    DataInput,
    GpuNeed,
    Job,
    LaunchOptions,
    Machine,
    Market,
    Offer,
    Plan,
    Stack,
    Stage,
)
from cloudrun.offers import pick_stack, rank
from cloudrun.providers.base import Need, Provider
from cloudrun.spending import Spending
from cloudrun.stacks import NONE, load_stack
from cloudrun.target import LOCAL, Target, find_target

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Providers = Callable[[str], Provider]


def make_plan(
    settings: Settings,
    job: str,
    *,
    machines: Sequence[Machine],
    providers: Providers,
    preset: str = "",
    args: Sequence[str] = (),
    stack: str = "",
    type: str = "",
    market: Market | None = None,
    on: str = "",
    max_hours: float | None = None,
    budget_usd: Decimal | None = None,
    disk_gb: int = 0,
    keep: bool = False,
    allow_secrets: bool = False,
    env: Sequence[tuple[str, str]] = (),
    regions: Sequence[str] = (),
    options: LaunchOptions = NO_OPTIONS,
    retry_until_up: bool = False,
    data: Sequence[DataInput] = (),
) -> Plan:
    """Walk stages 1 to 4. machines: the known live ones. Spends nothing and starts nothing.

    Raises UsageError for everything that cannot run as asked: a bad job, an unknown preset, type
    or machine, a GPU that no accepted stack drives, a budget below the first hour, data that is
    not there, secrets in the folder; ProviderError where a provider cannot say what it offers.
    """
    clock = _Clock()
    with clock.stage(Stage.LOAD):
        loaded = load_job(job)
        chosen = find_preset(loaded, preset)
        max_hours = _limit("max-hours", max_hours if max_hours is not None else chosen.max_hours)
        _check_env(env)
    with clock.stage(Stage.RESOLVE):
        stacks = [load_stack(name) for name in ([stack] if stack else loaded.stacks)]
    with clock.stage(Stage.CHOOSE):
        target = find_target(machines, on=on, type=type, market=market)
        spending = Spending(max_hours, budget_usd, disk_gb, PULL_GRACE_MINUTES, keep)
        if target.machine:
            max_hours = spending.hours_on(target.machine)
            picked = _fit_machine(target.machine, loaded.gpu, stacks)
            candidates: tuple[Offer, ...] = ()
        else:
            ranked = _offers(target, providers, loaded.gpu, stacks, market, regions)
            picked, candidates = _choose(ranked, loaded.gpu, stacks, spending)
        if target.local:
            _check_data(loaded, settings, data)
        warnings = (*offer_warnings(candidates, spending), *limits(candidates, providers))
    with clock.stage(Stage.BUNDLE):
        bundle = scan(
            loaded.folder,
            shared=find_shared(loaded),
            outputs=loaded.outputs,
            cache_dir=settings.home / "cache",
        )
        if not allow_secrets:
            refuse_secrets(bundle)
        warnings += bundle_warnings(bundle)
        cloud = target.machine.provider if target.machine else candidates[0].provider
        warnings += tuple(egress_warnings(settings, cloud, data))
    return Plan(
        job=loaded,
        preset=chosen.name,
        args=(*chosen.args, *args),
        stack=picked,
        candidates=candidates,
        bundle=bundle,
        machine=target.machine.name if target.machine else "",
        target_reason=target.reason,
        max_hours=max_hours,
        budget_usd=budget_usd,
        worst_case_usd=(
            spending.worst_case_on_usd(target.machine)
            if target.machine
            else spending.worst_case_usd(candidates)
        ),
        disk_gb=disk_gb,
        keep=keep,
        options=options,
        retry_until_up=retry_until_up,
        warnings=tuple(dict.fromkeys(warnings)),
        env=tuple(env),
        stage_seconds=tuple(clock.seconds),
        data=tuple(data),
    )


def plan_launch(
    *,
    providers: Providers,
    type: str = LOCAL,
    market: Market | None = None,
    stack: str = "",
    regions: Sequence[str] = (),
    max_hours: float | None = None,
    budget_usd: Decimal | None = None,
    disk_gb: int = 0,
) -> tuple[Stack, tuple[Offer, ...]]:
    """Stages 2 and 3 for a machine without a job: the stack and the offers to try, cheapest first.

    Without a stack, this computer is taken as it is and a rented machine gets the newest torch
    stack that it can drive. Raises as make_plan does.
    """
    target = find_target((), on="", type=type or LOCAL, market=market)
    names = [stack] if stack else [NONE] if target.local else list(DEFAULT_STACKS)
    stacks = [load_stack(name) for name in names]
    ranked = _offers(target, providers, GpuNeed(), stacks, market, regions)
    spending = Spending(_limit("max-hours", max_hours), budget_usd, disk_gb)
    return _choose(ranked, GpuNeed(), stacks, spending)


def find_offers(
    *,
    providers: Providers,
    gpus: Sequence[str] = (),
    min_gpu_memory_gib: float = 0,
    type: str = "",
    market: Market | None = None,
    regions: Sequence[str] = (),
    max_price_per_hour_usd: Decimal | None = None,
    currency: str = "",
) -> list[Offer]:
    """What could be rented, cheapest first: of a type, or else every GPU (of that name) and this computer.
    currency: have prices quoted in this one too, where a provider can."""
    types = catalog.resolve_type(type) if type else [(name, "") for name in ("local", "aws", "azure")]
    need = GpuNeed(count=1 if min_gpu_memory_gib else 0, min_memory_gib=min_gpu_memory_gib)
    found: list[Offer] = []
    for provider, name in types:
        there = regions if name else _regions_of(provider, regions)
        if there or not regions:
            found += _provider_offers(providers, provider, name, need, market, there, currency)
    wanted = [offer for offer in found if type or _has_gpu(offer, gpus)]
    if max_price_per_hour_usd is not None:
        wanted = [each for each in wanted if _within(each.price_per_hour_usd, max_price_per_hour_usd)]
    named = bool(type or gpus)  # what was asked for by name is shown also where it does not fit
    return [offer for offer in rank(wanted, need, ()) if offer.fits or named]


def _regions_of(provider: str, regions: Sequence[str]) -> list[str]:
    """Those that are not known to be another provider's: when all are asked, each is asked for its own."""
    others = {each.region for each in catalog.load_offers(regions=regions) if each.provider != provider}
    own = {each.region for each in catalog.load_offers(provider=provider, regions=regions)}
    return [region for region in regions if region in own or region not in others]


def _within(price: Decimal | None, most: Decimal) -> bool:
    return price is not None and price <= most


def _has_gpu(offer: Offer, gpus: Sequence[str]) -> bool:
    if not gpus:
        return bool(offer.gpu_count) or offer.market is Market.OWN
    return bool(offer.gpu_count) and any(gpu.lower() in offer.gpu.lower() for gpu in gpus)


class _Clock:
    """Times the stages."""

    def __init__(self) -> None:
        self.seconds: list[tuple[Stage, float]] = []

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds.append((stage, time.monotonic() - started))


def _limit(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1_000_000:
        raise Refused(f"--{name} is {value:g}", hint="use a positive number")
    return value


def _check_env(env: Sequence[tuple[str, str]]) -> None:
    for name, value in env:
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise Refused(f"{name!r} cannot be an environment variable", hint="write NAME=value")
        if name.startswith("CLOUDRUN_"):
            raise Refused(f"{name} is set by cloudrun itself", hint="choose another name")


# --- on what -------------------------------------------------------------------------------


def _offers(
    target: Target,
    providers: Providers,
    need: GpuNeed,
    stacks: Sequence[Stack],
    market: Market | None,
    regions: Sequence[str],
) -> list[Offer]:
    found: list[Offer] = []
    for provider, name in target.types:
        wanted = None if provider == LOCAL else market or Market.ON_DEMAND
        found += _provider_offers(providers, provider, name, need, wanted, regions)
    return rank(found, need, stacks)


def _provider_offers(
    providers: Providers,
    name: str,
    type: str,
    need: GpuNeed,
    market: Market | None,
    regions: Sequence[str],
    currency: str = "",
) -> list[Offer]:
    """What the provider offers; from the catalogue where the provider is not installed."""
    try:
        provider = providers(name)
    except ProviderError:
        if name == LOCAL:
            raise
        return catalog.load_offers(provider=name, type=type, market=market, regions=regions)
    return provider.offers(
        Need(gpu=need, type=type, market=market, regions=tuple(regions), currency=currency)
    )


def _choose(
    ranked: Sequence[Offer], need: GpuNeed, stacks: Sequence[Stack], spending: Spending
) -> tuple[Stack, tuple[Offer, ...]]:
    """The stack for the cheapest fitting offer, and every fitting offer that the same stack drives."""
    if not ranked:
        raise Refused("nobody offers that there", hint="cloudrun offers lists types and regions")
    fitting = [offer for offer in ranked if offer.fits]
    if not fitting:
        if all("quota" in offer.why_not for offer in ranked):
            raise Quota(ranked[0].why_not, hint="ask for more of it there, or name another --region or type")
        reasons = dict.fromkeys(f"{offer.type} does not fit: {offer.why_not}" for offer in ranked)
        raise Refused("; ".join(list(reasons)[:3]), hint=_fix(ranked[0], need, stacks))
    affordable = [offer for offer in fitting if spending.affords(offer)]
    if not affordable:
        raise Refused(_beyond(fitting[0], spending), hint="raise --budget, or name a cheaper type")
    stack = pick_stack(affordable[0], need, stacks)
    assert stack is not None  # noqa: S101  # it fits, so some stack drives it
    return stack, tuple(offer for offer in affordable if pick_stack(offer, need, [stack]) is stack)


def _fit_machine(machine: Machine, need: GpuNeed, stacks: Sequence[Stack]) -> Stack:
    """The stack for a machine that exists already: the one it has, where the job accepts it."""
    judged = rank([offer_of(machine)], need, stacks)[0]
    if not judged.fits:
        raise Refused(f"{machine.name} does not fit: {judged.why_not}", hint="name another machine or type")
    own = next((stack for stack in stacks if stack.name == machine.stack), None)
    picked = own or pick_stack(judged, need, stacks)
    if machine.market is not Market.OWN and own is None:
        names = ", ".join(stack.name for stack in stacks)
        raise Refused(
            f"{machine.name} has stack {machine.stack or 'none'}, the job accepts {names}",
            hint=f"launch one with --stack {stacks[0].name}",
        )
    assert picked is not None  # noqa: S101  # it fits, so some stack drives it
    return picked


def _check_data(job: Job, settings: Settings, given: Sequence[DataInput]) -> None:
    """Refuse a job that needs data which is not on this computer; other machines only tell later."""
    mounts = {data.mount for data in given}
    for need in job.data:
        if need.name in mounts:
            continue
        place = settings.datasets_dir / need.name
        if need.required and not place.is_dir():
            hint = need.description or "the job's README.md says how to get it; or give it with --data"
            raise Refused(f"job {job.name} needs data that is not here: {place}", hint=hint)


def _fix(offer: Offer, need: GpuNeed, stacks: Sequence[Stack]) -> str:
    """What would fit: another stack, or the cheapest types of today that the job and its stacks can use."""
    other = pick_stack(offer, need, [load_stack(name) for name in DEFAULT_STACKS])
    if (
        offer.gpu_count >= need.count
        and other
        and not rank([replace(offer, why_not="")], need, [other])[0].why_not
    ):
        return f"--stack {other.name} can drive it"
    today = rank(catalog.load_offers(market=Market.ON_DEMAND), need, stacks)
    able = dict.fromkeys(
        offer.type for offer in today if offer.fits and not offer.warning and offer.gpu_count
    )
    names = list(able)[:3]
    return (
        f"what fits, cheapest first: {', '.join(names)}" if names else "cloudrun offers lists what there is"
    )


def _beyond(offer: Offer, spending: Spending) -> str:
    price = spending.per_hour_usd(offer)
    if price is None:
        return f"{offer.type} has no known price, so a budget of {spending.budget_usd} USD cannot be kept"
    return (
        f"the first hour of {offer.type} costs {price:.4f} USD, over the budget of {spending.budget_usd} USD"
    )
