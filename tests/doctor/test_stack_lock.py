"""What a run ran on is in its record, and stays there whatever becomes of the machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from rented_help import DRILL

from cloudrun.cli import run_view
from cloudrun.cli.status import status
from cloudrun.client import Client
from cloudrun.models import Machine, RunState
from cloudrun.runfiles import RunFiles

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_run_keeps_what_its_machine_held(client: Client, k80: Machine) -> None:
    plan = client.plan(DRILL, on="k80", stack="cuda8-theano", args=("--epochs", "1"))
    run = client.submit(plan)
    assert run.state is RunState.SUCCEEDED
    lock = client.stack_lock(run.id)
    kept = client.machine("k80").versions
    assert lock == dict(kept)
    assert (lock["theano"], lock["driver"], lock["apt:cuda-8-0"]) == ("0.9.0", "384.66", "8.0.61-1")
    assert client.files(run.id).load_record()["stack_locks"] == {"1": dict(lock)}

    client.store.update_machine("k80", versions=(("theano", "1.0.0"), ("driver", "390.30")))
    try:
        assert client.restart(run.id).state is RunState.SUCCEEDED  # on what it holds by now
    finally:
        client.store.update_machine("k80", versions=kept)
    locks = client.files(run.id).stack_locks()
    assert locks["1"] == dict(kept)
    assert locks["2"] == {"theano": "1.0.0", "driver": "390.30"} == client.stack_lock(run.id)

    shown = CliRunner().invoke(status, [run.id, "--json"])
    assert json.loads(shown.stdout)["stack_lock"] == locks["2"]
    shown = CliRunner().invoke(status, [run.id])
    assert "versions   theano 1.0.0" in shown.stdout


def test_the_lock_as_people_read_it(client: Client, k80: Machine) -> None:
    run = client.submit(client.plan(DRILL, on="k80", stack="cuda8-theano", args=("--epochs", "1")))
    lock = {
        "apt:cuda-8-0": "8.0.61-1",
        "cpu_count": "4",
        "cuda": "",
        "disk_free_bytes": "1",
        "driver": "384.66",
        "gpu": "Tesla K80",
        "gpu_count": "1",
        "python": "3.5.2",
        "stack-hash": "0" * 64,
        "theano": "0.9.0",
    }
    lines = run_view.detail_lines(run, [], [], Path("/nowhere"), NOW, lock=lock)
    assert "gpu        1 x Tesla K80, driver 384.66" in lines
    assert "versions   python 3.5.2, theano 0.9.0" in lines
    assert "packages   cuda-8-0 8.0.61-1" in lines
    without = run_view.detail_lines(run, [], [], Path("/nowhere"), NOW)
    assert [line for line in without if line.startswith(("gpu", "versions", "packages"))] == []


@pytest.mark.parametrize("text", ["", "[]", '{"stack_locks": 3}', '{"stack_locks": {"x": {"a": 1}}}', "{}"])
def test_a_record_that_is_odd_has_no_lock(client: Client, text: str) -> None:
    files = RunFiles(client.settings, "oddrecord")
    files.create()
    files.record.write_text(text)
    assert files.stack_locks() == {}
