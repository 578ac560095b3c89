"""What dies or lies under a run: the agent, the job, the machine, its clock, the names of its outputs."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import wrongclock
from faults import agent_base, is_running, number_in, run_folder, wait_for, wait_for_log

from cloudrun import rent
from cloudrun.client import Client
from cloudrun.errors import MachineError, TransferFailed
from cloudrun.events import Event, StageEnded
from cloudrun.models import Guard, Outcome, RunState, Stage
from cloudrun.providers import local

GATED = """
    import os, pathlib, sys, time
    print("on")
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.02)
    pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"], "kept").write_text("kept")
    print("off")
"""
SLEEPS = "import select; print('on'); select.select([], [], [], 600)"  # libfaketime spoils time.sleep


def kill_supervisor(client: Client, run: str) -> None:
    """The client is gone."""
    supervisor = client.run(run).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not client.files(run).walked())


def test_the_agents_runner_killed_under_a_run_loses_nothing(client: Client, make_job, tmp_path: Path) -> None:
    client.launch(name="m", stack="none")
    gate = tmp_path / "gate"
    run = client.submit(client.plan(make_job(GATED), on="m", args=(str(gate),)), detach=True)
    wait_for_log(client, run.id, b"on")
    runner = number_in(run_folder(client, run.id) / "runner")
    os.kill(runner, signal.SIGKILL)
    wait_for(lambda: number_in(run_folder(client, run.id) / "runner") != runner)  # it was given a new one
    assert is_running(client, run.id)
    gate.touch()
    ended = client.attach(run.id)
    assert (ended.state, ended.exit_code) == (RunState.SUCCEEDED, 0)
    assert client.files(run.id).log(1).read_bytes() == b"on\noff\n"
    assert (client.files(run.id).outputs / "kept").read_text() == "kept"


def test_a_job_that_is_killed_has_failed_and_its_outputs_come_home(client: Client, make_job) -> None:
    script = """
        import os, time
        open(os.environ["CLOUDRUN_OUTPUT_DIR"] + "/early", "w").write("kept")
        print("on")
        time.sleep(600)
    """
    run = client.submit(client.plan(make_job(script)), detach=True)
    wait_for_log(client, run.id, b"on")
    os.kill(number_in(run_folder(client, run.id) / "pid"), signal.SIGKILL)
    ended = client.attach(run.id)
    assert (ended.state, ended.exit_code) == (RunState.FAILED, 128 + signal.SIGKILL)
    assert (client.files(run.id).outputs / "early").read_text() == "kept"
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []


def test_runner_and_job_killed_with_nobody_watching_are_told_by_attach(client: Client, make_job) -> None:
    client.launch(name="m", stack="none")
    run = client.submit(client.plan(make_job(SLEEPS), on="m"), detach=True)
    wait_for_log(client, run.id, b"on")
    kill_supervisor(client, run.id)
    folder = run_folder(client, run.id)
    runner, job = number_in(folder / "runner"), number_in(folder / "pid")
    os.kill(runner, signal.SIGKILL)
    os.kill(job, signal.SIGKILL)
    assert client.attach(run.id).state is RunState.FAILED
    after = client.submit(client.plan(make_job("print(1)", name="after"), on="m"))  # the queue is free
    assert after.state is RunState.SUCCEEDED


def test_a_queued_run_is_cancelled_and_never_starts(client: Client, make_job, tmp_path: Path) -> None:
    client.launch(name="m", stack="none")
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    first = client.submit(client.plan(make_job(GATED), on="m", args=(str(gate),)), detach=True)
    wait_for(lambda: is_running(client, first.id))
    script = f"open({str(trace)!r}, 'w')"
    second = client.submit(client.plan(make_job(script, name="second"), on="m"), detach=True)
    wait_for(lambda: client.run(second.id).state is RunState.QUEUED)
    ended = client.cancel(second.id)
    assert (ended.state, ended.started_at) == (RunState.CANCELLED, None)
    gate.touch()
    assert client.attach(first.id).state is RunState.SUCCEEDED
    third = client.submit(client.plan(make_job("print(1)", name="third"), on="m"))
    assert third.state is RunState.SUCCEEDED
    assert not trace.exists()


@pytest.mark.parametrize("own", [True, False], ids=["launched-for-it", "named"])
def test_a_machine_terminated_under_a_run_loses_the_run_and_leaves_nothing_open(
    own: bool, client: Client, make_job
) -> None:
    if not own:
        client.launch(name="m", stack="none")
    run = client.submit(client.plan(make_job(SLEEPS), on="" if own else "m"), detach=True)
    wait_for_log(client, run.id, b"on")
    client.terminate(client.run(run.id).machine)
    wait_for(lambda: client.run(run.id).state.final)
    ended = client.run(run.id)
    assert (ended.state, ended.exit_code) == (RunState.LOST, None)
    assert "was terminated" in ended.message
    assert [attempt.outcome for attempt in client.attempts(run.id)] == [Outcome.LOST]
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
    assert client.files(run.id).log(1).read_bytes() == b"on\n"


def test_attach_to_a_run_whose_machine_was_terminated_says_so(client: Client, make_job) -> None:
    client.launch(name="m", stack="none")
    run = client.submit(client.plan(make_job(SLEEPS), on="m"), detach=True)
    wait_for_log(client, run.id, b"on")
    kill_supervisor(client, run.id)
    client.terminate("m")
    with pytest.raises(MachineError, match="was terminated"):
        client.attach(run.id)
    assert client.run(run.id).state is RunState.LOST


def test_a_cancel_between_start_and_follow_ends_the_process(client: Client, make_job, tmp_path: Path) -> None:
    client.launch(name="m", stack="none")

    def cancel(event: Event) -> None:
        if isinstance(event, StageEnded) and event.stage is Stage.START:
            client.store.update_run(client.run("last").id, cancel_requested=True)

    plan = client.plan(make_job(GATED), on="m", args=(str(tmp_path / "never"),))
    assert client.submit(plan, on_event=cancel).state is RunState.CANCELLED
    after = client.submit(client.plan(make_job("print(1)", name="after"), on="m"))  # nothing is in its way
    assert after.state is RunState.SUCCEEDED


@pytest.fixture(params=["-1h", "+1h"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local machines are launched with a clock an hour off, by libfaketime (Debian's package `faketime`)."""
    lie = wrongclock.environment(request.param)
    honest = local.machine_environment
    monkeypatch.setattr(local, "machine_environment", lambda *args, **named: honest(*args, **named) | lie)


