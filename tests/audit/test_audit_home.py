"""What an audit finds at home: outputs without a run, datasets without a user."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clean"))  # for its homes

from clean_home import Home

from cloudrun import audit, datasets, keptdata
from cloudrun.audit_home import home_items
from cloudrun.audit_item import HOME, Cure, Item
from cloudrun.client import Client
from cloudrun.models import RunState
from cloudrun.records import to_json
from cloudrun.runfiles import RunFiles


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def lose_store(home: Home) -> None:
    home.store.close()
    for path in home.settings.home.glob(home.settings.store_path.name + "*"):
        path.unlink()


def test_a_home_without_anything_stays_so(tmp_path: Path) -> None:
    settings = replace(Home(tmp_path / "other").settings, home=tmp_path / "none")
    assert home_items(settings) == []
    assert not settings.home.exists()


def test_outputs_of_runs_that_the_store_knows_are_fine(home: Home) -> None:
    home.add("aaaa")
    home.add("bbbb", state=RunState.RUNNING, ended_at=None)
    assert home_items(home.settings) == []


def test_outputs_whose_run_is_gone_come_back_to_it(home: Home) -> None:
    kept = home.add("aaaa")
    record = {"run": to_json(kept), "attempts": [to_json(each) for each in home.store.list_attempts("aaaa")]}
    RunFiles(home.settings, "aaaa").record.write_text(json.dumps(record))
    home.add("empty")
    files = RunFiles(home.settings, "empty")
    for path in (files.outputs / "curve.bin", files.checkpoint / "model.pt"):
        path.unlink()
    files.checkpoint.rmdir()
    files.outputs.rmdir()
    lose_store(home)
    client = Client(home.settings)
    [found] = audit.audit(client.context(), ("local",))
    assert (found.provider, found.kind, found.name, found.cure) == (HOME, "outputs", "aaaa", Cure.ADOPT)
    assert found.price_per_month_usd == Decimal(0)
    assert list(client.fix([found])) == [(found, "")]
    assert client.run("aaaa").id == "aaaa"
    assert audit.audit(client.context(), ("local",)) == []


def test_outputs_without_a_record_are_only_shown(home: Home) -> None:
    home.add("aaaa")
    RunFiles(home.settings, "aaaa").record.unlink()
    lose_store(home)
    [found] = home_items(home.settings)
    assert (found.name, found.problem, found.cure) == ("aaaa", "its run is not in the store", None)


def test_a_submit_under_way_is_left_out(home: Home) -> None:
    home.add("aaaa")
    lose_store(home)
    with RunFiles(home.settings, "aaaa").walking() as hold:
        assert hold
        assert home_items(home.settings) == []


def test_datasets_that_no_run_was_given(home: Home, tmp_path: Path) -> None:
    for name in ("horses", "zebras"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image").write_text(name)
        datasets.add_folder(home.settings, name, tmp_path / name)
    assert [(item.name, item.state, item.problem) for item in shown(home)] == [
        ("horses:v1", "unused", ""),
        ("zebras:v1", "unused", ""),
    ]
    unused = datasets.find_dataset(home.settings, "zebras")
    for place in ("s3://results/data", "az://results"):
        keptdata.add_place(home.settings, unused.digest, place)
    [_, found] = shown(home)
    price = (Decimal("0.023") + Decimal("0.0208")) * unused.size_bytes / 2**30
    assert (found.price_per_month_usd, found.used_by) == (price, "az://results, s3://results/data")
    home.add("aaaa")
    used = datasets.find_dataset(home.settings, "horses")
    order = {"order": {"data": [{"digest": used.digest}]}}
    RunFiles(home.settings, "aaaa").record.write_text(json.dumps(order))
    assert [item.name for item in shown(home)] == ["zebras:v1"]
    assert all(item.since is not None and item.since <= datetime.now(UTC) for item in shown(home))


def shown(home: Home) -> list[Item]:
    return home_items(home.settings)
