"""A plan as people read it before they say yes. Pure functions that return lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from cloudrun.attempts import hourly_usd
from cloudrun.cli.shapes import BIGGEST
from cloudrun.cli.text import UNKNOWN, clock, duration, money, plural, size, until, visible
from cloudrun.cli.watch import stage_line
from cloudrun.guard import PULL_GRACE_MINUTES
from cloudrun.models import Bundle, DataInput, Machine, Market, Offer, Plan

IGNORED_SHOWN = 8
LABEL = 11

SHOWN_FALLBACKS = 3


def plan_lines(plan: Plan, machine: Machine | None, *, now: datetime, full: bool) -> list[str]:
    """Everything that the plan decides; `full` (for --dry-run) lists every ignored path and candidate."""
    return [
        *(stage_line(stage, seconds) for stage, seconds in plan.stage_seconds),
        "",
        *_what(plan),
        *_where(plan, machine, full=full),
        *_money(plan, machine),
        *_ends(plan, machine, now),
        *_bundle(plan.bundle, full=full),
        *_listed("data", [_data(data) for data in plan.data]),
        *_outputs(plan, machine),
        *(field("warning", text) for text in plan.warnings),
        *(field("secret", f"{path} would be sent (--allow-secrets)") for path in plan.bundle.secrets),
    ]


def price(plan: Plan, machine: Machine | None) -> tuple[Decimal | None, bool]:
    """The price an hour, and whether somebody bills it at all."""
    if machine is not None:
        return machine.price_per_hour_usd, machine.market is not Market.OWN
    first = plan.candidates[0]
    return first.price_per_hour_usd, first.market is not Market.OWN


def field(label: str, text: str) -> str:
    """`job        svhn_rcnn`"""
    return f"{label:<{LABEL}}{visible(text)}"


def offer_text(offer: Offer) -> str:
    """`aws us-east-1 p2.xlarge spot, 1 x Tesla K80 12 GiB, 4 vCPU, 61 GiB`"""
    if offer.market is Market.OWN:
        return ", ".join([f"this computer ({offer.provider})", *_hardware(offer)])
    place = f"{offer.provider} {offer.zone or offer.region} {offer.type} {offer.market.value}"
    return ", ".join([place, *_hardware(offer)])


def machine_kind(machine: Machine) -> str:
    """`aws p2.xlarge`; `local` where the type says no more than the provider."""
    return machine.type if machine.type == machine.provider else f"{machine.provider} {machine.type}"


def price_text(amount: Decimal | None, market: Market, as_of: object = None) -> str:
    """`0.90 USD an hour (price of 2017-10-01)`; nothing for a machine that nobody bills."""
    if market is Market.OWN:
        return "nothing: nobody bills this machine"
    if amount is None:
        return f"{UNKNOWN}: the provider names no price"
    return f"{money(amount)} an hour" + (f" (price of {as_of})" if as_of else "")


def _what(plan: Plan) -> list[str]:
    preset = f", preset {plan.preset}" if plan.preset else ""
    about = f" ({plan.stack.description})" if plan.stack.description else ""
    return [
        field("job", f"{plan.job.name}{preset}"),
        field("command", " ".join([*plan.job.command, *plan.args])),
        field("stack", f"{plan.stack.name}{about}"),
    ]


def _where(plan: Plan, machine: Machine | None, *, full: bool) -> list[str]:
    if machine is not None:
        where = [field("machine", f"{machine.name} ({machine_kind(machine)}), which is up already")]
    else:
        where = [field("machine", offer_text(plan.candidates[0]))]
    if plan.target_reason:
        where.append(field("why", plan.target_reason))
    others = plan.candidates[1:]
    if others and not full:
        return [
            *where,
            field("else", f"{plural(len(others), 'more offer')} to try when there is no capacity"),
        ]
    where += [
        field("else", f"{offer_text(o)}, {price_text(o.price_per_hour_usd, o.market, o.price_as_of)}")
        for o in others[:SHOWN_FALLBACKS]
    ]
    more = len(others) - SHOWN_FALLBACKS
    return [*where, field("else", f"and {plural(more, 'more offer')}")] if more > 0 else where


def _money(plan: Plan, machine: Machine | None) -> list[str]:
    amount, billed = price(plan, machine)
    first = plan.candidates[0] if plan.candidates else None
    market = machine.market if machine is not None else first.market if first else Market.OWN
    shown = [
        field("price", price_text(amount, market, first.price_as_of if first and machine is None else None))
    ]
    if not billed:
        return shown
    return [*shown, field("at most", _at_most(plan, machine))]


def _at_most(plan: Plan, machine: Machine | None) -> str:
    """The worst case, and what bounds it."""
    if machine is not None:
        return _at_most_there(plan, machine)
    worst = plan.worst_case_usd
    if plan.keep and worst is None:
        return f"no limit (--keep without --budget): {_hourly_text(plan)} until you end it"
    if plan.keep:
        return f"{money(worst)}, the budget, at {_hourly_text(plan)}; then it ends itself"
    limit = f", the budget is {money(plan.budget_usd)}" if plan.budget_usd is not None else ""
    if worst is None:
        return f"no limit: neither --max-hours nor --budget is given{limit}"
    return f"{money(worst)} at the deadline{limit}"


def _at_most_there(plan: Plan, machine: Machine) -> str:
    """The run's share of a machine that is up, which costs on when the run has ended."""
    if plan.worst_case_usd is not None:
        return f"{money(plan.worst_case_usd)} for the run, disk and address included"
    if machine.idle_minutes is not None:
        idle = duration(machine.idle_minutes * 60)
        return f"no limit but the machine's own: it ends itself after {idle} without work"
    return "no limit: neither --max-hours nor --budget is given, and nothing but you ends the machine"


