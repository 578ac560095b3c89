"""Clean-up of what ended runs stored in buckets: the choice is that of home, and it is for good.

A listing of folders tells which runs are there, a listing of the chosen ones what of them goes. A manifest
goes before what it names, or is written anew without that: killed at any point, what a manifest names is
whole, and planning and cleaning again deletes the rest. What never goes is what never goes at home; the
checkpoint of a run that ended too early stays in its bucket whatever there is of it at home, since the
bucket's may be the newer one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from cloudrun import bucket_outputs
from cloudrun.bucket import open_bucket, parse_place
from cloudrun.catalog import storage_rule
from cloudrun.cleaning import (
    Choice,
    Cleaned,
    Cleanup,
    Going,
    Part,
    can_resume,
    choose,
    cleanup_elsewhere,
    is_large,
    is_pinned,
    names_in,
)
from cloudrun.config import Settings
from cloudrun.errors import CloudrunError, Refused, UsageError
from cloudrun.events import Note, OnEvent, Progress
from cloudrun.providers.base import Bucket, StoredObject
from cloudrun.runfiles import RunFiles
from cloudrun.store_clean import RunIndex, RunRow

THREADS = 8
FEW = 8  # so many runs are listed one by one; more of them, if they are
PART_OF_ALL = 4  # ... at most one in so many that are there; else one listing tells all
CHECKED_AT_ONCE = 100  # runs, right before their objects go
CALLS_AT_ONCE = 20  # of the service, between two reports of how far it is
BYTES_PER_GB = 2**30  # as both services bill storage
PROVIDERS = {"s3": "aws", "az": "azure"}  # by the kind of a place
CHECKPOINT, MANIFEST = "checkpoint/", bucket_outputs.MANIFEST

Item = TypeVar("Item")
Result = TypeVar("Result")
Goes = Callable[[str], bool]  # whether an output of that path goes


@dataclass(frozen=True, slots=True)
class Stored:
    """A bucket, and the runs that have something there."""

    address: str
    bucket: Bucket
    runs: frozenset[str]


def places(settings: Settings) -> list[str]:
    """The addresses of all buckets that the settings name, or runs that stored there, cleaned away at home or
    not."""
    runs = names_in(os.fspath(settings.runs_dir)) | names_in(os.fspath(settings.buckets_dir))
    found = {settings.outputs} | {RunFiles(settings, run_id).outputs_place() for run_id in runs}
    addresses = set()
    for address in found - {""}:
        with suppress(Refused):
            addresses.add(parse_place(address).url)
    return sorted(addresses)


def provider_of(address: str) -> str:
    """Whose bucket that is, by the provider's name."""
    return PROVIDERS[parse_place(address).kind]


def price_per_month_usd(address: str, size_bytes: int) -> Decimal | None:
    """What so much costs there a month, by the catalogue; None where that has no price."""
    rule = storage_rule(provider_of(address))
    if rule is None or rule.price_usd is None:
        return None
    return rule.price_usd * size_bytes / BYTES_PER_GB


def plan_cleanup(
    settings: Settings, choice: Choice, *, address: str = "", now: datetime, on_event: OnEvent
) -> Cleanup:
    """What would go from that bucket; without an address from all of `places`. Changes nothing. One that does
    not answer is named in a note; one that was asked for by its address raises what it says."""
    if choice.only is Part.CODE:
        raise UsageError("buckets hold outputs and no code", hint="leave --only code out, or --in")
    with RunIndex(settings.store_path) as index:
        known = index.rows()
    addresses = [address] if address else places(settings)
    strict = bool(address)
    opened = _each(addresses, str, lambda one: open_stored(settings, one), strict=strict, on_event=on_event)
    anywhere = {run for place in opened for run in place.runs}
    chosen = choose(settings, [row for row in known if row.id in anywhere], choice, now=now)

    def look(place: Stored) -> list[Going]:
        rows = [row for row in chosen.runs if row.id in place.runs]
        return _look(place, rows, choice, strict=strict, on_event=on_event)

    found = _each(opened, _address, look, strict=strict, on_event=on_event)
    going = [each for of_one in found for each in of_one if is_large(each, choice)]
    remarks = sorted({_remark(each.bucket) for each in going} - {""})
    return cleanup_elsewhere(settings, choice, chosen, going, remarks)


