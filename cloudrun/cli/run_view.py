"""Runs as people read them: the table of status, one run in detail, and how a run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

from cloudrun.cli.plan_view import field
from cloudrun.cli.table import Column
from cloudrun.cli.text import (
    age,
    clock,
    duration,
    home_relative,
    money,
    number,
    plain_money,
    plural,
    short_age,
    short_duration,
    size,
    until,
    visible,
)
from cloudrun.cli.watch import stage_line
from cloudrun.models import Attempt, BundleFile, Machine, MachineState, Run, RunState, Stage

UP = (MachineState.PENDING, MachineState.RUNNING, MachineState.HALTED)  # all of them are billed
RUN_COLUMNS = (
    Column("RUN", 0),
    Column("JOB", 2, least=9),
    Column("PRESET", 8, least=6, optional=True),
    Column("MACHINE", 5, least=8, optional=True),
    Column("STATE", 1),
    Column("STAGE", 6, optional=True),
    Column("METRIC", 3, optional=True, right=True),
    Column("AGE", 4, right=True),
    Column("TOOK", 9, right=True),
    Column("COST", 7, optional=True, right=True),
)
METRIC_WORDS = {"val_acc": "validation accuracy", "val_loss": "validation loss", "test_acc": "test accuracy"}
NO_LOCK: Mapping[str, str] = MappingProxyType({})
OF_THE_GPU = ("driver", "cuda", "gpu", "gpu_count", "gpu_memory_mib")
UNTOLD = ("cpu_count", "memory_bytes", "disk_free_bytes", "stack-hash")
PICTURES = ("curves.png", "curves.svg")
LABEL = 11


def run_row(run: Run, now: datetime) -> tuple[str, ...]:
    return (
        run.id,
        run.job,
        run.preset,
        run.machine,
        run.state.value,
        "" if run.state.final else run.stage.value,
        "" if run.metric_value is None else number(run.metric_value),
        short_age((now - run.submitted_at).total_seconds()),
        short_duration(_took(run, now).total_seconds()),
        "" if run.cost_usd is None else plain_money(run.cost_usd),
    )


def spent_text(today_usd: Decimal, month_usd: Decimal) -> str:
    """`; spent 1.20 USD today, 14.02 USD this month`; nothing where the month has cost nothing."""
    return f"; spent {money(today_usd)} today, {money(month_usd)} this month" if month_usd else ""


def kept_text(count: int, per_hour_usd: Decimal | None) -> str:
    """`; 2 images kept, 0.0041 USD an hour`; nothing where there is none."""
    return f"; {plural(count, 'image')} kept, {money(per_hour_usd)} an hour" if count else ""


def machines_line(machines: Sequence[Machine], now: datetime) -> str:
    """`2 machines up, 0.90 USD an hour; p2 ends at 21:15 (in 3 h); bench ends after 30 idle minutes`"""
    up = [machine for machine in machines if machine.state in UP]
    off = sum(machine.state is MachineState.STOPPED for machine in machines)
    if not up:
        return "no machine is up" + (f"; {plural(off, 'machine')} stopped" if off else "")
    prices = [machine.price_per_hour_usd for machine in up]
    known = sum((p for p in prices if p is not None), Decimal(0))
    unknown = " and an unknown price" if None in prices else ""
    ends = sorted(up, key=lambda machine: (machine.deadline_at is None, machine.deadline_at))
    parts = [f"{machine.name} {_end(machine, now)}" for machine in ends[:3]]
    parts += [f"and {len(ends) - 3} more"] if len(ends) > 3 else []  # as shown above
    return visible(f"{plural(len(up), 'machine')} up, {money(known)}{unknown} an hour; " + "; ".join(parts))


def detail_lines(
    run: Run,
    attempts: Sequence[Attempt],
    stages: Sequence[tuple[int, Stage, datetime, float]],
    outputs: Path,
    now: datetime,
    *,
    lock: Mapping[str, str] = NO_LOCK,
) -> list[str]:
    """One run with everything that is known of it. lock: what its machine held."""
    facts = [
        field("run", f"{run.id}, job {run.job}" + (f", preset {run.preset}" if run.preset else "")),
        field("state", _state(run)),
        field("message", run.message),
        field("command", " ".join(run.command)),
        field("machine", run.machine),
        field("stack", run.stack),
        *_lock_fields(lock),
        field("project", run.project),
        field("submitted", f"{clock(run.submitted_at, now)} ({age(run.submitted_at, now)})"),
        field("took", duration(_took(run, now).total_seconds())),
        field("metric", _metric(run)),
        field("outputs", _outputs(run, outputs)),
        field(
            "cost", money(run.cost_usd) if run.cost_usd is not None or run.state.final else "not yet known"
        ),
    ]
    return [line for line in facts if line[LABEL:].strip()] + ["", *_stage_lines(run, attempts, stages)]


def ending_lines(
    run: Run, files: Sequence[BundleFile], outputs: Path, *, job: str, now: datetime
) -> list[str]:
    """What `submit` ends with: the result, where it lies, what it cost, and what to do next."""
    picture = next((file.path for file in files if Path(file.path).name in PICTURES), "")
    lines = [""]
    if run.metric_value is not None:
        lines.append(_wide(METRIC_WORDS.get(run.metric_name, run.metric_name), number(run.metric_value)))
    total = sum(file.size for file in files)
    lines.append(
        _wide("outputs", f"{home_relative(str(outputs))} ({plural(len(files), 'file')}, {size(total)})")
    )
    if picture:
        lines.append(_wide("curves", home_relative(str(outputs / picture))))
    lines.append(
        _wide(
            "cost", f"{money(run.cost_usd)} for {duration(_took(run, now).total_seconds())} on {run.machine}"
        )
    )
    return [*lines, "", "next:", *(f"  {command}" for command in _next(run, job))]


def _next(run: Run, job: str) -> list[str]:
    if run.state is RunState.SUCCEEDED:
        return [
            f"cloudrun outputs open {run.id}",
            f"cloudrun status {run.id}",
            f"cloudrun submit {job} --spot p2.xlarge --dry-run",
        ]
    return [f"cloudrun logs {run.id}", f"cloudrun restart {run.id}", f"cloudrun clone {run.id}"]


def _wide(label: str, text: str) -> str:
    return f"{visible(label):<21}{visible(text)}"


def _state(run: Run) -> str:
    if not run.state.final:
        return f"{run.state.value}, in stage {run.stage.value}" + (
            ", to be cancelled" if run.cancel_requested else ""
        )
    return run.state.value + (f" (exit code {run.exit_code})" if run.exit_code is not None else "")


def _metric(run: Run) -> str:
    if run.metric_value is None:
        return ""
    best = "higher" if run.metric_direction == "max" else "lower"
    return f"{run.metric_name} {number(run.metric_value)} ({best} is better)"


def _outputs(run: Run, outputs: Path) -> str:
    if not outputs.is_dir():
        return ""
    return home_relative(str(outputs)) + (f" ({size(run.outputs_bytes)})" if run.outputs_bytes else "")


def _took(run: Run, now: datetime) -> timedelta:
    return (run.ended_at or now) - run.submitted_at


def _end(machine: Machine, now: datetime) -> str:
    if machine.deadline_at is None and machine.idle_minutes is not None:
        return f"ends after {machine.idle_minutes:g} idle minutes"
    if machine.deadline_at is None:
        return "has no guard: only you end it"
    return f"ends at {clock(machine.deadline_at, now)} ({until(machine.deadline_at, now)})"


def _lock_fields(lock: Mapping[str, str]) -> list[str]:
    """GPU and driver, then Python and frameworks, then packages; the rest says nothing of the software."""
    packages = {name.removeprefix("apt:"): value for name, value in lock.items() if name.startswith("apt:")}
    rest = [name for name in lock if not name.startswith("apt:") and name not in (*OF_THE_GPU, *UNTOLD)]
    gpu = f"{lock.get('gpu_count')} x {lock['gpu']}, " if lock.get("gpu") else ""
    driver = _listed({name: lock[name] for name in OF_THE_GPU[:2] if lock.get(name)})
    return [
        field("gpu", f"{gpu}{driver}"),
        field("versions", _listed({name: lock[name] for name in rest if lock[name]})),
        field("packages", _listed(packages)),
    ]


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _stage_lines(
    run: Run, attempts: Sequence[Attempt], stages: Sequence[tuple[int, Stage, datetime, float]]
) -> list[str]:
    lines = []
    outcomes = {attempt.number: attempt for attempt in attempts}
    for number_ in sorted({item[0] for item in stages}):
        attempt = outcomes.get(number_)
        if attempt is not None and len(attempts) > 1:
            lines.append(_attempt_line(attempt))
        lines += [stage_line(stage, seconds) for n, stage, _at, seconds in stages if n == number_]
    return lines if run.state.final else [*lines, f"   {run.stage.value} ..."]


def _attempt_line(attempt: Attempt) -> str:
    outcome = attempt.outcome.value if attempt.outcome else "going on"
    why = f": {attempt.message}" if attempt.message else ""
    return visible(f"   attempt {attempt.number} on {attempt.machine or attempt.offer.type}, {outcome}{why}")
