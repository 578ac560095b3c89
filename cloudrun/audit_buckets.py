"""Outputs in buckets whose run is not at home: shown with what they cost.

Their run was cleaned away here, or the store does not know it: then it may be one of another computer that
stores in the same bucket. So they are neither called wrong nor touched; `clean --in` takes what is known.
One listing of folders a bucket tells whether there are any; only those are looked into.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudrun import bucket_outputs, cleaning_buckets
from cloudrun.audit_item import Item
from cloudrun.config import Settings
from cloudrun.errors import CloudrunError
from cloudrun.events import Note, OnEvent
from cloudrun.names import is_run_id
from cloudrun.runfiles import RunFiles
from cloudrun.store_clean import RunIndex

CLEANED, UNKNOWN = "its run was cleaned away here", "its run is not known here"


def bucket_items(settings: Settings, *, on_event: OnEvent) -> list[Item]:
    """All of them in the buckets that runs or the settings name (blocking), by bucket and run. One that does
    not answer is named in a note."""
    places = cleaning_buckets.places(settings)
    if not places:
        return []
    with RunIndex(settings.store_path) as index:
        known = {row.id for row in index.rows()}
    found: list[Item] = []
    for address in places:
        try:
            found += _not_at_home(settings, address, known)
        except CloudrunError as error:
            on_event(Note(f"{address} was not asked: {error.message}"))
    return found


def _not_at_home(settings: Settings, address: str, known: set[str]) -> Iterator[Item]:
    place = cleaning_buckets.open_stored(settings, address)
    remarks = {run: _remark(settings, run, known) for run in place.runs if is_run_id(run)}
    wanted = sorted(run for run, remark in remarks.items() if remark)
    stored = cleaning_buckets.listed(place, {*wanted})
    for run in wanted:
        objects = stored.get(run, [])
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
            remark=remarks[run],
        )


def _remark(settings: Settings, run: str, known: set[str]) -> str:
    """Why it is shown; "" for a run that is at home."""
    files = RunFiles(settings, run)
    if files.record.exists():
        return "" if run in known else UNKNOWN
    return CLEANED if run in known or files.place.exists() else UNKNOWN
