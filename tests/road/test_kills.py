"""kill -9 of the client at every boundary: then status is true, attach finishes, nothing is lost or left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloudrun.client import Client
from cloudrun.models import MachineState, Run, RunState

WALKER = Path(__file__).with_name("walker.py")
COUNTS = """
    import json, os, time
    out = os.environ["CLOUDRUN_OUTPUT_DIR"]
    for step in range(3):
        print("step", step)
        time.sleep(0.2)
    open(out + "/whole.json", "w").write(json.dumps(list(range(20000))))
"""
POINTS = [
    "before launch",
    "asking",
    "answered",
    "after launch",
    "after provision",
    "push",
    "before start",
    "after start",
    "log",
    "after follow",
    "pull",
    "terminated",
]


def killed_at(point: str, client: Client, job: Path) -> None:
    command = [sys.executable, str(WALKER), str(client.settings.home), str(job), point]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def assert_whole(client: Client, run: Run) -> None:
    """Ended well, once, with everything home and nothing rented or open."""
    assert (run.state, run.exit_code) == (RunState.SUCCEEDED, 0)
    whole = client.files(run.id).outputs / "whole.json"
    assert json.loads(whole.read_text()) == list(range(20000))
    assert client.files(run.id).log(1).read_bytes() == b"step 0\nstep 1\nstep 2\n"
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
    folders = list(client.settings.machines_dir.glob("*/home"))
    assert folders == []


@pytest.mark.parametrize("point", POINTS)
def test_attach_finishes_what_a_killed_client_began(point: str, client: Client, make_job) -> None:
    killed_at(point, client, make_job(COUNTS))
    (run,) = client.runs()
    assert not run.state.final
    assert client.unattended() == [run]
    assert_whole(client, client.attach(run.id))
    assert len(client.attempts(run.id)) == 1


def test_killed_before_the_record_there_is_no_run_and_no_cost(client: Client, make_job) -> None:
    killed_at("before record", client, make_job(COUNTS))
    assert client.runs() == []
    assert client.store.list_charges() == []
    assert client.store.list_machines(all=True) == []


def test_the_next_command_gives_an_unattended_run_a_supervisor(client: Client, make_job) -> None:
    killed_at("log", client, make_job(COUNTS))
    (run,) = client.revive()
    assert client.revive() == []
    assert_whole(client, client.attach(run.id))


def test_cancel_of_an_unattended_run_leaves_nothing_behind(client: Client, make_job) -> None:
    killed_at("answered", client, make_job(COUNTS))
    run = client.cancel(client.run("last").id)
    assert run.state is RunState.CANCELLED
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
    (machine,) = client.store.list_machines(all=True)
    assert machine.state is MachineState.TERMINATED
