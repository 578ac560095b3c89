"""The verbs about money, of the Python API. `Client` has them all; see there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from cloudrun.config import Settings
from cloudrun.errors import NotFound, UsageError
from cloudrun.models import GpuNeed, Market, Offer, Run
from cloudrun.store import Store
from cloudrun.words import nearest

if TYPE_CHECKING:
    from cloudrun.bills import Imported
    from cloudrun.comparing import Alternative, Speed, Work
    from cloudrun.models import Stack
    from cloudrun.ownpc import OwnPc
    from cloudrun.report import CostReport


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and how its hours are known."""

    work: Work
    hours_from: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class _Base:
    """The work as it is known before the offers are looked at."""

    hours: Decimal
    hours_from: str
    gpu: str = ""
    speeds: Mapping[str, Speed] | None = None
    need: GpuNeed = field(default_factory=GpuNeed)
    stacks: tuple[Stack, ...] = ()
    paid: tuple[tuple[str, Decimal], ...] = ()
    egress_gb: Decimal = Decimal(0)


class MoneyVerbs:
    """Compare what work costs, report what it did cost, and lay the providers' bills beside it."""

    settings: Settings
    store: Store

    def compare(
        self,
        *,
        hours: Decimal | None = None,
        like: str = "",
        job: str | Path = "",
        preset: str = "",
        gpus: Sequence[str] = (),
        types: Sequence[str] = (),
        market: Market | None = None,
        regions: Sequence[str] = (),
        all_regions: bool = False,
        disk_gb: int = 0,
        egress_gb: Decimal | None = None,
        speeds: Mapping[str, Speed] | None = None,
        own_pc: OwnPc | None = None,
        paid_usd: Decimal | None = None,
        old_prices: bool = False,
        rates: Mapping[str, Decimal] | None = None,
    ) -> Comparison:
        """The same work on every fitting offer, service and own computer, cheapest first. Free, no I/O
        beyond the store and the shipped facts.

        The work is `hours` on the first of `gpus`, or what the run `like` took, or what runs of `job` with
        `preset` took (else the preset's limit). egress_gb: sent home; None for what the run sent. Raises
        UsageError where none of them says how long.
        """
        from cloudrun import comparing

        base = self._base(hours=hours, like=like, job=str(job), preset=preset, gpus=gpus)
        work = comparing.Work(
            hours=base.hours,
            gpu=base.gpu,
            gpu_count=base.need.count,
            disk_gb=disk_gb,
            egress_gb=base.egress_gb if egress_gb is None else egress_gb,
            speeds={**(base.speeds or {}), **(speeds or {})},
        )
        rates = rates or self.settings.rates
        offers = _offers(base, gpus, types, market, regions, rates if old_prices else None)
        paid = base.paid if paid_usd is None else (("what you paid", paid_usd),)
        found = comparing.compare(
            work,
            offers if all_regions or old_prices else comparing.cheapest_regions(offers),
            services=_services(gpus, rates),
            own_pc=own_pc,
            paid=paid,
            at=comparing.start_of(comparing.OLD_PRICES_DAY) if old_prices else datetime.now(UTC),
        )
        return Comparison(work, base.hours_from, tuple(found))

    def cost_report(
        self,
        *,
        by: str = "month",
        since: date | None = None,
        limit: int | None = None,
        rates: Mapping[str, Decimal] | None = None,
    ) -> CostReport:
        """What was spent, and what still costs, and what imported bills say of it. The time does not depend
        on how many charges there are. Raises UsageError for a key that there is not."""
        from cloudrun.bills import billed_sums
        from cloudrun.report import BY, make_report

        if by not in BY:
            raise UsageError(f"there is no report by {by!r}", hint=nearest(by, BY))
        billed = billed_sums(self.store, by, rates or self.settings.rates, since=since)
        now = datetime.now(UTC)
        return make_report(self.store, by=by, since=since, limit=limit, now=now, billed=billed)

    def import_bills(
        self, paths: Sequence[Path], *, rates: Mapping[str, Decimal] | None = None
    ) -> list[Imported]:
        """Keep what bills of providers say of our machines, and lay it beside the ledger; one answer a
        provider. Idempotent. Raises UsageError for what is no bill, and then nothing is kept."""
        from cloudrun.bills import import_bills

        rates = rates or self.settings.rates
        return import_bills(self.store, paths, rates=rates, now=datetime.now(UTC))

    def cost_series(self, *, by: str, since: date | None = None) -> list[tuple[date, str, Decimal]]:
        """(day, key, USD) in order; by: provider, type, market, project or job. Days are UTC's."""
        from cloudrun.report import make_series

        return make_series(self.store, by=by, since=since, now=datetime.now(UTC))

    def _base(self, *, hours: Decimal | None, like: str, job: str, preset: str, gpus: Sequence[str]) -> _Base:
        gpu = _gpu_name(gpus[0]) if gpus else ""
        if like and job:
            raise UsageError("both a run and a job are named", hint="name one: --like RUN, or JOB")
        if like:
            return self._like(self.store.find_run(like), hours, gpu)
        if job:
            return self._of_job(job, preset, hours, gpu)
        if preset:
            raise UsageError("--preset says nothing without a job", hint="e.g. --preset paper svhn_rcnn")
        if hours is None:
            raise UsageError(
                "for how many hours?", hint="--hours 45, or --like RUN, or a job with one of its presets"
            )
        return _Base(hours, "as stated", gpu)

    def _like(self, run: Run, hours: Decimal | None, gpu: str) -> _Base:
        from cloudrun import measured

        took = hours or measured.hours_of(run)
        if not took:
            raise UsageError(f"{run.id} has not ended: nobody knows its hours", hint="add --hours")
        machine = self.store.get_machine(run.machine)
        own = machine.gpu if machine else ""
        known = measured.hours_by_gpu(self.store, job=run.job, preset=run.preset)
        paid = ((f"run {run.id}", run.cost_usd),) if run.cost_usd is not None and hours is None else ()
        said = "as stated" if hours else f"what {run.id} took"
        ratios, sent_gb = measured.speeds(known, gpu or own), measured.sent_gb(self.store, run)
        return _Base(took, said, gpu or own, ratios, paid=paid, egress_gb=sent_gb)

    def _of_job(self, job: str, preset: str, hours: Decimal | None, gpu: str) -> _Base:
        from cloudrun import jobs, measured
        from cloudrun.stacks import load_stack

        loaded = jobs.load_job(job)
        chosen = jobs.find_preset(loaded, preset)
        name = chosen.name if chosen else ""
        known = measured.hours_by_gpu(self.store, job=loaded.name, preset=name)
        most = max(known, key=lambda each: len(known[each]), default="")
        base = gpu or most
        need = GpuNeed(max(1, loaded.gpu.count), loaded.gpu.min_memory_gib, loaded.gpu.min_capability)
        stacks = tuple(load_stack(each) for each in loaded.stacks)
        if hours is None and base in known:
            count = len(known[base])
            took, said = median(known[base]), f"median of {count} run{'s' if count > 1 else ''} of ours"
        elif hours is None and chosen is not None and chosen.max_hours is not None:
            took, said = Decimal(str(chosen.max_hours)), f"at most, the limit of preset {chosen.name}"
        elif hours is not None:
            took, said = hours, "as stated"
        else:
            raise UsageError(
                f"nobody knows how long {loaded.name} takes: no run of it succeeded, and no limit is set",
                hint="add --hours, or --preset with one that has max_hours",
            )
        return _Base(took, said, base, measured.speeds(known, base), need, stacks)


