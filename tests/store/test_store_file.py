"""The file under the store: migrations, damage, deletion, many processes, and kills at any point."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from store_samples import (
    FULL_ATTEMPT,
    FULL_CHARGE,
    FULL_MACHINE,
    FULL_RUN,
    make_attempt,
    make_charge,
    make_run,
)

from cloudrun.errors import ConfigError, NotFound
from cloudrun.models import RunState
from cloudrun.store import Store
from cloudrun.store_file import StoreFile
from cloudrun.store_rows import TABLES, insertion, to_row
from cloudrun.store_schema import MIGRATIONS, migrate

HERE = Path(__file__).parent
PROCESSES = 20


# --- schema and migrations ---------------------------------------------------------------


def test_every_field_has_a_column(store: Store) -> None:
    store.counts()
    with sqlite3.connect(store.path) as db:
        for record, table in TABLES.items():
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            assert columns - {"seq"} == {item.name for item in fields(record)}, table
    db.close()


def test_a_version_1_file_with_rows_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    write_version_1(path)
    with Store(path) as store:
        assert store.find_run(FULL_RUN.id) == replace(FULL_RUN, env=())
        assert store.list_attempts(FULL_RUN.id) == [replace(FULL_ATTEMPT, received_bytes=0)]
        assert store.list_machines() == [replace(FULL_MACHINE, idle_minutes=None, disk_gb=0)]
        assert store.list_charges() == [replace(FULL_CHARGE, id=1, follows=False)]
        assert store.update_run(FULL_RUN.id, env=(("A", "b"),)).env == (("A", "b"),)
        assert store.claim_name("local") == "local"
    assert schema_of(path) == schema_of(fresh_file(tmp_path))


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sqlite"
    write_version_1(path)
    before = schema_of(path)
    broken = (*MIGRATIONS[:-1], (*MIGRATIONS[-1], "CREATE TABLE runs (twice TEXT)"))
    with monkeypatch.context() as patch:
        patch.setattr("cloudrun.store_schema.MIGRATIONS", broken)
        with pytest.raises(ConfigError):
            Store(path).list_runs()
    assert schema_of(path) == before
    with Store(path) as store:
        assert store.find_run("last").id == FULL_RUN.id


def test_a_newer_schema_is_refused_and_left_alone(store: Store) -> None:
    store.counts()
    store.close()
    newer = len(MIGRATIONS) + 1
    with sqlite3.connect(store.path) as db:
        db.execute(f"PRAGMA user_version = {newer}")
    db.close()
    with pytest.raises(ConfigError, match=f"schema {newer}") as refusal:
        store.list_runs()
    assert "upgrade" in refusal.value.hint


def test_the_lists_of_status_use_indexes(store: Store) -> None:
    """So that their time does not grow with the number of runs: no scan of the table, no sorting of it."""
    wanted = (
        "ORDER BY submitted_at DESC, seq DESC LIMIT 20",
        "WHERE job = 'j' ORDER BY submitted_at DESC, seq DESC LIMIT 20",
        "WHERE project = 'p' ORDER BY submitted_at DESC, seq DESC LIMIT 20",
        "WHERE machine = 'm' ORDER BY submitted_at DESC, seq DESC LIMIT 20",
        "WHERE state = 'lost' ORDER BY submitted_at DESC, seq DESC LIMIT 20",
        "WHERE id >= 'ab' AND id < 'ac'",
    )
    store.counts()
    with sqlite3.connect(store.path) as db:
        for rest in wanted:
            steps = plan_of(db, f"SELECT * FROM runs {rest}")
            assert "USING INDEX" in steps, rest
            assert "TEMP B-TREE" not in steps, rest
        active = "SELECT * FROM runs WHERE state IN ('queued', 'running') ORDER BY submitted_at DESC"
        assert "SEARCH runs USING INDEX runs_by_state" in plan_of(db, active)
        assert "COVERING INDEX" in plan_of(db, "SELECT state, count(*) FROM runs GROUP BY state")
    db.close()


# --- damage ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"no database " * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_store_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged") as refusal:
        Store(path).find_run("last")
    assert "machines adopt" in refusal.value.hint
    assert str(path) in refusal.value.message
    assert path.read_bytes() == content


def test_damaged_pages_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Every page overwritten in turn: each method answers, or says that the store is damaged."""
    path = fresh_file(tmp_path)
    whole, refused = path.read_bytes(), list[str]()
    for page in range(len(whole) // 4096):
        path.write_bytes(whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :])
        for use in (Store.list_runs, Store.list_charges, Store.counts, add_one):
            with Store(path) as store:
                try:
                    use(store)
                except ConfigError as error:
                    refused.append(error.hint)
    assert refused
    assert all("machines adopt" in hint for hint in refused)