def clean(settings: Settings, cleanup: Cleanup, *, on_event: OnEvent) -> Cleaned:
    """Delete it (blocking), in as few calls as the service has. What changed since it was planned stays.
    Raises what a bucket says; where there are several, that is a note."""
    by_bucket: dict[str, list[Going]] = {}
    for each in cleanup.runs:
        by_bucket.setdefault(each.bucket, []).append(each)
    gone: list[Going] = []
    objects, deleted = sum(each.files for each in cleanup.runs), 0

    def sweep(address: str) -> None:
        nonlocal deleted
        bucket = open_bucket(address, settings)
        for count, some in _sweep(settings, bucket, by_bucket[address], cleanup.choice):
            gone.extend(some)
            _forget_places(settings, some)
            deleted += count  # objects: their bytes are told as if all were of one size
            on_event(Progress("clean", cleanup.size_bytes * deleted // objects, cleanup.size_bytes))

    _each([*by_bucket], str, sweep, strict=len(by_bucket) == 1, on_event=on_event)
    size = sum(each.size_bytes for each in gone)
    return Cleaned(len(gone), size, skipped=len(cleanup.runs) - len(gone))


def _forget_places(settings: Settings, gone: Sequence[Going]) -> None:
    """Of runs of which nothing is left there: what a run keeps of its bucket when it was cleaned at home."""
    for each in gone:
        files = RunFiles(settings, each.run.id)
        if each.paths == ("",) and files.outputs_place() == each.bucket:
            files.place.unlink(missing_ok=True)


def _each(
    items: Sequence[Item],
    name: Callable[[Item], str],
    work: Callable[[Item], Result],
    *,
    strict: bool,
    on_event: OnEvent,
) -> list[Result]:
    """What comes of each. One that fails is left out with a note; strict: it raises."""
    done = []
    for item in items:
        try:
            done.append(work(item))
        except CloudrunError as error:
            if strict:
                raise
            on_event(Note(f"{name(item)} was left out: {error.message}"))
    return done


def open_stored(settings: Settings, address: str) -> Stored:
    """The bucket at an address, asked for its folders (blocking). Raises as base.Bucket does."""
    bucket = open_bucket(address, settings)
    return Stored(bucket.url, bucket, frozenset(bucket.folders()))


def _address(place: Stored) -> str:
    return place.address


def _look(
    place: Stored, rows: Sequence[RunRow], choice: Choice, *, strict: bool, on_event: OnEvent
) -> list[Going]:
    """What goes of these runs, measured."""
    objects = listed(place, {row.id for row in rows})
    found = _each(
        rows,
        lambda row: f"{place.address}/{row.id}",
        lambda row: _going(place, row, objects.get(row.id, []), choice),
        strict=strict,
        on_event=on_event,
    )
    return [each for each in found if each.keys]


def listed(place: Stored, runs: set[str]) -> dict[str, list[StoredObject]]:
    """The objects of these runs (blocking), in as few calls as can be told beforehand."""
    if len(runs) <= max(FEW, len(place.runs) // PART_OF_ALL):
        order = sorted(runs)
        with ThreadPoolExecutor(THREADS) as pool:
            lists = pool.map(lambda run: [*place.bucket.list(f"{run}/")], order)
            return dict(zip(order, lists, strict=True))
    found: dict[str, list[StoredObject]] = {}
    for each in place.bucket.list():
        run = each.key.partition("/")[0]
        if run in runs:
            found.setdefault(run, []).append(each)
    return found


def _going(place: Stored, row: RunRow, objects: Sequence[StoredObject], choice: Choice) -> Going:
    """What of a run's objects goes, its manifest first."""
    goes = _partly(row, choice.only)
    wanted = objects if goes is None else [*_of_outputs(place, row, objects, goes)]
    size = sum(each.size for each in wanted)
    keys = sorted((each.key for each in wanted), key=lambda key: (key != f"{row.id}/{MANIFEST}", key))
    tops = {key.removeprefix(f"{row.id}/").partition("/")[0] for key in keys}
    return Going(
        row,
        ("",) if goes is None else tuple(sorted(tops)),
        size,
        len(keys),
        bucket=place.address,
        keys=tuple(keys),
        saves_per_month_usd=price_per_month_usd(place.address, size),
    )


def _partly(row: RunRow, only: Part | None) -> Goes | None:
    """Which outputs of the run go; None for all there is of it."""
    if only is Part.CHECKPOINTS:
        return lambda path: path.startswith(CHECKPOINT) and not can_resume(row)
    if can_resume(row):
        return lambda path: not path.startswith(CHECKPOINT)
    return None


def _of_outputs(
    place: Stored, row: RunRow, objects: Sequence[StoredObject], goes: Goes
) -> Iterator[StoredObject]:
    """The objects of the outputs that go. What has no path of an output, as the manifest, stays."""
    own = f"{row.id}/{bucket_outputs.OWN}/"
    known: dict[str, str] = {}
    if any(each.key.startswith(own) and not each.key.endswith(MANIFEST) for each in objects):
        outputs = bucket_outputs.read_manifest(place.bucket, row.id)
        known = {bucket_outputs.key_of(row.id, path): path for path in outputs}
    for each in objects:
        path = known.get(each.key, "" if each.key.startswith(own) else each.key.removeprefix(f"{row.id}/"))
        if path and goes(path):
            yield each


def _sweep(
    settings: Settings, bucket: Bucket, runs: Sequence[Going], choice: Choice
) -> Iterator[tuple[int, list[Going]]]:
    """Delete in full calls; what fills none waits for the next runs. Tells after each round how many objects
    went, and of which runs the last."""
    waiting: list[str] = []
    begun: list[Going] = []
    for first in range(0, len(runs), CHECKED_AT_ONCE):
        some = _still(settings, runs[first : first + CHECKED_AT_ONCE])
        for each in some:
            goes = _partly(each.run, choice.only)
            if goes is not None:
                bucket_outputs.forget(bucket, each.run.id, goes)
        begun += some
        head = len(waiting) + len(some)  # what is left of the runs before, and each run's manifest
        waiting += [each.keys[0] for each in some] + [key for each in some for key in each.keys[1:]]
        is_last = first + CHECKED_AT_ONCE >= len(runs)
        full = len(waiting) if is_last else len(waiting) - len(waiting) % bucket.delete_at_once
        for count in _delete(bucket, waiting[:full], head):
            yield count, []
        waiting = waiting[full:]
        left = {key.partition("/")[0] for key in waiting}
        yield 0, [each for each in begun if each.run.id not in left]
        begun = [each for each in begun if each.run.id in left]


def _still(settings: Settings, some: Sequence[Going]) -> list[Going]:
    """Those that nobody walked, pinned or changed meanwhile."""
    with RunIndex(settings.store_path) as index:
        same = index.unchanged([each.run for each in some])
    return [
        each
        for each in some
        if each.run.id in same
        and not is_pinned(settings, each.run.id)
        and not (RunFiles(settings, each.run.id).folder.is_dir() and RunFiles(settings, each.run.id).walked())
    ]


def _delete(bucket: Bucket, keys: Sequence[str], head: int) -> Iterator[int]:
    """Delete the first of them before the others, all in full calls; how many at a time."""
    at, step = 0, -(-head // bucket.delete_at_once) * bucket.delete_at_once
    while at < len(keys):
        some = keys[at : at + step]
        bucket.delete(some)
        yield len(some)
        at, step = at + step, CALLS_AT_ONCE * bucket.delete_at_once


def _remark(address: str) -> str:
    rule = storage_rule(provider_of(address))
    return f"{address} is priced as in {rule.region} ({rule.as_of})" if rule else ""
