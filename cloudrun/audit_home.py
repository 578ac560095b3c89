"""What lies on this computer and belongs to nothing: outputs whose run the store does not know, datasets
that no run was given. It costs no money here; datasets may lie in buckets, too, where they do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from cloudrun import cleaning_buckets, datasets, keptdata
from cloudrun.audit_item import HOME, Cure, Item
from cloudrun.cleaning import has_outputs
from cloudrun.config import Settings
from cloudrun.datasets import Dataset
from cloudrun.runfiles import RunFiles
from cloudrun.store_clean import RunIndex


def home_items(settings: Settings) -> list[Item]:
    """All of it, oldest first. Changes nothing."""
    found = [*_orphans(settings), *_unused(settings)]
    return sorted(found, key=lambda item: (item.since or datetime.max.replace(tzinfo=UTC), item.name))


def _orphans(settings: Settings) -> list[Item]:
    """Outputs without a run. A submit that is under way walks its run's folder before the store knows it."""
    there = {path.name for path in settings.runs_dir.iterdir()} if settings.runs_dir.is_dir() else set()
    if not there:
        return []
    with RunIndex(settings.store_path) as index:
        known = {row.id for row in index.rows()}
    return [
        _orphan(RunFiles(settings, run_id))
        for run_id in there - known
        if has_outputs(settings, run_id) and not RunFiles(settings, run_id).walked()
    ]


def _orphan(files: RunFiles) -> Item:
    return Item(
        provider=HOME,
        region="",
        kind="outputs",
        name=files.folder.name,
        id=os.fspath(files.outputs),
        since=datetime.fromtimestamp(files.outputs.stat().st_mtime, UTC),
        problem="its run is not in the store",
        cure=Cure.ADOPT if files.record.exists() else None,
    )


def _unused(settings: Settings) -> list[Item]:
    """It is no mistake to have data that is not needed yet: shown, and not called wrong."""
    used, places = datasets.used_by(settings), keptdata.places_of(settings)
    return [
        _unused_one(each, places.get(each.digest, []))
        for each in datasets.list_datasets(settings)
        if each.digest not in used
    ]


def _unused_one(each: Dataset, places: Sequence[str]) -> Item:
    prices = [cleaning_buckets.price_per_month_usd(place, each.size_bytes) for place in places]
    known = [price for price in prices if price is not None]
    return Item(
        provider=HOME,
        region="",
        kind="dataset",
        name=each.label,
        id=each.digest,
        state="unused",
        since=each.added_at,
        price_per_month_usd=sum(known, Decimal(0)) if len(known) == len(prices) else None,
        used_by=", ".join(places),
        remark="in a bucket, too" if places else "",
    )
