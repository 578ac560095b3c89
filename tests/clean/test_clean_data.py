"""`clean --datasets unused`: versions that no run was given, into the trash and back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from clean_home import Home

from cloudrun import cleaning_datasets, datasets, keptdata
from cloudrun.cleaning import Choice
from cloudrun.cli import run as command
from cloudrun.client import Client
from cloudrun.errors import NotFound
from cloudrun.models import RunState
from cloudrun.runfiles import RunFiles
from cloudrun.trash import Batch, Trash


@pytest.fixture
def client(home: Home) -> Iterator[Client]:
    return Client(home.settings)


@pytest.fixture(autouse=True)
def three(home: Home, tmp_path: Path) -> None:
    """horses and zebras share a file; cows were given to a run."""
    for name, files in {"horses": "ab", "zebras": "bc", "cows": "c"}.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).write_text(file * 100)
        datasets.add_folder(home.settings, name, folder)
    home.add("aaaa")
    give(home, "aaaa", "cows")


def give(home: Home, run: str, dataset: str) -> None:
    digest = datasets.find_dataset(home.settings, dataset).digest
    RunFiles(home.settings, run).record.write_text(json.dumps({"order": {"data": [{"digest": digest}]}}))


def files(home: Home) -> dict[str, bytes]:
    root = home.settings.kept_datasets_dir
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def names(home: Home) -> list[str]:
    return [each.name for each in datasets.list_datasets(home.settings)]


def test_what_no_run_was_given_goes_and_comes_back(home: Home, client: Client, tmp_path: Path) -> None:
    before = files(home)
    found = client.plan_data_cleanup()
    assert {each.label for each in found.datasets} == {"horses:v1", "zebras:v1"}
    assert (found.size_bytes, found.used) == (200, 1)  # a and b; the cows need c
    assert files(home) == before
    assert client.clean_data(found) == (2, 200)
    assert names(home) == ["cows"]
    datasets.get(home.settings, datasets.find_dataset(home.settings, "cows"), (), tmp_path / "cows back")
    assert client.trash_size()[1] == len(before) - len(files(home))
    client.undo_clean()
    assert files(home) == before


def test_ages_and_sizes_narrow_it(client: Client) -> None:
    assert client.plan_data_cleanup(older_than=timedelta(days=1)).datasets == ()
    assert client.plan_data_cleanup(larger_than_bytes=200).datasets == ()
    assert len(client.plan_data_cleanup(larger_than_bytes=199).datasets) == 2


def test_what_a_bucket_holds_stays(home: Home, client: Client) -> None:
    found = client.plan_data_cleanup()
    keptdata.add_place(
        home.settings, datasets.find_dataset(home.settings, "zebras").digest, "s3://bucket/data"
    )
    again = client.plan_data_cleanup()
    assert ({each.name for each in again.datasets}, again.used, again.stored) == ({"horses"}, 1, 1)
    assert client.clean_data(found)[0] == 1  # planned before
    assert names(home) == ["cows", "zebras"]


def test_what_a_run_was_given_meanwhile_stays(home: Home, client: Client) -> None:
    found = client.plan_data_cleanup()
    home.add("bbbb", state=RunState.RUNNING, ended_at=None)
    give(home, "bbbb", "zebras")
    assert client.clean_data(found)[0] == 1
    assert names(home) == ["cows", "zebras"]


def test_a_new_version_of_that_number_keeps_its_place(home: Home, client: Client, tmp_path: Path) -> None:
    client.clean_data(client.plan_data_cleanup())
    (tmp_path / "horses" / "a").write_text("new")
    new, _ = datasets.add_folder(home.settings, "horses", tmp_path / "horses")
    assert client.undo_clean()[1] == ["datasets/names/horses/v1.json"]
    assert datasets.find_dataset(home.settings, "horses") == new
    datasets.get(home.settings, datasets.find_dataset(home.settings, "zebras"), (), tmp_path / "back")


def test_the_newest_clean_up_tells_whether_it_took_datasets(home: Home, client: Client) -> None:
    client.clean_data(client.plan_data_cleanup())
    assert Trash(home.settings.home).holds("datasets")
    client.clean(client.plan_cleanup(Choice()))
    assert not Trash(home.settings.home).holds("datasets")


class Cut(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("number", range(7))
def test_cut_anywhere_nothing_is_lost(
    home: Home, client: Client, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = files(home)
    for path in (home.settings.kept_datasets_dir / "manifests").iterdir():
        os.utime(path, (0, 0))  # older than what a submit may be about to use
    left = [number]
    take = Batch.take

    def counted(batch: Batch, path: str) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Cut
        return take(batch, path)

    found = client.plan_data_cleanup()
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "take", counted)
        try:
            client.clean_data(found)
        except Cut:
            assert number < 6  # two versions, two manifests, two files
    again = client.plan_data_cleanup()
    client.clean_data(again)
    assert names(home) == ["cows"]
    assert len(files(home)) == 3
    for _ in Trash(home.settings.home).batches():
        client.undo_clean()
    assert files(home) == before


def test_the_command(
    home: Home, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDRUN_HOME", str(home.settings.home))
    monkeypatch.setenv("COLUMNS", "80")
    assert command(("clean", "--datasets", "unused", "--dry-run")) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["DATASET", "horses:v1", "zebras:v1"]
    assert "2 versions, 200 B would go" in said.err
    assert "stays: 1 version that runs were given" in said.err
    assert command(("clean", "--datasets", "unused", "--job", "bn", "-y")) == 2
    assert command(("clean", "--datasets", "unused", "--on", "all", "-y")) == 2
    assert command(("clean", "--datasets", "unused")) == 2  # nobody there to ask
    assert len(names(home)) == 3
    capsys.readouterr()
    assert command(("clean", "--datasets", "unused", "-y", "--json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["cleaned"] == {"datasets": 2, "size_bytes": 200}
    assert shown["kept"] == {"used": 1, "in_buckets": 0}
    assert command(("clean", "--undo")) == 0
    assert len(names(home)) == 3
    assert home.runs() == {"aaaa"}


def test_a_home_without_datasets_stays_so(tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    found = Client(other.settings).plan_data_cleanup()
    assert found == cleaning_datasets.DataCleanup((), 0, 0)
    assert not other.settings.kept_datasets_dir.exists()
    with pytest.raises(NotFound):
        Client(other.settings).undo_clean()
    other.store.close()
