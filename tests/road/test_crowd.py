"""The road as typed, each command a process of its own: many at once, and with nobody there."""

from __future__ import annotations

import json
import os
import signal

from faults import call_cli, is_running, start_cli, wait_for, wait_for_log

from cloudrun.client import Client
from cloudrun.models import RunState

CROWD = 20


def kill_supervisor(client: Client, run: str) -> None:
    """The client is gone."""
    supervisor = client.run(run).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not client.files(run).walked())


def test_twenty_commands_at_once(client: Client, make_job) -> None:
    client.launch(name="m", stack="none")
    job = str(make_job("import sys; print('this is', sys.argv[1])"))
    first = client.submit(client.plan(job, on="m", args=("first",)))
    crowd = {
        number: start_cli(
            client,
            *[
                ("submit", job, "--on", "m", "--detach", "--", f"run-{number}"),
                ("status", "--json"),
                ("logs", first.id),
                ("machines", "list", "--json"),
            ][number % 4],
        )
        for number in range(CROWD)
    }
    said = {number: process.communicate(timeout=120) for number, process in crowd.items()}
    for number, process in crowd.items():
        assert process.returncode == 0, said[number]
        assert "locked" not in said[number][1]
        assert "Traceback" not in said[number][1]
    assert all(said[number][0] == "this is first\n" for number in range(2, CROWD, 4))
    assert all(json.loads(said[number][0])[0]["name"] == "m" for number in range(3, CROWD, 4))
    runs = {number: said[number][0].strip() for number in range(0, CROWD, 4)}
    assert len(client.runs()) == len(set(runs.values())) + 1
    for number, run in runs.items():
        assert client.attach(run).state is RunState.SUCCEEDED
        assert client.files(run).log(1).read_bytes() == b"this is run-%d\n" % number
    assert client.unattended() == []


def test_a_lost_store_is_rebuilt_by_adopt_and_every_verb_goes_on(client: Client, make_job, tmp_path) -> None:
    client.launch(name="m", stack="none")
    gate = tmp_path / "gate"
    script = """
        import os, sys, time
        print("on")
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.02)
        open(os.environ["CLOUDRUN_OUTPUT_DIR"] + "/kept", "w").write("kept")
        print("off")
    """
    run = client.submit(client.plan(make_job(script), on="m", args=(str(gate),)), detach=True)
    wait_for_log(client, run.id, b"on")
    kill_supervisor(client, run.id)
    for path in client.settings.home.glob("cloudrun.sqlite*"):
        path.unlink()

    code, out, _ = call_cli(client, "machines", "adopt", "--json")
    assert (code, [machine["name"] for machine in json.loads(out)]) == (0, ["m"])
    code, out, _ = call_cli(client, "status", run.id, "--json")
    assert (code, json.loads(out)["state"]) == (0, "running")
    assert call_cli(client, "logs", run.id)[:2] == (0, "on\n")
    attached = start_cli(client, "attach", run.id)
    gate.touch()
    out, err = attached.communicate(timeout=60)
    assert (attached.returncode, "on\noff\n" in out) == (0, True), err
    assert call_cli(client, "outputs", "get", run.id, "kept", "--to", "-")[:2] == (0, "kept")
    assert call_cli(client, "terminate", "m")[0] == 0
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []


def test_max_hours_of_a_run_holds_with_the_client_gone(client: Client, make_job) -> None:
    job = str(make_job("import time; print('on', flush=True); time.sleep(600)"))
    code, out, err = call_cli(client, "submit", job, "--detach", "--max-hours", "0.0008")
    assert code == 0, err
    run = out.strip()
    wait_for(lambda: is_running(client, run) or client.run(run).state.final)
    kill_supervisor(client, run)
    code, _, err = call_cli(client, "attach", run)
    assert (code, client.run(run).state) == (1, RunState.TIMED_OUT)
    assert "Traceback" not in err
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
