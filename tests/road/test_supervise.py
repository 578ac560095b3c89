"""Runs that outlive the terminal: detach, watch, cancel, restart, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudrun.client import Client
from cloudrun.errors import Refused
from cloudrun.events import Event, LogData
from cloudrun.models import Outcome, RunState

# Numbers that depend on every step before them, a checkpoint after each, SIGTERM -> 75.
RESUMES = """
    import hashlib, json, os, pathlib, random, signal, sys, time
    out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
    kept = out / "checkpoint" / "state.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    resume = os.environ.get("CLOUDRUN_RESUME_FROM")
    state = {"seed": "0", "lines": []}
    if resume:
        state = json.loads((pathlib.Path(resume) / "state.json").read_text())
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    print("from", len(state["lines"]), flush=True)
    while len(state["lines"]) < 30:
        if stop:
            sys.exit(75)
        state["seed"] = hashlib.sha256(state["seed"].encode()).hexdigest()
        state["lines"].append({"epoch": len(state["lines"]) + 1, "acc": int(state["seed"][:8], 16) / 2**32})
        beside = kept.with_suffix(".tmp")
        beside.write_text(json.dumps(state))
        beside.replace(kept)
        (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in state["lines"]))
        print("step", len(state["lines"]), flush=True)
        time.sleep(float(sys.argv[1]))
"""


def wait_for_log(client: Client, run: str, text: bytes) -> None:
    for _ in range(600):
        if any(text in path.read_bytes() for path in client.files(run).logs()):
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} never came; {client.files(run).supervisor_log.read_text()}")


def metrics(client: Client, run: str) -> bytes:
    return (client.files(run).outputs / "metrics.jsonl").read_bytes()


def test_a_detached_run_is_walked_home_without_us(client: Client, make_job) -> None:
    job = make_job("import time; time.sleep(0.5); print('done')")
    run = client.submit(client.plan(job), detach=True)
    assert not run.state.final
    events: list[Event] = []
    ended = client.attach(run.id, on_event=events.append)
    assert (ended.state, ended.exit_code) == (RunState.SUCCEEDED, 0)
    assert b"".join(event.data for event in events if isinstance(event, LogData)) == b"done\n"
    assert client.machines() == []


def test_logs_follow_shows_every_byte_once(client: Client, make_job) -> None:
    job = make_job("import time\nfor n in range(200): print('line', n, flush=True); time.sleep(0.005)")
    run = client.submit(client.plan(job), detach=True)
    followed = b"".join(client.logs(run.id, follow=True))
    assert followed == b"".join(b"line %d\n" % n for n in range(200))
    assert followed == b"".join(client.logs(run.id))


def test_cancel_then_restart_equals_an_uninterrupted_run_to_the_bit(client: Client, make_job) -> None:
    job = make_job(RESUMES, resume=True, metric="acc")
    straight = client.submit(client.plan(job, args=("0",)))
    run = client.submit(client.plan(job, args=("0.1",)), detach=True)
    wait_for_log(client, run.id, b"step 7")

    cancelled = client.cancel(run.id)
    assert (cancelled.state, cancelled.exit_code) == (RunState.CANCELLED, 75)
    assert client.machines() == []
    assert metrics(client, run.id) != metrics(client, straight.id)

    ended = client.restart(run.id)
    assert ended.state is RunState.SUCCEEDED
    assert ended.metric_value == straight.metric_value
    assert metrics(client, run.id) == metrics(client, straight.id)
    first, second = client.attempts(run.id)
    assert (first.outcome, second.outcome) == (Outcome.CANCELLED, Outcome.SUCCEEDED)
    assert not client.files(run.id).log(2).read_bytes().startswith(b"from 0\n")


def test_what_has_ended_cannot_be_cancelled_and_what_goes_on_not_restarted(client: Client, make_job) -> None:
    ended = client.submit(client.plan(make_job("print(1)")))
    with pytest.raises(Refused, match="has ended"):
        client.cancel(ended.id)
    running = client.submit(client.plan(make_job("import time; time.sleep(60)", name="slow")), detach=True)
    wait_until_walked(client, running.id)
    with pytest.raises(Refused, match="still going on"):
        client.restart(running.id)
    assert client.cancel(running.id).state is RunState.CANCELLED


def test_ctrl_c_hands_the_run_to_a_supervisor(client: Client, make_job) -> None:
    job = make_job("import time; print('on', flush=True); time.sleep(1); print('off')")
    script = (
        "import sys; from pathlib import Path; from cloudrun.client import Client;"
        "from cloudrun.config import Settings; from cloudrun.errors import Interrupted;"
        "c = Client(Settings(home=Path(sys.argv[1]), poll_s=0.2))\n"
        "try:\n c.submit(c.plan(sys.argv[2]), on_event=lambda e: print(type(e).__name__, flush=True))\n"
        "except Interrupted: sys.exit(130)"
    )
    command = [sys.executable, "-c", script, str(client.settings.home), str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        for line in shown.stdout:
            if "LogData" in line:
                break
        shown.send_signal(signal.SIGINT)
        shown.stdout.read()
        assert shown.wait(30) == 130
    run = client.attach("last")
    assert run.state is RunState.SUCCEEDED
    assert client.files(run.id).log(1).read_bytes() == b"on\noff\n"


def test_a_killed_supervisor_is_replaced_by_the_next_command(client: Client, make_job) -> None:
    job = make_job("import time; print('on', flush=True); time.sleep(1.5); print('off')")
    run = client.submit(client.plan(job), detach=True)
    wait_for_log(client, run.id, b"on")
    supervisor = client.run(run.id).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    while client.files(run.id).walked():
        time.sleep(0.02)
    assert [revived.id for revived in client.revive()] == [run.id]
    assert client.attach(run.id).state is RunState.SUCCEEDED
    assert client.files(run.id).log(1).read_bytes() == b"on\noff\n"


def test_the_record_beside_the_outputs_tells_the_whole_run(client: Client, make_job) -> None:
    run = client.submit(client.plan(make_job("print(1)")))
    kept = json.loads(Path(client.files(run.id).record).read_text())
    assert kept["run"]["state"] == "succeeded"
    assert [attempt["outcome"] for attempt in kept["attempts"]] == ["succeeded"]
    assert kept["order"]["stack"]["name"] == "none"


def wait_until_walked(client: Client, run: str) -> None:
    for _ in range(400):
        if client.files(run).walked():
            return
        time.sleep(0.02)
    raise AssertionError("nobody walks it")
