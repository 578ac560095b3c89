"""What a clean-up would take and took, as tables, lines and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudrun.cli import render
from cloudrun.cli.data_look import dataset_shape
from cloudrun.cli.shapes import Shape, money_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import UNKNOWN, money, plain_money, plural, size

if TYPE_CHECKING:
    from cloudrun.cleaning import Cleaned, Cleanup, Going
    from cloudrun.cleaning_datasets import DataCleanup
    from cloudrun.datasets import Dataset

SHOWN = 20  # the largest; --json has all
COLUMNS = (
    Column("RUN", 0),
    Column("JOB", 2, least=8),
    Column("STATE", 3),
    Column("ENDED", 4),
    Column("MACHINE", 5, least=8, optional=True),
    Column("BUCKET", 6, least=12, optional=True),
    Column("WHAT", 7, least=10, optional=True),
    Column("FILES", 8, right=True),
    Column("SIZE", 1, right=True),
    Column("USD/MONTH", 2, right=True, optional=True),
)
DATA_COLUMNS = (
    Column("DATASET", 0),
    Column("ADDED", 3),
    Column("FILES", 5, right=True),
    Column("SIZE", 1, right=True),
    Column("FROM", 4, least=10),
)


def cleanup_shape(cleanup: Cleanup, done: Cleaned | None) -> Shape:
    return {
        "runs": [_run_shape(going) for going in cleanup.runs],
        "code": {"files": len(cleanup.code), "size_bytes": sum(count for _, count in cleanup.code)},
        "size_bytes": cleanup.size_bytes,
        "saves_per_month_usd": money_shape(cleanup.saves_per_month_usd),
        "kept": {
            "active": cleanup.active,
            "pinned": cleanup.pinned,
            "last_or_best": cleanup.ranked,
            "resumable": cleanup.resumable,
        },
        "only_copies": cleanup.only_copies,
        "remarks": list(cleanup.remarks),
        "cleaned": done
        and {"runs": done.runs, "code": done.code, "size_bytes": done.size_bytes, "skipped": done.skipped},
    }


def data_cleanup_shape(cleanup: DataCleanup, done: tuple[int, int] | None) -> Shape:
    return {
        "datasets": [dataset_shape(each) for each in cleanup.datasets],
        "size_bytes": cleanup.size_bytes,
        "kept": {"used": cleanup.used, "in_buckets": cleanup.stored},
        "cleaned": done and {"datasets": done[0], "size_bytes": done[1]},
    }


def show(cleanup: Cleanup) -> None:
    """What would go, and what stays for which reason."""
    buckets = {going.bucket for going in cleanup.runs}
    if cleanup.runs:
        render.table(COLUMNS, [_row(going, len(buckets) > 1) for going in cleanup.runs[:SHOWN]])
    rest = cleanup.runs[SHOWN:]
    if rest:
        more = sum(going.size_bytes for going in rest)
        render.say(f"... and {plural(len(rest), 'smaller one')} with {size(more)}; --json lists all")
    code = sum(count for _, count in cleanup.code)
    if cleanup.code:
        render.say(f"code that no run needs any more: {plural(len(cleanup.code), 'file')}, {size(code)}")
    if cleanup.runs or cleanup.code:
        render.say(
            f"{plural(len(cleanup.runs), 'run')}, {size(cleanup.size_bytes)} would go{_saved(cleanup)}"
        )
    else:
        render.say("there is nothing to clean")
    for remark in cleanup.remarks:
        render.say(remark)
    if cleanup.only_copies:
        render.say(f"the outputs of {plural(cleanup.only_copies, 'run')} are nowhere but there")
    reasons = _reasons(cleanup)
    if reasons:
        render.say(f"stays: {', '.join(reasons)}")


def show_data(cleanup: DataCleanup) -> None:
    """The same of datasets."""
    if cleanup.datasets:
        render.table(DATA_COLUMNS, [_data_row(each) for each in cleanup.datasets[:SHOWN]])
    rest = cleanup.datasets[SHOWN:]
    if rest:
        render.say(f"... and {plural(len(rest), 'smaller one')}; --json lists all")
    if cleanup.datasets or cleanup.size_bytes:
        render.say(f"{plural(len(cleanup.datasets), 'version')}, {size(cleanup.size_bytes)} would go")
    else:
        render.say("there is nothing to clean")
    if cleanup.used:
        render.say(f"stays: {plural(cleanup.used, 'version')} that runs were given")
    if cleanup.stored:
        held = plural(cleanup.stored, "version")
        render.say(f"stays: {held} that buckets hold, too; for good with: cloudrun data delete NAME:VERSION")


def _run_shape(going: Going) -> Shape:
    return {
        "id": going.run.id,
        "job": going.run.job,
        "project": going.run.project,
        "state": going.run.state,
        "ended_at": going.run.ended_at,
        "machine": going.machine,
        "bucket": going.bucket,
        "paths": list(going.paths),
        "files": going.files,
        "size_bytes": going.size_bytes,
        "saves_per_month_usd": money_shape(going.saves_per_month_usd),
    }


def _row(going: Going, name_bucket: bool) -> tuple[str, ...]:
    what = "" if going.machine or going.paths == ("",) else ", ".join(going.paths)
    saved = UNKNOWN if going.saves_per_month_usd is None else plain_money(going.saves_per_month_usd)
    return (
        going.run.id,
        going.run.job,
        going.run.state,
        going.run.since[:10],
        going.machine,
        going.bucket if name_bucket else "",
        what,
        f"{going.files:,}",
        size(going.size_bytes),
        saved if going.bucket else "",
    )


def _data_row(each: Dataset) -> tuple[str, ...]:
    return (
        each.label,
        each.added_at.strftime("%Y-%m-%d"),
        "" if each.url else f"{each.files:,}",
        "" if each.url else size(each.size_bytes),
        each.source,
    )


def _saved(cleanup: Cleanup) -> str:
    """`: 0.23 USD a month less`"""
    if all(going.saves_per_month_usd == 0 for going in cleanup.runs):
        return ""
    saved = cleanup.saves_per_month_usd
    return ": what it costs is unknown" if saved is None else f": {money(saved)} a month less"


def _reasons(cleanup: Cleanup) -> list[str]:
    """`2 active runs, 1 pinned run, the checkpoints of 3 unfinished runs`"""
    counted = ((cleanup.active, "active"), (cleanup.pinned, "pinned"), (cleanup.ranked, "last or best"))
    found = [plural(count, f"{word} run") for count, word in counted if count]
    if cleanup.resumable:
        found.append(f"the checkpoints of {plural(cleanup.resumable, 'unfinished run')}")
    return found
