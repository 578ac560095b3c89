"""What an audit finds in buckets: outputs whose run the store does not know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clean"))  # for its homes

from bucket_cases import Case, S3Case
from clean_home import Home

from cloudrun import audit
from cloudrun.audit_buckets import bucket_items
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.events import Event, Note, ignore
from cloudrun.runfiles import RunFiles

MANIFEST = ".cloudrun/manifest.json"


@pytest.fixture
def home(settings: Settings) -> Iterator[Home]:
    made = Home(settings.home)
    yield made
    made.store.close()


def stores_in(home: Home, run: str, address: str) -> None:
    home.add(run)
    RunFiles(home.settings, run).save_record({"order": {"outputs_to": address}})


def test_outputs_whose_run_is_not_known(case: Case, home: Home) -> None:
    stores_in(home, "aaaaaaaa", case.address)
    case.fill(
        [
            *(f"{run}/{name}" for run in ("aaaaaaaa", "bbbbbbbb") for name in (MANIFEST, "a", "b")),
            "cccccccc/no-manifest-of-ours",
            "somebody's own folder/file",
        ]
    )
    [found] = bucket_items(home.settings, on_event=ignore)
    assert (found.kind, found.name, found.run) == ("outputs", "bbbbbbbb", "bbbbbbbb")
    assert (found.id, found.used_by) == (f"{case.address}/bbbbbbbb", case.address)
    price = Decimal("0.023") if isinstance(case, S3Case) else Decimal("0.0208")
    assert found.price_per_month_usd == 3 * price / 2**30
    assert found.since is not None
    assert datetime.now(UTC) - found.since < timedelta(minutes=5)
    assert (found.problem, found.cure, found.foreign) == ("", None, False)
    client = Client(home.settings)
    assert [item.name for item in audit.audit(client.context(), ())] == ["bbbbbbbb"]
    assert audit.audit(client.context(), (), home=False) == []


def test_a_bucket_is_still_asked_with_run_and_store_gone(case: Case, home: Home) -> None:
    run = "aaaaaaaa"
    stores_in(home, run, case.address)
    case.fill([f"{run}/{MANIFEST}", f"{run}/a"])
    RunFiles(home.settings, run).record.unlink()
    home.store.close()
    home.settings.store_path.unlink()
    [found] = bucket_items(home.settings, on_event=ignore)
    assert (found.run, found.remark) == (run, "its run was cleaned away here")


def test_a_bucket_that_does_not_answer_is_named(case: Case, home: Home) -> None:
    stores_in(home, "aaaaaaaa", case.absent)
    said: list[Event] = []
    assert bucket_items(home.settings, on_event=said.append) == []
    assert [note.message for note in said if isinstance(note, Note) and "nobody-made-this" in note.message]


def test_without_buckets_nobody_is_asked(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "none")
    assert bucket_items(settings, on_event=ignore) == []
    assert not settings.home.exists()