def test_a_value_that_no_cloudrun_wrote_is_damage(store: Store) -> None:
    store.add_run(FULL_RUN, FULL_ATTEMPT, [])
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE runs SET state = 'dancing'")
    db.close()
    with pytest.raises(ConfigError, match="dancing"):
        store.find_run("last")


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError) as refusal:
        Store(tmp_path / "file" / "s.sqlite").counts()
    assert "CLOUDRUN_HOME" in refusal.value.hint
    (tmp_path / "s.sqlite").mkdir()
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(tmp_path / "s.sqlite").counts()


def test_a_store_held_too_long_is_explained(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.counts()
    store.close()
    monkeypatch.setattr("cloudrun.store_file.PATIENCE_S", 0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfigError, match="another process"):
        store.claim_name("local")
    assert store.list_runs() == []  # reading goes on beside a writer
    other.execute("ROLLBACK")
    other.close()
    assert store.claim_name("local") == "local"


def test_the_switch_to_wal_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses it at once while another process writes, whatever the busy timeout."""
    path, pauses = tmp_path / "s.sqlite", list[float]()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("BEGIN IMMEDIATE")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        other.close()  # the other is done

    monkeypatch.setattr("cloudrun.store_file.time.sleep", pause)
    with Store(path) as store:
        assert store.list_runs() == []
    assert len(pauses) == 1


def test_a_store_deleted_under_us_starts_anew(store: Store) -> None:
    """The open file would take writes that nobody ever sees again."""
    add_one(store)
    for file in store.path.parent.iterdir():
        file.unlink()
    with pytest.raises(NotFound) as refusal:
        store.update_run("aaaa2222", state=RunState.RUNNING)
    assert "machines adopt" in refusal.value.hint
    add_one(store)
    with Store(store.path) as other:
        assert other.find_run("last").id == "aaaa2222"


def test_a_failed_method_leaves_no_transaction_open(store: Store) -> None:
    with pytest.raises(NotFound):
        store.update_run("aaaa2222", state=RunState.RUNNING)
    with Store(store.path) as other:
        add_one(other)  # would wait for ever on a held write lock
    assert store.find_run("last").id == "aaaa2222"


@pytest.mark.parametrize(("durable", "expected"), [(True, 2), (False, 1)])
def test_only_what_precedes_a_paid_call_is_flushed(store: Store, durable: bool, expected: int) -> None:
    with store._write(durable=durable) as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == expected
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_records_before_a_paid_call_are_flushed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    write = StoreFile._write

    def seen(self: StoreFile, *, durable: bool = False):
        flushed.append(durable)
        return write(self, durable=durable)

    monkeypatch.setattr(StoreFile, "_write", seen)
    store.add_run(FULL_RUN, FULL_ATTEMPT, [])
    store.add_attempt(make_attempt(FULL_RUN.id, 2))
    store.add_machine(FULL_MACHINE)
    store.add_charge(FULL_CHARGE)
    assert flushed == [True] * 4


# --- threads and processes ---------------------------------------------------------------


def test_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> None:
        for step in range(10):
            run = make_run(f"{number}{step}aaaaaa")
            store.add_run(run, make_attempt(run.id), [make_charge(run=run.id)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list_runs()) == len(store.list_charges()) == 60


def test_a_forked_child_opens_its_own_connection(store: Store) -> None:
    add_one(store)
    child = os.fork()
    if child == 0:  # no pytest in here: leave by _exit alone
        try:
            store.update_run("aaaa2222", message="from the child")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store.find_run("aaaa2222").message == "from the child"
    store.update_run("aaaa2222", job="parent")
    assert store.find_run("aaaa2222").job == "parent"


WRITER = """
import sys
from store_samples import make_attempt, make_charge, make_machine, make_run, NOON
from cloudrun.models import MachineState, RunState, Stage
from cloudrun.store import Store
from pathlib import Path

path, number, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()  # all begin at once, on a store that is not there yet
for step in range(rounds):
    with Store(path) as store:  # opened and closed each time, as by one command after the other
        id = f"{number:02}{step:02}aaaa"
        store.add_run(make_run(id), make_attempt(id), [make_charge(run=id), make_charge(run=id)])
        name = store.claim_name("local")
        store.add_machine(make_machine(name, token=id))
        store.update_run(id, state=RunState.RUNNING, machine=name)
        store.add_stage(id, 1, Stage.LAUNCH, NOON, 0.5)
        store.update_attempt(id, 1, machine=name)
        shared = store.find_run("shared22")
        for charge in store.list_charges(run=id, open_only=True)[:1]:
            store.close_charge(charge.id, NOON)
        store.update_machine(name, state=MachineState.RUNNING)
        store.list_runs(limit=5)
        store.counts()
    print(id, name, flush=True)
"""


def test_twenty_processes_lose_nothing(tmp_path: Path) -> None:
    """All of them make the store, switch it to WAL and migrate it at the same moment: a version 1 file."""
    path, rounds = tmp_path / "s.sqlite", 3
    write_version_1(path, run=replace(FULL_RUN, id="shared22"))
    answers = [finish(writer) for writer in started(WRITER, path, rounds)]
    assert [error for _, _, error in answers if error] == []
    assert {code for code, _, _ in answers} == {0}
    lines = [line.split() for _, output, _ in answers for line in output.splitlines()]
    ids, names = zip(*lines, strict=True)
    assert len(set(ids)) == len(set(names)) == PROCESSES * rounds
    with Store(path) as store:
        runs = {run.id: run for run in store.list_runs(job="train")}
        assert {run.id: run.machine for run in runs.values()} == dict(lines)
        assert {run.state for run in runs.values()} == {RunState.RUNNING}
        assert {
            machine.token: machine.name for machine in store.list_machines() if machine.token in runs
        } == dict(lines)
        assert len(store.list_charges(open_only=True)) == PROCESSES * rounds
        assert all(len(store.list_stages(run)) == 1 for run in runs)
        assert all(store.list_attempts(run.id)[0].machine == run.machine for run in runs.values())


def test_twenty_processes_make_a_store_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from cloudrun.store import Store; sys.stdin.readline();"
        "print(Store(Path(sys.argv[1])).claim_name('local'))"
    )
    answers = [finish(one) for one in started(program, tmp_path / "home" / "s.sqlite", 1)]
    assert [error for _, _, error in answers if error] == []
    assert len({output for _, output, _ in answers}) == PROCESSES


ENDLESS_WRITER = """
import sys
from store_samples import make_attempt, make_charge, make_run
from cloudrun.models import RunState
from cloudrun.store import Store
from pathlib import Path

store, number = Store(Path(sys.argv[1])), int(sys.argv[2])
for step in range(10_000):
    id = f"{number}{step:05}aa"
    store.add_run(make_run(id, message="x" * 20_000), make_attempt(id), [make_charge(run=id)] * 20)
    store.update_run(id, state=RunState.RUNNING, message="y" * 20_000)
    print(id, flush=True)
"""


def test_a_writer_killed_at_any_point_leaves_whole_records(tmp_path: Path) -> None:
    path, told = tmp_path / "s.sqlite", set()
    for number in range(6):
        writer = process(ENDLESS_WRITER, path, str(number))
        assert writer.stdout is not None
        for _ in range(1 + number):  # at another point of its work each time
            told.add(writer.stdout.readline().strip())
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        told |= set(rest.split())
    with Store(path) as store:
        runs = {run.id: run for run in store.list_runs()}
        assert told <= set(runs)  # what a process was told is stored stays stored
        for run in runs.values():
            assert run.message in ("x" * 20_000, "y" * 20_000)
            assert (run.message[0] == "y") == (run.state is RunState.RUNNING)
            assert len(store.list_attempts(run.id)) == 1
            assert len(store.list_charges(run=run.id)) == 20
        add_one(store)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_the_store_loads_quickly() -> None:
    """`cloudrun status` starts with it: nothing heavy may come along."""
    program = "import sys, cloudrun.store; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"csv", "random", "tempfile", "difflib", "pydantic", "asyncio"} & set(loaded.stdout.split())


# --- helpers -----------------------------------------------------------------------------


def add_one(store: Store) -> None:
    store.add_run(make_run("aaaa2222"), make_attempt("aaaa2222"), [make_charge()])


def fresh_file(folder: Path) -> Path:
    """A store of today's version with one of everything, in one file without a WAL beside it."""
    path = folder / "fresh.sqlite"
    with Store(path) as store:
        store.add_run(FULL_RUN, FULL_ATTEMPT, [FULL_CHARGE])
        store.add_machine(FULL_MACHINE)
    return path


LATER_FIELDS = ("env", "idle_minutes", "disk_gb", "follows", "received_bytes")  # came with versions 2 to 7


def write_version_1(path: Path, run=FULL_RUN) -> None:
    """As the first cloudrun left it: without what later versions added."""
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, to=1)
    for record in (run, replace(FULL_ATTEMPT, run=run.id), FULL_MACHINE, FULL_CHARGE):
        row = {name: value for name, value in to_row(record).items() if name not in LATER_FIELDS}
        db.execute(insertion(type(record), row), [*row.values()])
    db.close()


def schema_of(path: Path) -> tuple[int, set[tuple[str, ...]]]:
    db = sqlite3.connect(path)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    found = {row for (name,) in db.execute("SELECT name FROM sqlite_master") for row in columns(db, name)}
    db.close()
    return version, found


def columns(db: sqlite3.Connection, name: str) -> Iterator[tuple[str, ...]]:
    yield (name,)
    for row in db.execute(f'PRAGMA table_info("{name}")'):
        yield (name, *(str(cell) for cell in row[1:4]))


def plan_of(db: sqlite3.Connection, query: str) -> str:
    return " / ".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN " + query))


def started(program: str, path: Path, rounds: int) -> list[subprocess.Popen[str]]:
    """Many processes that are ready, then let go together."""
    ready = [process(program, path, str(number), str(rounds)) for number in range(PROCESSES)]
    for one in ready:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    return ready


def process(program: str, path: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, *HERE.parents[:2])))},
    )


def finish(one: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, error = one.communicate(timeout=150)
    return one.returncode, output, error