def _offers(
    base: _Base,
    gpus: Sequence[str],
    types: Sequence[str],
    market: Market | None,
    regions: Sequence[str],
    old_rates: Mapping[str, Decimal] | None,
) -> list[Offer]:
    """Cheapest first; only what fits, but for what was asked for by name."""
    from cloudrun import catalog
    from cloudrun.comparing import load_old_offers
    from cloudrun.offers import rank

    named = {pair for name in types for pair in catalog.resolve_type(name)}
    if old_rates is not None:
        known = load_old_offers(old_rates)
        known = [each for each in known if not regions or each.region in regions]
    else:
        known = catalog.load_offers(market=market, regions=regions)
    wanted = [
        offer
        for offer in known
        if ((offer.provider, offer.type) in named if named else _has_gpu(offer, gpus))
        and market in (None, offer.market)
    ]
    if old_rates is not None:
        return wanted
    return [offer for offer in rank(wanted, base.need, base.stacks) if offer.fits or named]


def _services(gpus: Sequence[str], rates: Mapping[str, Decimal]) -> list[Alternative]:
    from cloudrun.comparing import load_services

    return [each for each in load_services(rates) if not gpus or _named(each.gpu, gpus)]


def _has_gpu(offer: Offer, gpus: Sequence[str]) -> bool:
    return bool(offer.gpu_count) and (not gpus or _named(offer.gpu, gpus))


def _named(gpu: str, gpus: Sequence[str]) -> bool:
    return any(name.casefold() == gpu.casefold() for name in gpus)


def _gpu_name(text: str) -> str:
    """As the catalogue writes it. Raises NotFound with the nearest names."""
    from cloudrun import catalog

    names = dict.fromkeys(known.gpu for known in catalog.list_types() if known.gpu)
    for name in names:
        if name.casefold() == text.casefold():
            return name
    raise NotFound(f"no GPU {text!r} in the catalogue", hint=nearest(text, names))
