"""Clean-up of datasets that no run was given: versions go into the trash, with the content that nothing else
needs.

Which runs were given a version, their records at home tell. So a version whose runs were all cleaned away
counts as unused. An address that machines fetch from takes no room here; it goes as the others do. What a
bucket holds, too, stays: its objects there would belong to nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cloudrun import datasets, keptdata
from cloudrun.config import Settings
from cloudrun.datasets import Dataset
from cloudrun.trash import Trash


@dataclass(frozen=True, slots=True)
class DataCleanup:
    """What would go, the largest first. `size_bytes` is the content that nothing else needs, also what an
    interrupted deletion left: less than the versions' sizes where others share it."""

    datasets: tuple[Dataset, ...]
    size_bytes: int
    used: int  # versions that stay since a run was given them
    stored: int = 0  # and that stay since a bucket holds them


def plan_cleanup(
    settings: Settings,
    *,
    older_than: timedelta | None,
    larger_than_bytes: int,
    active: Collection[str],
    now: datetime,
) -> DataCleanup:
    """What a clean-up would take. Changes nothing. active: ids of the runs that have not ended."""
    known, used = datasets.list_datasets(settings), datasets.used_by(settings)
    stored = keptdata.places_of(settings)
    chosen = [
        each
        for each in known
        if each.digest not in used
        and each.digest not in stored
        and (older_than is None or each.added_at < now - older_than)
        and (not larger_than_bytes or each.size_bytes > larger_than_bytes)
    ]
    chosen.sort(key=lambda each: -each.size_bytes)
    there = settings.kept_datasets_dir.is_dir()
    size = datasets.freed_without(settings, chosen, active=active) if there else 0
    unused = [each for each in known if each.digest not in used]
    held = sum(each.digest in stored for each in unused)
    return DataCleanup(tuple(chosen), size, used=len(known) - len(unused), stored=held)


def clean(
    settings: Settings, cleanup: DataCleanup, *, active: Collection[str], now: datetime
) -> tuple[int, int]:
    """Move them into the trash (blocking; renames only): how many versions, and the bytes. One that a run was
    given meanwhile stays. Killed, it has lost nothing; plan and clean again for the rest. Raises Refused
    while another clean-up is at work."""
    trash = Trash(settings.home)
    with trash.working():
        needed = {*datasets.used_by(settings), *keptdata.places_of(settings)}
        chosen = [each for each in cleanup.datasets if each.digest not in needed]
        batch = trash.begin(now)

        def take(path: Path) -> None:
            batch.take(path.relative_to(settings.home).as_posix())

        return len(chosen), datasets.delete(settings, chosen, active=active, remove=take)
