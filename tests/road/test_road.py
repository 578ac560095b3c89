"""The ten stages on a real local machine: what goes in, what comes home, what is kept."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cloudrun.client import Client
from cloudrun.errors import Refused, UsageError
from cloudrun.events import Event, LogData, MetricLine, StageEnded
from cloudrun.guard import PULL_GRACE_MINUTES
from cloudrun.models import MachineState, RunState, Stage

WRITES = """
    import json, os, pathlib, sys
    out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
    (out / "a b").mkdir(parents=True, exist_ok=True)
    (out / "a b" / "data.bin").write_bytes(bytes(range(256)) * 100)
    with (out / "metrics.jsonl").open("w") as metrics:
        for epoch, value in enumerate([0.5, 0.9, 0.7], 1):
            metrics.write(json.dumps({"epoch": epoch, "acc": value}) + "\\n")
    print("hello from", os.getcwd() != str(out.parent.parent))
    print("to stderr", file=sys.stderr)
"""


def test_walks_all_ten_stages_and_brings_everything_home(client: Client, make_job) -> None:
    events: list[Event] = []
    run = client.submit(client.plan(make_job(WRITES, metric="acc")), on_event=events.append)

    assert (run.state, run.exit_code) == (RunState.SUCCEEDED, 0)
    assert [stage for _attempt, stage, _at, _seconds in client.stages(run.id)] == list(Stage)
    assert [event.stage for event in events if isinstance(event, StageEnded)][-5:] == list(Stage)[5:]
    assert run.metric_value == 0.9  # the best, not the last
    assert len([event for event in events if isinstance(event, MetricLine)]) == 3
    log = client.files(run.id).log(1).read_bytes()
    assert b"".join(event.data for event in events if isinstance(event, LogData)) == log
    assert b"to stderr" in log
    data = client.files(run.id).outputs / "a b" / "data.bin"
    assert data.read_bytes() == bytes(range(256)) * 100
    assert run.outputs_bytes == sum(file.size for file in client.outputs(run.id))
    assert run.cost_usd == Decimal(0)  # this computer: nobody bills
    assert client.machines() == []  # launched for the run, let go with it
    assert all(charge.closed_at for charge in client.store.list_charges())


def test_a_failing_job_is_failed_with_its_exit_code_and_its_outputs_are_kept(
    client: Client, make_job
) -> None:
    script = (
        "import os; open(os.environ['CLOUDRUN_OUTPUT_DIR'] + '/x', 'w').write('kept'); raise SystemExit(3)"
    )
    run = client.submit(client.plan(make_job(script)))
    assert (run.state, run.exit_code, run.message) == (RunState.FAILED, 3, "exit code 3")
    assert (client.files(run.id).outputs / "x").read_text() == "kept"
    assert client.machines() == []


def test_a_plan_spends_nothing_and_leaves_no_trace(client: Client, make_job) -> None:
    plan = client.plan(make_job("print(1)"))
    assert plan.candidates[0].provider == "local"
    assert client.runs() == []
    assert client.store.list_machines(all=True) == []
    assert [stage for stage, _seconds in plan.stage_seconds] == list(Stage)[:4]


def test_runs_on_a_machine_that_stays(client: Client, make_job) -> None:
    machine = client.launch(name="bench", stack="none")
    run = client.submit(client.plan(make_job("print(1)"), on="bench"))
    assert (run.state, run.machine) == (RunState.SUCCEEDED, "bench")
    assert [seen.state for seen in client.machines()] == [MachineState.RUNNING]
    with pytest.raises(UsageError):
        client.launch(name="bench", stack="none")
    client.terminate(machine.name)
    assert client.machines() == []
    client.terminate(machine.name)  # again: nothing happens


def test_the_one_ready_machine_is_used_and_the_plan_says_so(client: Client, make_job) -> None:
    client.launch(name="bench", stack="none")
    plan = client.plan(make_job("print(1)"))
    assert plan.machine == "bench"
    assert "bench" in plan.target_reason


def test_the_limit_is_kept_by_the_machine_itself(client: Client, make_job) -> None:
    script = "import time; print('on', flush=True); time.sleep(600)"
    run = client.submit(client.plan(make_job(script), max_hours=1.5 / 3600))
    assert run.state is RunState.TIMED_OUT
    assert client.files(run.id).log(1).read_bytes() == b"on\n"


def test_the_machine_of_a_limited_run_stays_for_the_pull_and_ends_itself_after(
    client: Client, make_job
) -> None:
    run = client.submit(client.plan(make_job("print(1)"), max_hours=1))
    machine = client.store.find_machine(run.machine)
    assert machine.deadline_at is not None
    assert machine.deadline_at - machine.launched_at == timedelta(hours=1, minutes=PULL_GRACE_MINUTES)


def test_secrets_reach_the_process_and_nothing_else(client: Client, make_job, settings) -> None:
    script = "import os; assert os.environ['TOKEN'][:4] == 'hunt'; print(os.environ['MODE'])"
    plan = client.plan(make_job(script), env=(("MODE", "fast"),))
    run = client.submit(plan, secrets={"TOKEN": "hunter2-hunter2"})
    assert run.state is RunState.SUCCEEDED
    assert client.files(run.id).log(1).read_bytes() == b"fast\n"
    left = [path for path in settings.home.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert left == []


def test_two_runs_on_one_machine_queue_in_order(client: Client, make_job, tmp_path: Path) -> None:
    client.launch(name="bench", stack="none")
    order = tmp_path / "order"
    script = f"""
        import sys, time
        with open({str(order)!r}, "a") as seen:
            seen.write(sys.argv[1] + " on\\n")
            seen.flush()
            time.sleep(0.5)
            seen.write(sys.argv[1] + " off\\n")
    """
    job = make_job(script)
    runs = []
    for name in ("one", "two", "three"):
        runs.append(client.submit(client.plan(job, on="bench", args=(name,)), detach=True))
        while client.run(runs[-1].id).state is RunState.STARTING:
            time.sleep(0.02)
    assert [client.attach(run.id).state for run in runs] == [RunState.SUCCEEDED] * 3
    expected = [f"{name} {what}" for name in ("one", "two", "three") for what in ("on", "off")]
    assert order.read_text().splitlines() == expected


def test_clone_gives_the_code_back_as_it_ran(client: Client, make_job, tmp_path: Path) -> None:
    folder = make_job("print('then')")
    run = client.submit(client.plan(folder))
    (folder / "job.py").write_text("print('changed since')")
    client.clone(run.id, tmp_path / "again")
    assert (tmp_path / "again" / "job.py").read_text().strip() == "print('then')"
    with pytest.raises(Refused, match="not empty"):
        client.clone(run.id, tmp_path / "again")


def test_a_stacks_variables_may_count_the_machines_processors(
    client: Client, make_job, tmp_path: Path
) -> None:
    stack = tmp_path / "mine.toml"
    stack.write_text('description = "threads"\nsource = "none"\n\n[env]\nOMP_NUM_THREADS = "{cpus}"\n')
    script = 'import os\nprint(os.environ["OMP_NUM_THREADS"], os.environ.get("MINE"))'
    job = make_job(script)
    run = client.submit(client.plan(job, stack=str(stack), env=[("MINE", "{cpus}")]))
    assert run.state is RunState.SUCCEEDED
    assert b"".join(client.logs(run.id)).decode().split() == [str(os.cpu_count()), "{cpus}"]
