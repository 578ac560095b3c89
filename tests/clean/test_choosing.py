"""What a clean-up chooses, and the three rules that hold whatever is asked for."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from clean_home import NOW, Home, many
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import A_MACHINE

from cloudrun.cleaning import Choice, Cleaned, Part, clean, is_pinned, pin, plan_cleanup
from cloudrun.cleaning_machines import disk_remarks
from cloudrun.errors import NotFound, UsageError
from cloudrun.models import FINAL_RUN_STATES, Market, RunState
from cloudrun.runfiles import RunFiles


def cleaned(home: Home, choice: Choice) -> Cleaned:
    cleanup = plan_cleanup(home.settings, choice, now=NOW)
    return clean(home.settings, cleanup, now=NOW, on_bytes=lambda done, total: None)


def chosen(home: Home, **what: object) -> set[str]:
    cleanup = plan_cleanup(home.settings, Choice(**what), now=NOW)  # type: ignore[arg-type]
    return {going.run.id for going in cleanup.runs}


def test_filters_choose_and_together(home: Home) -> None:
    home.add("aaaa", job="bn", ended_at=NOW - timedelta(days=40))
    home.add("bbbb", project="other", mb=3)
    home.add("cccc", state=RunState.FAILED)
    assert chosen(home) == {"aaaa", "bbbb", "cccc"}
    assert chosen(home, job="bn") == {"aaaa"}
    assert chosen(home, project="street") == {"aaaa", "cccc"}
    assert chosen(home, states=frozenset({RunState.FAILED})) == {"cccc"}
    assert chosen(home, older_than=timedelta(days=30)) == {"aaaa"}
    assert chosen(home, larger_than_bytes=2 * 10**6) == {"bbbb"}
    assert chosen(home, job="bn", project="other") == set()


def test_keep_last_keeps_the_newest_of_each_job(home: Home) -> None:
    for day in range(1, 5):
        home.add(f"a{day}", job="bn", submitted_at=NOW - timedelta(days=day))
        home.add(f"b{day}", job="svhn", submitted_at=NOW - timedelta(days=day))
    assert chosen(home, keep_last=3) == {"a4", "b4"}
    assert chosen(home, keep_last=9) == set()


def test_keep_best_goes_by_the_jobs_direction(home: Home) -> None:
    for number, value in enumerate((0.2, 0.9, None, 0.5)):
        home.add(f"a{number}", job="up", metric_value=value)
        home.add(f"b{number}", job="down", metric_value=value, metric_direction="min")
    assert chosen(home, keep_best="val_acc") == {"a0", "a2", "a3", "b1", "b2", "b3"}


def test_a_metric_that_nothing_reports_is_refused_with_its_neighbour(home: Home) -> None:
    assert chosen(home, keep_best="val_acc") == set()  # nothing to choose from: no mistake
    home.add("aaaa")
    with pytest.raises(UsageError) as refusal:
        chosen(home, keep_best="val_ac")
    assert "val_acc" in refusal.value.hint


@pytest.mark.parametrize(
    ("only", "gone"),
    [
        (Part.CHECKPOINTS, {"outputs/checkpoint/model.pt"}),
        (Part.OUTPUTS, {"outputs/checkpoint/model.pt", "outputs/curve.bin"}),
        (Part.CODE, {"bundle.json"}),
    ],
)
def test_only_a_part_goes(home: Home, only: Part, gone: set[str]) -> None:
    home.add("aaaa")
    before = home.content()
    done = cleaned(home, Choice(only=only))
    missing = {path for path in before if path not in home.content()}
    assert {path.removeprefix("runs/aaaa/") for path in missing if path.startswith("runs/")} == gone
    assert home.code() == (set() if only is Part.CODE else {"shared"})
    assert (done.runs, done.skipped) == (1, 0)
    assert cleaned(home, Choice(only=only)) == Cleaned()


def test_the_bytes_are_those_that_go(home: Home) -> None:
    home.add("aaaa", mb=2)
    size = sum(len(content) for content in home.content().values())
    cleanup = plan_cleanup(home.settings, Choice(), now=NOW)
    assert cleanup.size_bytes == size == cleaned(home, Choice()).size_bytes


def test_code_stays_while_a_run_needs_it(home: Home) -> None:
    home.add("aaaa", code=("one", "both"))
    home.add("bbbb", code=("both", "two"), job="bn")
    cleaned(home, Choice(job="svhn"))
    assert home.code() == {"both", "two"}
    cleaned(home, Choice(job="bn"))
    assert home.code() == set()


def test_no_code_goes_while_a_manifest_cannot_be_read(home: Home) -> None:
    home.add("aaaa", code=("one",))
    home.add("bbbb", code=("two",), job="bn")
    RunFiles(home.settings, "bbbb").bundle.write_text("{")
    cleaned(home, Choice(job="svhn"))
    assert home.runs() == {"bbbb"}
    assert home.code() == {"one", "two"}


def test_code_of_a_folder_that_the_store_does_not_know_stays(home: Home) -> None:
    home.add("aaaa", code=("one",))
    home.add("bbbb", code=("two",))
    stranger = RunFiles(home.settings, "bbbb").folder
    stranger.rename(stranger.with_name("cccc"))
    cleaned(home, Choice())
    assert home.runs() == {"cccc"}
    assert home.code() == {"two"}


def test_a_run_that_is_walked_or_changed_meanwhile_stays(home: Home) -> None:
    for name in ("aaaa", "bbbb", "cccc", "dddd"):
        home.add(name)
    cleanup = plan_cleanup(home.settings, Choice(), now=NOW)
    home.store.update_run("bbbb", state=RunState.STARTING)  # `restart` was faster
    pin(home.settings, "cccc", pinned=True)
    with RunFiles(home.settings, "aaaa").walking():
        done = clean(home.settings, cleanup, now=NOW, on_bytes=lambda done, total: None)
    assert home.runs() == {"aaaa", "bbbb", "cccc"}
    assert (done.runs, done.skipped) == (1, 3)
    assert home.code() == {"shared"}


def test_pins_can_be_taken_off_and_need_something_to_hold(home: Home) -> None:
    home.add("aaaa")
    for pinned in (True, True, False, False):
        pin(home.settings, "aaaa", pinned=pinned)
        assert is_pinned(home.settings, "aaaa") is pinned
        assert chosen(home) == (set() if pinned else {"aaaa"})
    cleaned(home, Choice())
    with pytest.raises(NotFound):
        pin(home.settings, "aaaa", pinned=True)


def test_a_disk_costs_the_same_whatever_lies_on_it() -> None:
    rented = replace(A_MACHINE, disk_gb=100)
    own = replace(rented, name="bench", provider="local", market=Market.OWN)
    [remark] = disk_remarks([rented, own, replace(rented, name="other")], {"k80", "bench"})
    assert "the disk of k80 goes on costing 8.00 USD a month" in remark


CHOICES = st.builds(
    Choice,
    project=st.sampled_from(["", "street", "norm"]),
    job=st.sampled_from(["", "svhn", "bn"]),
    states=st.frozensets(st.sampled_from(sorted(FINAL_RUN_STATES)), max_size=3),
    older_than=st.none() | st.timedeltas(timedelta(0), timedelta(hours=12)),
    keep_last=st.integers(0, 3),
    keep_best=st.sampled_from(["", "val_acc"]),
    larger_than_bytes=st.sampled_from([0, 1, 10**6, 10**7]),
    only=st.none() | st.sampled_from([*Part]),
)


@settings(max_examples=25, deadline=None)
@given(
    choices=st.lists(CHOICES, min_size=1, max_size=3), pins=st.sets(st.integers(0, 11)), seed=st.integers()
)
def test_whatever_is_asked_for_three_things_stay(choices: list[Choice], pins: set[int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        many(home, 12, seed=seed)
        for number in pins:
            pin(home.settings, f"run{number:05d}", pinned=True)
        before = home.content()
        for choice in choices:
            try:
                cleaned(home, choice)
            except UsageError:
                assert choice.keep_best
        after = home.content()
        for run in home.store.list_runs():
            mine = {path for path in before if path.startswith(f"runs/{run.id}/")}
            stays: set[str] = set()
            if not run.state.final or is_pinned(home.settings, run.id):
                stays = mine
            elif run.resume and run.state in (RunState.FAILED, RunState.LOST, RunState.TIMED_OUT):
                stays = {p for p in mine if "/outputs/" not in p or "/checkpoint/" in p}
            assert stays <= after.keys()
        assert {path: before[path] for path in after} == after
        needed = {sha for run in home.runs() for sha in hashes(home, run)}
        assert {path.rpartition("/")[2] for path in after if path.startswith("objects/")} >= needed
        home.store.close()


def hashes(home: Home, run: str) -> set[str]:
    from cloudrun.manifest import load_manifest

    file = RunFiles(home.settings, run).bundle
    return {each.sha256 for each in load_manifest(file).files} if file.exists() else set()