def _hourly_text(plan: Plan) -> str:
    """What the first candidate costs an hour in all."""
    hourly = hourly_usd(plan.candidates[0], plan.disk_gb)
    return UNKNOWN if hourly is None else f"{money(hourly)} an hour with disk and address"


def _hardware(offer: Offer) -> list[str]:
    facts = []
    if offer.gpu_count:
        facts.append(f"{offer.gpu_count} x {offer.gpu} {offer.gpu_memory_gib:g} GiB")
    if offer.vcpus:
        facts.append(f"{offer.vcpus} vCPU")
    if offer.memory_gib:
        facts.append(f"{offer.memory_gib:.3g} GiB")
    return facts


def _ends(plan: Plan, machine: Machine | None, now: datetime) -> list[str]:
    limit = f"after {duration(plan.max_hours * 3600)} at the latest" if plan.max_hours else "when it is done"
    lines = [field("ends", f"the job {limit}")]
    if machine is not None:
        deadline = machine.deadline_at
        end = (
            f"at {clock(deadline, now)} ({until(deadline, now)})"
            if deadline
            else "by its own guard when idle"
        )
        return [*lines, field("", f"the machine stays up, and ends {end}")]
    if plan.keep:
        spent = "its budget is spent or " if plan.budget_usd is not None else ""
        return [*lines, field("", f"the machine stays up until {spent}you end it (--keep)")]
    lines.append(field("", "the machine once the outputs are home"))
    if plan.max_hours:
        lines.append(
            field("", f"and by itself, with nobody watching, {PULL_GRACE_MINUTES:g} min past the limit")
        )
    return lines


def _outputs(plan: Plan, machine: Machine | None) -> list[str]:
    if not plan.outputs_to:
        return []
    lines = [field("outputs", f"home, and from there to {plan.outputs_to}")]
    if price(plan, machine)[1]:  # a rented machine; one's own stays, with all that is on it
        lines.append(field("", "the machine stores them there itself where no client comes for them"))
    return lines


def _bundle(bundle: Bundle, *, full: bool) -> list[str]:
    biggest = sorted(bundle.files, key=lambda file: file.size, reverse=True)[:BIGGEST]
    return [
        field(
            "upload",
            f"{size(bundle.size_bytes)} in {plural(len(bundle.files), 'file')}; what is there already stays",
        ),
        *_listed("biggest", [f"{size(file.size):>8}  {file.path}" for file in biggest if file.size]),
        *_listed("ignored", _ignored(bundle, full=full)),
    ]


def _data(data: DataInput) -> str:
    """`horses:v1 at $CLOUDRUN_DATA_DIR/horses: 3.2 MB in 40 files; what is there already stays`"""
    place = f"{data.source} at $CLOUDRUN_DATA_DIR/{data.mount}"
    if data.url:
        return f"{place}: fetched there from {data.url}"
    return f"{place}: {size(data.size_bytes)} in {plural(data.files, 'file')}; what is there already stays"


def _ignored(bundle: Bundle, *, full: bool) -> list[str]:
    shown = bundle.ignored if full else bundle.ignored[:IGNORED_SHOWN]
    wide = min(max((len(item.path) for item in shown), default=0), 40)
    rows = [f"{item.path:<{wide}}  by {item.rule}" for item in shown]
    left = len(bundle.ignored) - len(shown)
    return [*rows, f"and {left} more (--dry-run lists all)"] if left else rows


def _listed(label: str, rows: Sequence[str]) -> list[str]:
    return [field(label if i == 0 else "", row) for i, row in enumerate(rows)]
