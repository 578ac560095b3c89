"""`clean --in`: what ended runs stored in buckets goes in few calls, and what must stay stays."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clean"))  # for its homes

from bucket_cases import Case, S3Case, one_bucket
from clean_home import NOW, Home, many

from cloudrun import bucket_outputs, cleaning_buckets
from cloudrun.cleaning import Choice, Cleaned, Cleanup, Part, is_pinned, pin
from cloudrun.cli import run as command
from cloudrun.config import Settings
from cloudrun.errors import NotFound, UsageError
from cloudrun.events import Event, Note, ignore
from cloudrun.models import RunState
from cloudrun.providers.base import Bucket
from cloudrun.runfiles import RunFiles

ODD = "new\nline.txt"  # a bucket keeps it under its hash
PRICES = {"s3": Decimal("0.023"), "az": Decimal("0.0208")}


@pytest.fixture
def home(settings: Settings) -> Iterator[Home]:
    made = Home(settings.home)
    yield made
    made.store.close()


@pytest.fixture
def store(case: Case, home: Home, tmp_path: Path) -> Callable[..., None]:
    """Put outputs of a run into the bucket, with their manifest."""

    def put(run: str, *paths: str) -> None:
        folder = tmp_path / "outputs" / run
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(f"{run} {path}")
        cache = tmp_path / f"{run}.json"
        bucket_outputs.push(case.bucket, run, folder, cache=cache, progress=lambda done, total: None)

    return put


def plan(case: Case, home: Home, **what: Any) -> Cleanup:
    return cleaning_buckets.plan_cleanup(
        home.settings, Choice(**what), address=case.address, now=NOW, on_event=ignore
    )


def clean(case: Case, home: Home, **what: Any) -> Cleaned:
    return cleaning_buckets.clean(home.settings, plan(case, home, **what), on_event=ignore)


def keys(case: Case) -> set[str]:
    return {each.key for each in case.bucket.list()}


def runs(case: Case) -> set[str]:
    return {key.partition("/")[0] for key in keys(case)}


def holds_what_it_names(bucket: Bucket, run: str) -> bool:
    there = {each.key for each in bucket.list(f"{run}/")}
    named = bucket_outputs.read_manifest(bucket, run)
    return {bucket_outputs.key_of(run, path) for path, file in named.items() if not file.link} <= there


def test_ended_runs_go_and_others_stay(case: Case, home: Home, store: Callable[..., None]) -> None:
    for name in ("aaaa", "bbbb", "cccc", "stranger"):
        store(name, "curve.bin", "checkpoint/model.pt", ODD)
    home.add("aaaa")
    home.add("bbbb", state=RunState.RUNNING, ended_at=None)
    home.add("cccc")
    pin(home.settings, "cccc", pinned=True)
    before = home.content()
    found = plan(case, home)
    assert [(going.run.id, going.paths, going.bucket) for going in found.runs] == [
        ("aaaa", ("",), case.address)
    ]
    assert (found.active, found.pinned, found.only_copies) == (1, 1, 0)
    size = sum(each.size for each in case.bucket.list("aaaa/"))
    assert found.size_bytes == size
    assert found.saves_per_month_usd == PRICES[case.address[:2]] * size / 2**30
    assert found.remarks
    done = cleaning_buckets.clean(home.settings, found, on_event=ignore)
    assert (done.runs, done.size_bytes, done.skipped) == (1, size, 0)
    assert runs(case) == {"bbbb", "cccc", "stranger"}
    assert home.content() == before
    assert plan(case, home).runs == ()


@pytest.mark.parametrize("each", [1, 23])
def test_objects_go_in_full_calls(case: Case, home: Home, each: int) -> None:
    names = [f"run{number:04}" for number in range(110)]
    for name in names:
        home.add(name)
    keys = [f"{name}/file{number}" for name in names for number in range(each)]
    case.fill([*keys, "other/file"])
    clean(case, home)
    assert case.delete_calls() == -(-len(keys) // case.batch)
    assert runs(case) == {"other"}


def test_many_runs_are_listed_at_once_and_few_alone(case: Case, home: Home) -> None:
    for number in range(60):
        home.add(f"run{number:02}", project="few" if number < 2 else "many")
    case.fill([f"run{number:02}/file" for number in range(60)])
    assert len(plan(case, home).runs) == 60
    assert listings(case) == 2  # of folders, and of all
    assert len(plan(case, home, project="few").runs) == 2
    assert listings(case) == 2 + 3


def listings(case: Case) -> int:
    if isinstance(case, S3Case):
        return sum(call.action == "ListObjectsV2" for call in case.double.calls())
    return sum(name == "List Blobs" for name in case.double.storage.calls())


def test_the_checkpoint_of_an_unfinished_run_stays(
    case: Case, home: Home, store: Callable[..., None], tmp_path: Path
) -> None:
    store("aaaa", "curve.bin", "sub/more", ODD, "checkpoint/model.pt", f"checkpoint/{ODD}")
    home.add("aaaa", state=RunState.LOST, resume=True)
    found = plan(case, home)
    assert found.resumable == 1
    assert found.runs[0].paths == (".cloudrun", "curve.bin", "sub")
    cleaning_buckets.clean(home.settings, found, on_event=ignore)
    left = bucket_outputs.read_manifest(case.bucket, "aaaa")
    assert sorted(left) == ["checkpoint/model.pt", f"checkpoint/{ODD}"]
    assert len(keys(case)) == 3  # with the manifest
    bucket_outputs.fetch(
        case.bucket, "aaaa", [*left.values()], tmp_path / "back", progress=lambda done, total: None
    )
    assert (tmp_path / "back" / "checkpoint" / ODD).read_text() == f"aaaa checkpoint/{ODD}"
    assert plan(case, home).runs == plan(case, home, only=Part.CHECKPOINTS).runs == ()


def test_only_checkpoints(case: Case, home: Home, store: Callable[..., None]) -> None:
    store("aaaa", "curve.bin", "checkpoint/model.pt")
    home.add("aaaa")
    clean(case, home, only=Part.CHECKPOINTS)
    assert keys(case) == {"aaaa/curve.bin", "aaaa/.cloudrun/manifest.json"}
    assert [*bucket_outputs.read_manifest(case.bucket, "aaaa")] == ["curve.bin"]


def test_code_is_in_no_bucket(case: Case, home: Home) -> None:
    with pytest.raises(UsageError, match="no code"):
        plan(case, home, only=Part.CODE)


def test_what_changed_meanwhile_stays(case: Case, home: Home, store: Callable[..., None]) -> None:
    for name in ("aaaa", "bbbb", "cccc", "dddd"):
        store(name, "curve.bin")
        home.add(name)
    found = plan(case, home)
    home.store.update_run("bbbb", state=RunState.STARTING)
    pin(home.settings, "cccc", pinned=True)
    with RunFiles(home.settings, "aaaa").walking():
        done = cleaning_buckets.clean(home.settings, found, on_event=ignore)
    assert (done.runs, done.skipped) == (1, 3)
    assert runs(case) == {"aaaa", "bbbb", "cccc"}


@one_bucket
@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_asked_for_three_things_stay(
    case: Case, home: Home, store: Callable[..., None], seed: int
) -> None:
    many(home, 8, seed=seed)
    home.add("unfinished", state=RunState.LOST, resume=True)
    chance = random.Random(seed)
    for run in home.store.list_runs():
        store(run.id, "curve.bin", ODD, "checkpoint/model.pt", f"checkpoint/{ODD}")
        if chance.random() < 0.3:
            pin(home.settings, run.id, pinned=True)
    before = keys(case)
    for only in chance.sample([None, None, Part.CHECKPOINTS, Part.OUTPUTS], 3):
        clean(case, home, only=only, project=chance.choice(["", "norm"]), keep_last=chance.randrange(2))
    after = keys(case)
    for last in (Part.CHECKPOINTS, Part.OUTPUTS, None):
        clean(case, home, only=last)
    for run in home.store.list_runs():
        mine = {key for key in before if key.startswith(f"{run.id}/")}
        checkpoint = {bucket_outputs.key_of(run.id, f"checkpoint/{name}") for name in ("model.pt", ODD)}
        stays: set[str] = set()
        if not run.state.final or is_pinned(home.settings, run.id):
            stays = mine
        elif run.resume and run.state in (RunState.FAILED, RunState.LOST, RunState.TIMED_OUT):
            stays = checkpoint | {f"{run.id}/.cloudrun/manifest.json"}
        assert stays <= after
        assert stays == {key for key in keys(case) if key.startswith(f"{run.id}/")}
        assert holds_what_it_names(case.bucket, run.id)


class Cut(BaseException):
    """The end of the process."""


@one_bucket
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_cut_anywhere_a_manifest_names_what_is_there(
    case: Case, home: Home, store: Callable[..., None], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(type(case.bucket), "delete_at_once", 3)
    monkeypatch.setattr(cleaning_buckets, "CHECKED_AT_ONCE", 1)
    monkeypatch.setattr(cleaning_buckets, "CALLS_AT_ONCE", 1)
    for name in ("aaaa", "bbbb", "cccc"):
        store(name, "curve.bin", "more", "checkpoint/model.pt")
        home.add(name, state=RunState.FAILED, resume=name == "cccc")
    left = [number]
    delete = type(case.bucket).delete

    def counted(bucket: Bucket, some: Sequence[str]) -> int:
        left[0] -= 1
        if left[0] < 0:
            delete(bucket, some[: len(some) // 2])  # type: ignore[arg-type]
            raise Cut
        return delete(bucket, some)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(case.bucket), "delete", counted)
        with pytest.raises(Cut):
            clean(case, home)
    assert all(holds_what_it_names(case.bucket, name) for name in ("aaaa", "bbbb", "cccc"))
    clean(case, home)
    assert keys(case) == {"cccc/.cloudrun/manifest.json", "cccc/checkpoint/model.pt"}


def test_all_buckets_that_runs_and_settings_name(case: Case, home: Home) -> None:
    home.add("aaaa")
    home.add("bbbb")
    case.fill(["aaaa/file"])
    for run, address in (("aaaa", f"{case.address}/"), ("bbbb", case.absent)):
        order = {"order": {"outputs_to": address}}
        RunFiles(home.settings, run).record.write_text(json.dumps(order))
    assert cleaning_buckets.places(home.settings) == sorted([case.absent, case.address])
    said: list[Event] = []
    found = cleaning_buckets.plan_cleanup(home.settings, Choice(), now=NOW, on_event=said.append)
    assert [going.run.id for going in found.runs] == ["aaaa"]
    assert [note.message for note in said if isinstance(note, Note) and "nobody-made-this" in note.message]
    with pytest.raises(NotFound):
        cleaning_buckets.plan_cleanup(home.settings, Choice(), address=case.absent, now=NOW, on_event=ignore)


def test_a_damaged_manifest_does_not_keep_the_rest(
    case: Case, home: Home, store: Callable[..., None]
) -> None:
    """It is needed only to tell the outputs of a run of which a part stays."""
    for name in ("aaaa", "bbbb"):
        store(name, "curve.bin", ODD)
        case.corrupt(f"{name}/.cloudrun/manifest.json")
    home.add("aaaa")
    order = {"order": {"outputs_to": case.address}}
    RunFiles(home.settings, "aaaa").record.write_text(json.dumps(order))
    home.add("bbbb", state=RunState.LOST, resume=True)
    said: list[Event] = []
    found = cleaning_buckets.plan_cleanup(home.settings, Choice(), now=NOW, on_event=said.append)
    assert [going.run.id for going in found.runs] == ["aaaa"]
    assert [note.message for note in said if isinstance(note, Note) and "bbbb" in note.message]


def test_the_command(
    case: Case, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDRUN_HOME", str(home.settings.home))
    monkeypatch.setenv("COLUMNS", "80")
    home.add("aaaa")
    case.fill([f"aaaa/{number}" for number in range(3)])
    assert command(("clean", "--in", case.address, "--dry-run")) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == [
        "RUN",
        "JOB",
        "STATE",
        "ENDED",
        "FILES",
        "SIZE",
        "USD/MONTH",
    ]
    assert "1 run, 3 B would go: <0.0001 USD a month less" in said.err
    assert "is priced as in" in said.err
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert command(("clean", "--in", case.address)) == 2  # nobody there to ask
    assert command(("clean", "--in", case.address, "--on", "all", "-y")) == 2
    assert command(("clean", "--in", case.address, "--undo")) == 2
    assert len(keys(case)) == 3
    capsys.readouterr()
    assert command(("clean", "--in", case.address, "-y", "--json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["cleaned"] == {"runs": 1, "code": 0, "size_bytes": 3, "skipped": 0}
    assert (shown["runs"][0]["bucket"], shown["runs"][0]["saves_per_month_usd"]) == (case.address, 0.0)
    assert keys(case) == set()
    assert home.runs() == {"aaaa"}
