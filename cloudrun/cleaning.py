"""Clean-up of what runs left at home: what would go, and its way into the trash.

`plan_cleanup` chooses by one query over the store and one walk over the folders that it chose; it changes
nothing. `clean` moves what was chosen, run by run, each by one rename under the run's own lock, and looks
at the store again under that lock. So it may be killed at any point and run again. Three things
never go, whatever is asked for: anything of a run that goes on, anything of a pinned run, and the checkpoint
with which a run that ended too early can be restarted, with its record and code.

What goes are files. A run's line in the store, its metric and its cost stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from cloudrun.codestore import CodeStore
from cloudrun.config import Settings
from cloudrun.errors import NotFound, UsageError
from cloudrun.locks import holding
from cloudrun.models import RunState
from cloudrun.runfiles import RunFiles
from cloudrun.store_clean import RunIndex, RunRow
from cloudrun.store_rows import time_text
from cloudrun.trash import Batch, Trash, measure
from cloudrun.words import nearest

UNFINISHED = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.LOST})  # `restart` can go on with them
LOCKED_AT_ONCE = 100  # each is an open file; a process may have 256 on macOS
PIN = "pinned"  # an empty file in the run's folder: it outlives the store
# RunFiles' names as plain text: the loops over all runs have no time for Path objects.
LOCK, OUTPUTS, CHECKPOINT, MANIFEST = "lock", "outputs", "outputs/checkpoint", "bundle.json"

OnBytes = Callable[[int, int], None]


class Part(StrEnum):
    """A part of what a run left, to clean away that alone."""

    CHECKPOINTS = "checkpoints"
    OUTPUTS = "outputs"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs to clean, and what of them. Empty: all of every run that has ended.

    keep_last and keep_best hold back, of each job, the newest runs and the best one, out of those that
    job, project, states and older_than choose.
    """

    project: str = ""
    job: str = ""
    states: frozenset[RunState] = frozenset()
    older_than: timedelta | None = None
    keep_last: int = 0
    keep_best: str = ""  # a metric's name
    larger_than_bytes: int = 0
    only: Part | None = None


@dataclass(frozen=True, slots=True)
class Going:
    """One run's share: paths below its folder ("" is all of it), and how much that is.

    On a machine (its name) the paths are the attempts that left something there, by their names on it. In a
    bucket (its address) they are files and folders below the run's, and `keys` all objects.
    """

    run: RunRow
    paths: tuple[str, ...]
    size_bytes: int
    files: int
    machine: str = ""
    bucket: str = ""
    keys: tuple[str, ...] = ()
    saves_per_month_usd: Decimal | None = Decimal(0)  # None = unknown


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What would go, the largest first, and how many runs stay for which reason."""

    choice: Choice
    runs: tuple[Going, ...]
    code: tuple[tuple[str, int], ...] = ()  # hash and bytes of kept code that no run will need
    active: int = 0
    pinned: int = 0
    ranked: int = 0  # by keep_last and keep_best
    resumable: int = 0  # with a checkpoint that stays
    only_copies: int = 0  # going from elsewhere, and nothing of their outputs is at home
    remarks: tuple[str, ...] = ()  # on what is saved

    @property
    def size_bytes(self) -> int:
        return sum(going.size_bytes for going in self.runs) + sum(size for _, size in self.code)

    @property
    def saves_per_month_usd(self) -> Decimal | None:
        """What this costs a month where it lies; None where a part of that is unknown."""
        known = [going.saves_per_month_usd for going in self.runs]
        return None if None in known else sum((each for each in known if each is not None), Decimal(0))


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which runs a choice takes, newest first, and how many it does not for which reason."""

    runs: tuple[RunRow, ...]
    ended: tuple[RunRow, ...]  # before keep_last, keep_best and pins held some back
    active: int
    pinned: int
    ranked: int


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What went; `skipped` are runs that changed, were pinned, or were in use meanwhile."""

    runs: int = 0
    size_bytes: int = 0
    code: int = 0
    skipped: int = 0


def plan_cleanup(settings: Settings, choice: Choice, *, now: datetime) -> Cleanup:
    """What a clean-up would take. Changes nothing. Raises UsageError for a metric that nothing reports."""
    base = os.fspath(settings.runs_dir)
    there = names_in(base)  # before the query: a run that is recorded between is then seen as one
    with RunIndex(settings.store_path) as index:
        known = index.rows()
    chosen = choose(settings, [row for row in known if row.id in there], choice, now=now)
    found = [_look(base, row, choice.only) for row in chosen.runs]
    going = [each for each in found if each.paths and is_large(each, choice)]
    code: Sequence[tuple[str, int]] = ()
    if choice.only in (None, Part.CODE):
        leaving = {each.run.id for each in going if each.paths in (("",), (MANIFEST,))}
        code = CodeStore(settings).unneeded(known, leaving=leaving)
    return Cleanup(
        choice,
        tuple(sorted(going, key=lambda each: -each.size_bytes)),
        tuple(code),
        active=chosen.active,
        pinned=chosen.pinned,
        ranked=chosen.ranked,
        resumable=sum(_resumable(base, row) for row in chosen.ended),
    )


def choose(settings: Settings, rows: Iterable[RunRow], choice: Choice, *, now: datetime) -> Chosen:
    """Which of these runs, newest first, a clean-up may take something of. Raises UsageError for a metric
    that nothing reports."""
    base = os.fspath(settings.runs_dir)
    named = [row for row in rows if _named(row, choice)]
    ended = [row for row in named if row.final and _timely(row, choice, now)]
    kept = _newest(ended, choice.keep_last) | _best(ended, choice.keep_best)
    pinned = {row.id for row in ended if _pinned(base, row.id)}
    return Chosen(
        runs=tuple(row for row in ended if row.id not in kept and row.id not in pinned),
        ended=tuple(ended),
        active=sum(not row.final for row in named),
        pinned=len(pinned),
        ranked=len(kept),
    )


def cleanup_elsewhere(
    settings: Settings, choice: Choice, chosen: Chosen, going: Iterable[Going], remarks: Iterable[str]
) -> Cleanup:
    """What would go from machines or buckets, where an unfinished run's checkpoint stays in any case."""
    runs = tuple(sorted(going, key=lambda each: -each.size_bytes))
    last = {each.run.id for each in runs if not has_outputs(settings, each.run.id)}
    return Cleanup(
        choice,
        runs,
        active=chosen.active,
        pinned=chosen.pinned,
        ranked=chosen.ranked,
        resumable=sum(map(can_resume, chosen.ended)),
        only_copies=0 if choice.only is Part.CODE else len(last),
        remarks=tuple(remarks),
    )


