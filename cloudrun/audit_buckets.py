"""Outputs in buckets whose run the store does not know: shown with what they cost.

They may be the runs of another computer that stores in the same bucket, so they are neither called wrong nor
touched. One listing of folders a bucket tells whether there are any; only those are looked into.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudrun import bucket_outputs, cleaning_buckets
from cloudrun.audit_item import Item
from cloudrun.bucket import open_bucket
from cloudrun.config import Settings
from cloudrun.errors import CloudrunError
from cloudrun.events import Note, OnEvent
from cloudrun.names import is_run_id
from cloudrun.store_clean import RunIndex


def bucket_items(settings: Settings, *, on_event: OnEvent) -> list[Item]:
    """All of them in the buckets that runs at home or the settings name (blocking), by bucket and run. One
    that does not answer is named in a note."""
    places = cleaning_buckets.places(settings)
    if not places:
        return []
    with RunIndex(settings.store_path) as index:
        known = {row.id for row in index.rows()}
    found: list[Item] = []
    for address in places:
        try:
            found += _unknown(settings, address, known)
        except CloudrunError as error:
            on_event(Note(f"{address} was not asked: {error.message}"))
    return found


def _unknown(settings: Settings, address: str, known: set[str]) -> Iterator[Item]:
    bucket = open_bucket(address, settings)
    for run in [each for each in bucket.folders() if is_run_id(each) and each not in known]:
        objects = list(bucket.list(f"{run}/"))
        if not any(each.key.startswith(f"{run}/{bucket_outputs.OWN}/") for each in objects):
            continue  # nothing of ours
        yield Item(
            provider=cleaning_buckets.provider_of(address),
            region="",
            kind="outputs",
            name=run,
            id=f"{address}/{run}",
            since=max(each.modified_at for each in objects),
            price_per_month_usd=cleaning_buckets.price_per_month_usd(
                address, sum(each.size for each in objects)
            ),
            used_by=address,
            run=run,
            remark="its run is not known here",
        )
