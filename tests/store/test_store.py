"""What is stored comes back as it was, and every name finds what it means."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import (
    FULL_ATTEMPT,
    FULL_CHARGE,
    FULL_MACHINE,
    FULL_RUN,
    NOON,
    make_attempt,
    make_charge,
    make_machine,
    make_run,
)

from cloudrun.errors import Ambiguous, NotFound, Refused
from cloudrun.models import MachineState, Outcome, Run, RunState, Stage
from cloudrun.names import RUN_ID_ALPHABET, new_run_id, numbered
from cloudrun.store import Store


def add(store: Store, *runs: Run) -> None:
    for run in runs:
        store.add_run(run, make_attempt(run.id), [])


# --- records come back -------------------------------------------------------------------


@pytest.mark.parametrize(
    "record", [FULL_RUN, FULL_ATTEMPT, FULL_MACHINE, FULL_CHARGE], ids=lambda r: type(r).__name__
)
def test_samples_set_every_field(record: object) -> None:
    """Else a field could be lost on the way without a test seeing it."""
    left = [item.name for item in fields(record) if getattr(record, item.name) in (None, "", 0, False, ())]  # type: ignore[arg-type]
    assert left in ([], ["id"])  # the charge's, which the store gives


def test_records_come_back_whole(store: Store) -> None:
    store.add_run(FULL_RUN, FULL_ATTEMPT, [FULL_CHARGE])
    store.add_machine(FULL_MACHINE)
    store.close()
    with Store(store.path) as fresh:
        assert fresh.find_run(FULL_RUN.id) == FULL_RUN
        assert fresh.list_attempts(FULL_RUN.id) == [FULL_ATTEMPT]
        assert fresh.list_charges() == [replace(FULL_CHARGE, id=1)]
        assert str(fresh.list_charges()[0].unit_price_usd) == "0.0800"  # the digits too, not only the value
        assert fresh.get_machine("bench") == FULL_MACHINE


def test_bare_records_come_back_with_their_unknowns(store: Store) -> None:
    run, machine = make_run("aaaa2222"), make_machine("m", id="i-1")
    charge = make_charge(unit_price_usd=None, price_as_of=None)
    store.add_run(run, make_attempt(run.id), [charge])
    store.add_machine(machine)
    assert store.find_run(run.id) == run
    assert store.list_charges(run=charge.run)[0].unit_price_usd is None
    assert store.get_machine("m") == machine


def test_text_that_is_no_unicode_is_stored_readable(store: Store) -> None:
    """A log's tail may hold any bytes; SQLite's text may not."""
    add(store, make_run("aaaa2222", message="tail: \udcff\udc80\x00!"))
    assert store.find_run("aaaa2222").message == "tail: \\udcff\\udc80\x00!"


def test_times_are_stored_in_utc_and_never_without_a_zone(store: Store) -> None:
    tokyo = datetime(2026, 3, 4, 21, 0, tzinfo=timezone(timedelta(hours=9)))
    add(store, make_run("aaaa2222", submitted_at=tokyo), make_run("bbbb2222", minutes=1))
    assert store.find_run("aaaa2222").submitted_at == tokyo
    assert store.find_run("aaaa2222").submitted_at.tzinfo is UTC
    assert [run.id for run in store.list_runs()] == ["bbbb2222", "aaaa2222"]  # by time, not by its digits
    with pytest.raises(ValueError, match="no time zone"):
        store.update_run("aaaa2222", ended_at=datetime(2026, 1, 1))  # noqa: DTZ001  # the mistake itself


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8")),
    arguments=st.lists(st.text()),
    seconds=st.floats(allow_nan=False),
    moment=st.datetimes(timezones=st.just(UTC)),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    count=st.integers(-(2**63), 2**63 - 1),
)
def test_any_value_comes_back(store: Store, text, arguments, seconds, moment, amount, count) -> None:
    run = make_run(
        "aaaa2222",
        message=text,
        args=tuple(arguments),
        metric_value=seconds,
        started_at=moment,
        cost_usd=amount,
        outputs_bytes=count,
    )
    store.save_run(run)
    assert store.find_run("aaaa2222") == run


# --- runs --------------------------------------------------------------------------------


def test_add_run_is_all_or_nothing(store: Store) -> None:
    add(store, make_run("aaaa2222"))
    with pytest.raises(Refused, match="aaaa2222"):
        store.add_run(make_run("aaaa2222", job="other"), make_attempt("aaaa2222", 2), [make_charge()])
    with pytest.raises(Refused):  # the attempt is of a run that does not exist: nothing may stay of the run
        store.add_run(make_run("bbbb2222"), make_attempt("cccc2222"), [make_charge()])
    broken = make_charge(opened_at=NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="no time zone"):  # the last of four rows cannot be written
        store.add_run(make_run("dddd2222"), make_attempt("dddd2222"), [make_charge(), broken])
    assert [run.id for run in store.list_runs()] == ["aaaa2222"]
    assert store.find_run("last").job == "train"
    assert store.list_attempts("aaaa2222") == [make_attempt("aaaa2222")]
    assert store.list_attempts("dddd2222") == []
    assert store.list_charges() == []


def test_update_run_changes_the_named_fields_only(store: Store) -> None:
    add(store, make_run("aaaa2222"))
    store.update_run("aaaa2222", cancel_requested=True)
    changed = store.update_run("aaaa2222", state=RunState.RUNNING, machine="bench", exit_code=None)
    expected = make_run("aaaa2222", cancel_requested=True, state=RunState.RUNNING, machine="bench")
    assert changed == expected == store.find_run("aaaa2222")
    assert store.update_run("aaaa2222") == expected


def test_update_refuses_unknown_runs_and_fields(store: Store) -> None:
    add(store, make_run("aaaa2222"))
    with pytest.raises(NotFound):
        store.update_run("aaaa", state=RunState.LOST)  # a prefix is for people
    with pytest.raises(NotFound):
        store.update_run("\udcff", state=RunState.LOST)
    with pytest.raises(TypeError, match="no field colour"):
        store.update_run("aaaa2222", colour="red")
    with pytest.raises(NotFound):
        store.update_attempt("aaaa2222", 2, message="x")


def test_save_run_writes_new_and_known_ones(store: Store) -> None:
    store.save_run(make_run("aaaa2222"))
    store.add_attempt(make_attempt("aaaa2222"))
    store.save_run(make_run("aaaa2222", state=RunState.FAILED))
    assert [run.state for run in store.list_runs()] == [RunState.FAILED]
    assert len(store.list_attempts("aaaa2222")) == 1


def test_list_runs_filters_and_is_newest_first(store: Store) -> None:
    add(
        store,
        make_run("aaaa2222", minutes=3, job="a", project="p", machine="m", state=RunState.SUCCEEDED),
        make_run("bbbb2222", minutes=1, job="b", project="p", state=RunState.RUNNING),
        make_run("cccc2222", minutes=2, job="b", machine="m", state=RunState.QUEUED),
        make_run("dddd2222", minutes=2, job="d", state=RunState.LOST),
    )

    def ids(**wanted: object) -> str:
        return "".join(run.id[0] for run in store.list_runs(**wanted))  # type: ignore[arg-type]

    assert ids() == "adcb"  # of one moment: the one added later
    assert ids(limit=2) == "ad"
    assert ids(limit=0) == ""
    assert ids(job="b") == "cb"
    assert ids(project="p") == "ab"
    assert ids(machine="m") == "ac"
    assert ids(state=RunState.LOST) == "d"
    assert ids(active=True) == "cb"
    assert ids(active=True, state=RunState.LOST) == ""
    assert ids(job="b", machine="m", active=True, limit=5) == "c"


def test_counts_name_every_state(store: Store) -> None:
    add(store, make_run("aaaa2222"), make_run("bbbb2222"), make_run("cccc2222", state=RunState.LOST))
    assert store.counts() == dict.fromkeys(RunState, 0) | {RunState.STARTING: 2, RunState.LOST: 1}


def test_find_run_by_id_prefix_and_last(store: Store) -> None:
    add(store, make_run("aaaa2222", minutes=5), make_run("aabb2222"), make_run("zbcd2222"))
    assert store.find_run("aabb2222").id == "aabb2222"
    assert store.find_run("AAB").id == "aabb2222"
    assert store.find_run("z").id == "zbcd2222"
    assert store.find_run("last").id == "aaaa2222"


def test_an_unclear_prefix_lists_up_to_five(store: Store) -> None:
    add(store, *(make_run(f"aaa{letter}2222") for letter in "abcdefg"))
    with pytest.raises(Ambiguous) as refusal:
        store.find_run("aaa")
    assert "7 runs" in refusal.value.message
    assert "aaaa2222 (train, starting)" in refusal.value.message
    assert "aaaf" not in refusal.value.message
    assert "2 more" in refusal.value.message
    assert refusal.value.hint


def test_an_unknown_run_names_what_was_meant(store: Store) -> None:
    for name in ("last", "aaaa2222"):
        with pytest.raises(NotFound) as empty:
            store.find_run(name)
        assert "machines adopt" in empty.value.hint
    add(store, make_run("aaaa2222", job="svhn_rcnn"))
    with pytest.raises(NotFound) as typo:
        store.find_run("aaab2222")
    assert "aaaa2222" in typo.value.hint
    with pytest.raises(NotFound) as job:
        store.find_run("svhn_rcnn")
    assert "aaaa2222" in job.value.hint
    for wild in ("", "%", "a%", "_aaa", "aaaa2222x", "' OR 1=1 --", "\udcff"):
        with pytest.raises(NotFound):
            store.find_run(wild)


# --- attempts and stages -----------------------------------------------------------------


def test_attempts_are_numbered_and_updated_alone(store: Store) -> None:
    add(store, make_run("aaaa2222"))
    store.add_attempt(make_attempt("aaaa2222", 2))
    with pytest.raises(Refused):
        store.add_attempt(make_attempt("aaaa2222", 2))
    with pytest.raises(NotFound):
        store.add_attempt(make_attempt("bbbb2222"))
    changed = store.update_attempt("aaaa2222", 2, outcome=Outcome.PREEMPTED, ended_at=NOON)
    assert changed == replace(make_attempt("aaaa2222", 2), outcome=Outcome.PREEMPTED, ended_at=NOON)
    assert store.list_attempts("aaaa2222") == [make_attempt("aaaa2222"), changed]


def test_stages_stand_in_the_order_walked(store: Store) -> None:
    add(store, make_run("aaaa2222"))
    walked = [(1, Stage.LAUNCH, NOON, 0.5), (1, Stage.FOLLOW, NOON, 2.25), (1, Stage.FOLLOW, NOON, 1.0)]
    for attempt, stage, at, seconds in walked:
        store.add_stage("aaaa2222", attempt, stage, at, seconds)
    assert store.list_stages("aaaa2222") == walked
    with pytest.raises(NotFound):
        store.add_stage("bbbb2222", 1, Stage.LAUNCH, NOON, 0.5)


# --- machines ----------------------------------------------------------------------------


def test_a_name_belongs_to_one_live_machine(store: Store) -> None:
    store.add_machine(make_machine("bench", token="a"))
    with pytest.raises(Refused, match="bench") as refusal:
        store.add_machine(make_machine("bench", token="b"))
    assert "terminate bench" in refusal.value.hint
    store.update_machine("bench", state=MachineState.TERMINATED)
    store.add_machine(make_machine("bench", token="b"))
    assert store.get_machine("bench") == make_machine("bench", token="b")
    assert [machine.token for machine in store.list_machines()] == ["b"]
    assert [machine.token for machine in store.list_machines(all=True)] == ["b", "a"]


def test_save_machine_finds_the_row_of_the_same_machine(store: Store) -> None:
    store.add_machine(make_machine("bench", token="a"))
    store.save_machine(make_machine("bench", token="a", id="i-1", state=MachineState.PREEMPTED))
    store.add_machine(make_machine("bench", token="b", id="i-2"))
    late = make_machine("bench", token="a", id="i-1", state=MachineState.TERMINATED)
    store.save_machine(late)  # of the first one, though another has its name now
    assert store.list_machines(all=True) == [make_machine("bench", token="b", id="i-2"), late]
    with pytest.raises(Refused):
        store.save_machine(replace(late, state=MachineState.RUNNING))
    with pytest.raises(Refused):
        store.save_machine(make_machine("bench", token="c", id="i-3"))
    store.save_machine(make_machine("host", id="h-1"))
    store.save_machine(make_machine("host", id="h-1", state=MachineState.RUNNING))  # attached: no token
    assert store.find_machine("host").state is MachineState.RUNNING


def test_save_machine_fills_the_row_that_waits_for_its_launch(store: Store) -> None:
    store.add_machine(make_machine("bench"))
    store.save_machine(make_machine("bench", id="i-1", token="t"))
    assert store.list_machines(all=True) == [make_machine("bench", id="i-1", token="t")]


def test_update_machine_means_the_live_one(store: Store) -> None:
    store.add_machine(make_machine("bench", token="a"))
    store.update_machine("bench", state=MachineState.TERMINATED)
    assert store.update_machine("bench", ended_at=NOON).token == "a"
    store.add_machine(make_machine("bench", token="b"))
    assert store.update_machine("bench", provisioned=True).token == "b"
    with pytest.raises(NotFound):
        store.update_machine("benches", provisioned=True)
    store.update_machine("bench", state=MachineState.TERMINATED)
    assert store.get_machine("bench").token == "b"  # type: ignore[union-attr]
    assert store.get_machine("benc") is None


def test_find_machine_by_name_id_and_prefix(store: Store) -> None:
    store.add_machine(make_machine("bench", id="i-11"))
    store.update_machine("bench", state=MachineState.TERMINATED)
    store.add_machine(make_machine("bench-2", id="i-22"))
    store.add_machine(make_machine("train", id="i-12"))
    assert store.find_machine("bench").id == "i-11"  # exact, though gone
    assert store.find_machine("ben").id == "i-22"  # the live one of two
    assert store.find_machine("i-12").name == "train"
    assert store.find_machine("i-11").name == "bench"
    assert store.find_machine("i-2").name == "bench-2"
    with pytest.raises(Ambiguous, match="bench-2, train"):
        store.find_machine("i-")
    with pytest.raises(NotFound) as typo:
        store.find_machine("trian")
    assert "train" in typo.value.hint
    for wild in ("", "%", "\udcff"):
        with pytest.raises(NotFound):
            store.find_machine(wild)


def test_find_machine_in_an_empty_store_names_adopt(store: Store) -> None:
    with pytest.raises(NotFound) as refusal:
        store.find_machine("bench")
    assert "machines adopt" in refusal.value.hint


def test_claim_name_never_gives_the_same_name_twice(store: Store) -> None:
    assert [store.claim_name("local") for _ in range(3)] == ["local", "local-2", "local-3"]
    store.add_machine(make_machine("local"))  # its claim has become a machine
    assert store.claim_name("local") == "local-4"
    store.update_machine("local", state=MachineState.TERMINATED)
    assert store.claim_name("local") == "local"


def test_a_claim_that_nobody_used_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.claim_name("local") == "local"
    monkeypatch.setattr("cloudrun.store.CLAIM_S", -1.0)
    assert store.claim_name("local") == "local"


# --- charges -----------------------------------------------------------------------------


def test_a_charge_is_closed_once(store: Store) -> None:
    charge = store.add_charge(make_charge())
    assert charge == make_charge(id=1)
    closed = store.close_charge(1, NOON + timedelta(hours=1))
    assert closed.closed_at == NOON + timedelta(hours=1)
    assert store.close_charge(1, NOON + timedelta(hours=9)) == closed  # the first stop time stays
    assert store.list_charges() == [closed]
    with pytest.raises(NotFound):
        store.close_charge(2, NOON)


def test_a_void_charge_stays_in_the_ledger(store: Store) -> None:
    store.add_charge(make_charge())
    assert store.void_charge(1) == store.void_charge(1) == make_charge(id=1, void=True)
    assert store.list_charges() == [make_charge(id=1, void=True)]
    assert store.list_charges(open_only=True) == []
    with pytest.raises(NotFound):
        store.void_charge(2)


def test_list_charges_filters(store: Store) -> None:
    for run, machine in (("a", "m"), ("a", "n"), ("", "m")):
        store.add_charge(make_charge(run=run, machine=machine))
    store.close_charge(1, NOON)
    assert [charge.id for charge in store.list_charges(run="a")] == [1, 2]
    assert [charge.id for charge in store.list_charges(machine="m")] == [1, 3]
    assert [charge.id for charge in store.list_charges(machine="m", open_only=True)] == [3]
    assert [charge.id for charge in store.list_charges(open_only=True)] == [2, 3]


# --- names -------------------------------------------------------------------------------


def test_run_ids_are_random_and_typeable() -> None:
    ids = {new_run_id() for _ in range(500)}
    assert len(ids) == 500
    assert {len(one) for one in ids} == {8}
    assert set("".join(ids)) == set(RUN_ID_ALPHABET)  # every character, and no other


@given(st.lists(st.sampled_from(["m", "m-2", "m-3", "m-4", "x"])))
def test_numbered_takes_the_first_free_name(taken: list[str]) -> None:
    name = numbered("m", taken)
    assert name not in taken
    before = ["m", "m-2", "m-3", "m-4", "m-5"]
    assert set(before[: before.index(name)]) <= set(taken)


def test_the_folder_of_the_store_is_for_its_owner(tmp_path: Path) -> None:
    with Store(tmp_path / "a" / "home" / "s.sqlite") as store:
        store.counts()
    assert (tmp_path / "a" / "home").stat().st_mode & 0o077 == 0