@pytest.mark.usefixtures("wrong_clock")
def test_a_clock_an_hour_off_moves_neither_times_nor_the_deadline(client: Client, make_job) -> None:
    client.launch(name="m", stack="none", max_hours=0.5)  # past or far, by the machine's clock
    off_s = float(client.shell("m").run("date +%s").text) - datetime.now(UTC).timestamp()
    assert abs(abs(off_s) - 3600) < 30
    before = datetime.now(UTC)
    run = client.submit(client.plan(make_job("import select; select.select([], [], [], 0.2)"), on="m"))
    assert run.state is RunState.SUCCEEDED, b"".join(client.logs(run.id))
    assert run.started_at is not None
    assert run.ended_at is not None
    slack = timedelta(seconds=30)
    assert before - slack <= run.started_at < run.ended_at <= datetime.now(UTC) + slack

    ctx = client.context()
    second = client.submit(client.plan(make_job(SLEEPS, name="second"), on="m"), detach=True)
    wait_for_log(client, second.id, b"on")
    near = Guard(issued_at=datetime.now(UTC), deadline_at=datetime.now(UTC) + timedelta(seconds=2))
    rent.set_guard(ctx, client.machine("m"), client.shell("m"), near)
    wait_for(lambda: client.run(second.id).state.final)
    assert client.run(second.id).state is RunState.TIMED_OUT
    ended_at = client.run(second.id).ended_at
    assert ended_at is not None
    assert near.deadline_at is not None
    assert ended_at >= near.deadline_at - slack


HOSTILE = r"""
    import os
    os.chdir(os.environ["CLOUDRUN_OUTPUT_DIR"])
    os.symlink("/etc/passwd", "absolute")
    os.symlink("../../../../../../../../../../etc", "climbs")
    os.mkdir("deep")
    os.symlink("..", "deep/up")
    os.symlink("deep/up/../../../x", "winds")
    for name in (b"new\nline", b"\xff\xfe", b" spaces ", b"\x1b[31mred"):
        with open(name, "wb") as file:
            file.write(name)
    os.symlink("new\nline", "inside")
"""


def test_odd_names_come_home_and_links_out_of_the_tree_do_not(client: Client, make_job) -> None:
    run = client.submit(client.plan(make_job(HOSTILE)))
    assert run.state is RunState.SUCCEEDED
    home = client.files(run.id).outputs
    for name in (b"new\nline", b"\xff\xfe", b" spaces ", b"\x1b[31mred"):
        assert (home / os.fsdecode(name)).read_bytes() == name
    assert (home / "inside").read_bytes() == b"new\nline"
    links = [path for path in home.rglob("*") if path.is_symlink()]
    assert all(home.resolve() in (path.resolve(), *path.resolve().parents) for path in links)
    assert not {"absolute", "climbs", "winds"} & {path.name for path in links}


@pytest.mark.parametrize("name", ["../../evil", "/tmp/cloudrun-evil", "a/../../../evil"])
def test_a_machine_that_names_outputs_outside_is_refused(
    name: str, client: Client, make_job, tmp_path: Path
) -> None:
    client.launch(name="m", stack="none")

    def turn_hostile(event: Event) -> None:
        if isinstance(event, StageEnded) and event.stage is Stage.FOLLOW:
            (agent,) = agent_base(client, "m").glob("agent-*.py")
            honest = agent.read_text()
            listing = 'reply({"files": files, "skipped": skipped})'
            assert listing in honest
            lie = f'reply({{"files": [[{name!r}] + row[1:] for row in files], "skipped": []}})'
            agent.write_text(honest.replace(listing, lie))

    script = "import os; open(os.environ['CLOUDRUN_OUTPUT_DIR'] + '/x', 'w').write('evil')"
    plan = client.plan(make_job(script), on="m")
    with pytest.raises(TransferFailed, match="outside the folder"):
        client.submit(plan, on_event=turn_hostile)
    homes = [path for path in tmp_path.rglob("*evil*") if "machines" not in path.parts]
    assert homes == []
    assert not Path("/tmp/cloudrun-evil").exists()
    assert not client.run("last").state.final  # its outputs are still on the machine: nothing is decided
