"""`cloudrun clean --on`: the choice of home, on machines that stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudrun.cleaning import Choice
from cloudrun.cli import run as cli
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.errors import Refused
from cloudrun.events import Event, Note
from cloudrun.models import Run, RunState

JobMaker = Callable[..., Path]

LEAVES = """
    import os, pathlib, sys
    out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
    (out / "checkpoint").mkdir(parents=True)
    (out / "checkpoint" / "model").write_bytes(b"m" * 1000)
    (out / "curve").write_bytes(b"c" * 5000)
    sys.exit(int(sys.argv[1]))
"""


def there(client: Client, run: Run, name: str = "bench") -> set[str]:
    """What is on the machine of a run's only attempt."""
    base = client.settings.home / "machines" / name / "home" / ".cloudrun" / "runs" / f"{run.id}.1"
    folder = base / "code"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def ran(client: Client, job: Path, code: int = 0, on: str = "bench") -> Run:
    return client.submit(client.plan(job, on=on, args=(str(code),)))


def test_the_same_choice_one_command_a_machine(client: Client, make_job: JobMaker) -> None:
    client.launch(name="bench", stack="none")
    job, resuming = make_job(LEAVES), make_job(LEAVES, name="resuming", resume=True)
    plain, pinned, failed = ran(client, job), ran(client, job), ran(client, resuming, 1)
    assert failed.state is RunState.FAILED
    client.pin(pinned.id)
    cleanup = client.plan_machine_cleanup(Choice(), on="bench")
    assert {going.run.id: going.machine for going in cleanup.runs} == {plain.id: "bench", failed.id: "bench"}
    assert (cleanup.pinned, cleanup.resumable, cleanup.only_copies) == (1, 1, 0)
    assert "outputs/curve" in there(client, plain)  # planning takes nothing
    done = client.clean_machines(cleanup)
    assert (done.runs, done.skipped, done.size_bytes) == (2, 0, cleanup.size_bytes)
    assert there(client, plain) == set()
    assert there(client, pinned) == {"job.py", "job.toml", "outputs/curve", "outputs/checkpoint/model"}
    assert there(client, failed) == {"job.py", "job.toml", "outputs/checkpoint/model"}
    assert (client.files(plain.id).outputs / "curve").stat().st_size == 5000  # home is not touched
    assert client.plan_machine_cleanup(Choice()).runs == ()
    assert client.restart(failed.id).state is RunState.FAILED  # it goes on from its checkpoint


def test_what_changes_meanwhile_stays(client: Client, make_job: JobMaker) -> None:
    client.launch(name="bench", stack="none")
    job = make_job(LEAVES)
    first, second = ran(client, job), ran(client, job)
    cleanup = client.plan_machine_cleanup(Choice())
    client.pin(first.id)
    assert client.clean_machines(cleanup).skipped == 1
    assert there(client, first)
    assert not there(client, second)


def test_as_it_is_typed(
    client: Client,
    make_job: JobMaker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CLOUDRUN_HOME", str(client.settings.home))
    client.launch(name="bench", stack="none")
    client.launch(name="other", stack="none")
    job = make_job(LEAVES)
    one, two = ran(client, job), ran(client, job, on="other")
    client.clean(client.plan_cleanup(Choice()))
    capsys.readouterr()
    assert cli(("clean", "--on", "all", "--dry-run", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert {each["id"]: each["machine"] for each in said["runs"]} == {one.id: "bench", two.id: "other"}
    assert cli(("clean", "--on", "other", "-y", "--larger-than", "1KB")) == 0
    out, err = capsys.readouterr()
    assert "other" in out
    assert "nowhere but there" in err
    assert "deleted" in err
    assert "--undo" not in err
    assert not there(client, two, "other")
    assert there(client, one)
    assert cli(("clean", "--on", "other", "--undo")) == 2


def test_a_machine_that_does_not_answer(client: Client, make_job: JobMaker, settings: Settings) -> None:
    client.launch(name="bench", stack="none")
    client.launch(name="other", stack="none")
    job = make_job(LEAVES)
    one, two = ran(client, job), ran(client, job, on="other")
    client.stop("other")
    with pytest.raises(Refused, match="does not run"):
        client.plan_machine_cleanup(Choice(), on="other")
    client.store.update_machine("other", state=client.machine("bench").state)  # not heard of it yet
    notes: list[Event] = []
    cleanup = Client(settings).plan_machine_cleanup(Choice(), on_event=notes.append)
    assert [going.run.id for going in cleanup.runs] == [one.id]
    assert [event.message for event in notes if isinstance(event, Note) and "other" in event.message]
    assert there(client, two, "other")
