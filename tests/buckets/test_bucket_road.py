"""`submit --outputs`: a run's outputs go home and to its bucket, and come back from there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bucket_cases import Case, one_bucket
from click.testing import CliRunner

from cloudrun.audit_buckets import bucket_items
from cloudrun.cleaning import Choice
from cloudrun.cli import app as cli
from cloudrun.client import Client
from cloudrun.config import Settings, load_settings
from cloudrun.errors import Credentials, NotFound, Refused, TransferFailed
from cloudrun.events import Event, Progress, ignore
from cloudrun.models import Run, RunState
from cloudrun.providers import load_provider

KILLED = Path(__file__).with_name("release_killed.py")
SCRIPT = """
import os, pathlib
out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
(out / "sub").mkdir(parents=True)
(out / "sub" / "result.txt").write_text("42")
(out / "metrics.jsonl").write_text("{}")
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    settings = Settings(home=tmp_path / "home", poll_s=0.2)
    monkeypatch.setenv("CLOUDRUN_HOME", str(settings.home))
    yield Client(settings)
    provider = load_provider("local", settings)
    for machine in provider.list_machines():
        provider.terminate(machine)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "job.py").write_text(SCRIPT)
    (folder / "job.toml").write_text('name = "tiny"\ncommand = ["python3", "job.py"]\nstack = "none"\n')
    return folder


def walked(client: Client, job: Path, case: Case) -> Run:
    plan = client.plan(job, type="local", outputs_to=case.address)
    assert plan.outputs_to == case.address
    run = client.submit(plan)
    assert (run.state, run.message) == (RunState.SUCCEEDED, "")
    return run


def test_outputs_go_home_and_to_the_bucket(client: Client, job: Path, case: Case) -> None:
    run = walked(client, job, case)
    assert [file.path for file in client.outputs(run.id)] == ["metrics.jsonl", "sub/result.txt"]
    assert [file.path for file in client.bucket_outputs(run.id)] == ["metrics.jsonl", "sub/result.txt"]
    listed = CliRunner().invoke(cli, ["outputs", "list", run.id, "--json"])
    assert [each["where"] for each in json.loads(listed.stdout)] == [["home", "bucket"]] * 2


@one_bucket
def test_what_was_cleaned_away_at_home_is_found_in_the_bucket(client: Client, job: Path, case: Case) -> None:
    run = walked(client, job, case)
    assert bucket_items(client.settings, on_event=ignore) == []
    client.clean(client.plan_cleanup(Choice()))
    assert not client.files(run.id).folder.exists()
    [shown] = bucket_items(client.settings, on_event=ignore)
    assert (shown.run, shown.used_by, shown.remark) == (run.id, case.address, "its run was cleaned away here")
    listed = CliRunner().invoke(cli, ["outputs", "list", run.id, "--json"])
    assert [each["where"] for each in json.loads(listed.stdout)] == [["bucket"]] * 2
    assert f"2 files, 4 B, in {case.address}" in CliRunner().invoke(cli, ["outputs", "list", run.id]).output
    got = CliRunner().invoke(cli, ["outputs", "get", run.id, "sub/result.txt", "--to", "-"])
    assert got.stdout == "42"
    assert [file.path for file in client.outputs(run.id)] == ["sub/result.txt"]
    assert CliRunner().invoke(cli, ["outputs", "pull", run.id]).exit_code == 0
    assert [file.path for file in client.outputs(run.id)] == ["metrics.jsonl", "sub/result.txt"]
    found = client.plan_bucket_cleanup(Choice())
    assert [(going.run.id, going.bucket) for going in found.runs] == [(run.id, case.address)]
    client.clean_buckets(found)
    assert list(case.bucket.list()) == []
    assert client.outputs_place(run.id) == ""


@one_bucket
def test_damage_is_said_and_nothing_damaged_comes_home(client: Client, job: Path, case: Case) -> None:
    run = walked(client, job, case)
    shutil.rmtree(client.files(run.id).outputs)
    case.corrupt(f"{run.id}/sub/result.txt")
    with pytest.raises(TransferFailed):
        client.fetch_outputs(run.id, path="sub")
    assert client.outputs(run.id) == []