def clean(settings: Settings, cleanup: Cleanup, *, now: datetime, on_bytes: OnBytes) -> Cleaned:
    """Move it into the trash (blocking; renames only). What changed since it was planned stays. Killed,
    it has moved some of it and lost none; plan and clean again for the rest. Raises Refused while
    another clean-up is at work."""
    trash, total = Trash(settings.home), cleanup.size_bytes
    with trash.working(), RunIndex(settings.store_path) as index:
        batch = trash.begin(now)
        runs = size = 0
        for first in range(0, len(cleanup.runs), LOCKED_AT_ONCE):
            some = cleanup.runs[first : first + LOCKED_AT_ONCE]
            moved = _move(settings.runs_dir, index, some, batch)
            runs += len(moved)
            size += sum(going.size_bytes for going in moved)
            on_bytes(size, total)
        code, code_bytes = CodeStore(settings).sweep(cleanup.code, index, batch)
    size += code_bytes
    on_bytes(size, size)
    return Cleaned(runs, size, code, len(cleanup.runs) - runs)


def can_resume(row: RunRow) -> bool:
    """Whether it ended before its time, and goes on from a checkpoint where there is one."""
    return bool(row.resume) and row.state in UNFINISHED


def is_pinned(settings: Settings, run_id: str) -> bool:
    """Whether no clean-up takes anything of the run."""
    return _pinned(os.fspath(settings.runs_dir), run_id)


def has_outputs(settings: Settings, run_id: str) -> bool:
    """Whether anything of the run's outputs is at home."""
    return bool(names_in(f"{os.fspath(settings.runs_dir)}/{run_id}/{OUTPUTS}"))


def pin(settings: Settings, run_id: str, *, pinned: bool) -> None:
    """Keep all of a run from every clean-up, or no longer. Idempotent. Raises NotFound for a run of which
    nothing is at home any more."""
    file = RunFiles(settings, run_id).folder / PIN
    if not pinned:
        file.unlink(missing_ok=True)
        return
    try:
        file.touch()
    except FileNotFoundError as error:
        raise NotFound(f"nothing of {run_id} is at home any more", hint="cloudrun clean --undo") from error


def _pinned(base: str, run_id: str) -> bool:
    return os.path.lexists(f"{base}/{run_id}/{PIN}")