@one_bucket
def test_a_bucket_that_is_not_there_is_known_before_anything_is_spent(
    client: Client, job: Path, case: Case
) -> None:
    with pytest.raises(NotFound, match="nobody-made-this"):
        client.plan(job, type="local", outputs_to=case.absent)
    with pytest.raises(Refused, match="no place"):
        client.plan(job, type="local", outputs_to="ftp://somewhere")


@one_bucket
def test_outputs_are_stored_when_the_machine_is_gone(client: Client, job: Path, case: Case) -> None:
    """A slow upload bills no machine."""
    up: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progress) and event.what == "store":
            up.append(len(client.store.list_machines()))

    client.submit(client.plan(job, type="local", outputs_to=case.address), on_event=watch)
    assert up
    assert set(up) == {0}


@one_bucket
def test_a_client_killed_while_it_stores_is_followed_by_one_that_goes_on(
    client: Client, job: Path, case: Case
) -> None:
    argv = [sys.executable, str(KILLED), str(client.settings.home), str(job), case.address]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -9, done.stderr
    (run,) = client.runs()
    assert not run.state.final
    assert client.machines() == []
    assert client.bucket_outputs(run.id) == []
    run = client.attach(run.id)
    assert (run.state, run.exit_code, run.message) == (RunState.SUCCEEDED, 0, "")
    assert [file.path for file in client.bucket_outputs(run.id)] == ["metrics.jsonl", "sub/result.txt"]
    assert client.store.list_charges(open_only=True) == []


@one_bucket
def test_the_setting_gives_every_run_a_bucket(
    client: Client, job: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDRUN_OUTPUTS", case.address)
    planned = CliRunner().invoke(cli, ["submit", str(job), "--on", "local", "--dry-run", "--json"])
    assert planned.exit_code == 0, planned
    assert json.loads(planned.stdout)["outputs_to"] == case.address
    assert Client(load_settings()).plan(job, type="local").outputs_to == case.address
    other = case.address + "/other"
    assert Client(load_settings()).plan(job, type="local", outputs_to=other).outputs_to == other


@one_bucket
def test_push_stores_what_came_later_and_says_how_much(client: Client, job: Path, case: Case) -> None:
    run = walked(client, job, case)
    (client.files(run.id).outputs / "notes.txt").write_text("later")
    pushed = CliRunner().invoke(cli, ["outputs", "push", run.id])
    assert (pushed.exit_code, pushed.stdout.strip()) == (0, f"{case.address}/{run.id}")
    assert "5 B sent" in pushed.stderr
    assert "notes.txt" in [file.path for file in client.bucket_outputs(run.id)]
    assert "0 B sent" in CliRunner().invoke(cli, ["outputs", "push", run.id]).stderr


@one_bucket
def test_a_bucket_that_may_not_be_written_costs_no_outputs(client: Client, job: Path, case: Case) -> None:
    case.forbid_storing()
    run = client.submit(client.plan(job, type="local", outputs_to=case.address))
    assert run.state is RunState.SUCCEEDED
    assert f"cloudrun outputs push {run.id}" in run.message
    pushed = CliRunner().invoke(cli, ["outputs", "push", run.id])
    assert isinstance(pushed.exception, Credentials)


@one_bucket
def test_a_bucket_that_went_away_costs_no_outputs(client: Client, job: Path, case: Case) -> None:
    """The run is what it is; its outputs are home, and the message says what to do."""
    plan = replace(client.plan(job, type="local"), outputs_to=case.absent)
    run = client.submit(plan)
    assert run.state is RunState.SUCCEEDED
    assert f"cloudrun outputs push {run.id}" in run.message
    assert [file.path for file in client.outputs(run.id)] == ["metrics.jsonl", "sub/result.txt"]
    with pytest.raises(NotFound):
        client.push_outputs(run.id)