def names_in(base: str) -> set[str]:
    """What a folder holds, by name; nothing where it is not there."""
    try:
        return {*os.listdir(base)}  # noqa: PTH208  # a hundred thousand names
    except FileNotFoundError:
        return set()


def _named(row: RunRow, choice: Choice) -> bool:
    if choice.project and row.project != choice.project:
        return False
    return not choice.job or row.job == choice.job


def _timely(row: RunRow, choice: Choice, now: datetime) -> bool:
    if choice.states and row.state not in choice.states:
        return False
    return choice.older_than is None or row.since < time_text(now - choice.older_than)


def is_large(going: Going, choice: Choice) -> bool:
    """Whether more would go than the choice wants at least."""
    return not choice.larger_than_bytes or going.size_bytes > choice.larger_than_bytes


def _newest(rows: Iterable[RunRow], count: int) -> set[str]:
    """The newest of each job; the rows come newest first."""
    seen: dict[tuple[str, str], int] = {}
    kept = set()
    for row in rows:
        of_job = row.project, row.job
        seen[of_job] = seen.get(of_job, 0) + 1
        if seen[of_job] <= count:
            kept.add(row.id)
    return kept


def _best(rows: Sequence[RunRow], metric: str) -> set[str]:
    """The best of each job that reports the metric, by its direction; of equals the newest."""
    if not metric or not rows:
        return set()
    best: dict[tuple[str, str], RunRow] = {}
    for row in rows:
        if row.metric_name != metric or row.metric_value is None:
            continue
        held = best.setdefault((row.project, row.job), row)
        if _better(row, held):
            best[row.project, row.job] = row
    if not best:
        reported = sorted({row.metric_name for row in rows if row.metric_name})
        raise UsageError(
            f"none of these runs has a value of {metric!r}, so no best one is known",
            hint=nearest(metric, reported) or "they report no metric: leave --keep-best out",
        )
    return {row.id for row in best.values()}


def _better(one: RunRow, other: RunRow) -> bool:
    if one.metric_value is None or other.metric_value is None:
        return False
    if one.metric_direction == "min":
        return one.metric_value < other.metric_value
    return one.metric_value > other.metric_value


def _look(base: str, row: RunRow, only: Part | None) -> Going:
    """What of the run goes, measured."""
    folder = f"{base}/{row.id}"
    paths = _paths(base, row, only)
    size = files = 0
    for path in paths:
        more, many = measure(f"{folder}/{path}".removesuffix("/"))
        size, files = size + more, files + many
    if files <= 1 and paths == [""] and os.listdir(folder) in ([], [LOCK]):  # noqa: PTH208
        return Going(row, (), 0, 0)  # the empty shell of a run that was cleaned before
    return Going(row, tuple(paths), size, files)


def _paths(base: str, row: RunRow, only: Part | None) -> list[str]:
    folder = f"{base}/{row.id}"
    if _resumable(base, row):
        if only in (None, Part.OUTPUTS):
            names = os.listdir(f"{folder}/{OUTPUTS}")  # noqa: PTH208
            return [path for name in sorted(names) if (path := f"{OUTPUTS}/{name}") != CHECKPOINT]
        return []
    if only is None:
        return [""]
    path = {Part.CHECKPOINTS: CHECKPOINT, Part.OUTPUTS: OUTPUTS, Part.CODE: MANIFEST}[only]
    return [path] if os.path.lexists(f"{folder}/{path}") else []


def _resumable(base: str, row: RunRow) -> bool:
    """Whether it ended before its time and can go on from a checkpoint that is at home."""
    if not can_resume(row):
        return False
    checkpoint = f"{base}/{row.id}/{CHECKPOINT}"
    try:
        return bool(os.listdir(checkpoint))  # noqa: PTH208
    except FileNotFoundError:
        return False
    except OSError:  # no folder, or one that cannot be read: not ours to judge
        return True


def _move(runs_dir: Path, index: RunIndex, some: Sequence[Going], batch: Batch) -> list[Going]:
    """Take these into the trash, but for those that are walked, pinned or changed by now."""
    base = os.fspath(runs_dir)
    with ExitStack() as held:
        ours = [each for each in some if held.enter_context(holding(runs_dir / each.run.id / LOCK))]
        same = index.unchanged([each.run for each in ours])
        moved = []
        for each in ours:
            run_id = each.run.id
            if run_id not in same or _pinned(base, run_id):
                continue
            if [batch.take(f"runs/{run_id}/{path}".removesuffix("/")) for path in each.paths].count(True):
                moved.append(each)
    return moved
