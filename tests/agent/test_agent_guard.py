"""The machine ends itself: with the client gone, its guard killed, or its clock wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import wrongclock
from localmachine import LocalShell, follow_to_end, pids_of, start_script, wait_for

from cloudrun.models import Guard
from cloudrun.remote import agentlink, process
from cloudrun.remote.process import ProcessState

KEY = "aaaa2222.1"
TERMINABLE = 'trap "exit 75" TERM; echo up; while :; do sleep 0.02; done'
AGENT = Path(__file__).parents[2] / "cloudrun" / "agent" / "agent.py"


def now() -> datetime:
    return datetime.now(UTC)


def guard(*, deadline_s: float | None = None, idle_s: float | None = None, keep: bool = False) -> Guard:
    deadline = None if deadline_s is None else now() + timedelta(seconds=deadline_s)
    return Guard(now(), deadline, None if idle_s is None else idle_s / 60, keep)


def release(machine: LocalShell) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f"date +%s.%N >> {machine.home}/released")


def released(machine: LocalShell) -> bool:
    path = machine.home / "released"
    return path.exists() and path.stat().st_size > 0


def guard_pid(machine: LocalShell) -> int:
    return int((machine.base / "guard.lock").read_text().split()[0])


def is_watched(machine: LocalShell) -> bool:
    """Whether a guard process lives: it holds a lock for life."""
    lock = machine.base / "guard.lock"
    return subprocess.run(["flock", "-n", str(lock), "true"]).returncode != 0


def test_the_deadline_stops_the_run_and_then_the_machine(machine: LocalShell) -> None:
    start_script(machine, TERMINABLE)
    process.arm_guard(machine, guard(deadline_s=0.5), release(machine))
    wait_for(lambda: released(machine))
    status = process.status(machine, KEY)
    assert (status.state, status.reason, status.exit_code) == (ProcessState.ENDED, "deadline", 75)
    assert status.ended_at.timestamp() <= float((machine.home / "released").read_text()) + 0.1
    wait_for(lambda: not is_watched(machine))
    assert pids_of(machine.home) == []


def test_a_run_that_is_queued_at_the_deadline_never_starts(machine: LocalShell) -> None:
    start_script(machine, TERMINABLE)
    start_script(machine, "touch $HOME/started", key="bbbb3333.1")
    process.arm_guard(machine, guard(deadline_s=0.3), release(machine))
    wait_for(lambda: released(machine))
    assert process.status(machine, "bbbb3333.1").reason == "deadline"
    assert not (machine.home / "started").exists()


def test_an_idle_machine_ends_itself_and_a_busy_one_does_not(machine: LocalShell) -> None:
    start_script(machine, "until [ -e $HOME/go ]; do sleep 0.02; done")
    process.arm_guard(machine, guard(idle_s=0.5), release(machine))
    before = (machine.base / "guard.json").stat().st_mtime
    wait_for(lambda: time.time() - before > 1.5)
    assert not released(machine)
    (machine.home / "go").touch()
    _, status = follow_to_end(machine)
    wait_for(lambda: released(machine))
    assert float((machine.home / "released").read_text()) - status.ended_at.timestamp() >= 0.4


def test_an_open_connection_to_the_ssh_port_is_activity(machine: LocalShell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        machine.env["SSH_CONNECTION"] = f"127.0.0.1 50000 {host} {port}"
        client = socket.create_connection((host, port))
        accepted, _ = server.accept()
        process.arm_guard(machine, guard(idle_s=0.4), release(machine))
        before = time.monotonic()
        wait_for(lambda: time.monotonic() - before > 1.2)
        assert not released(machine)
        client.close()
        accepted.close()
        wait_for(lambda: released(machine))


def test_a_guard_from_the_boot_payload_learns_where_the_ssh_server_is(
    machine: LocalShell, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"issued_at": time.time(), "deadline_at": None, "idle_s": 3600}))
    subprocess.run(
        [sys.executable, str(AGENT), "guard", "--policy", str(policy)], env=machine.env, check=True
    )
    machine.env["SSH_CONNECTION"] = "127.0.0.1 50000 127.3.4.5 2222"
    process.list_runs(machine)
    assert json.loads((machine.base / "guard.json").read_text())["address"] == ["127.3.4.5", 2222]


def test_a_connection_to_another_machine_of_the_same_port_is_none_of_ours(machine: LocalShell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        machine.env["SSH_CONNECTION"] = f"127.0.0.1 50000 127.9.9.9 {port}"
        with socket.create_connection(("127.0.0.1", port)):
            process.arm_guard(machine, guard(idle_s=0.3), release(machine))
            wait_for(lambda: released(machine))


def test_arming_again_moves_the_deadline_and_keeps_one_guard(machine: LocalShell) -> None:
    process.arm_guard(machine, guard(deadline_s=3600), release(machine))
    wait_for(lambda: is_watched(machine))
    wait_for(lambda: (machine.base / "guard.lock").read_text().endswith(".py"))
    first = guard_pid(machine)
    for _ in range(3):
        process.arm_guard(machine, guard(deadline_s=3600), release(machine))
    assert guard_pid(machine) == first
    assert pids_of(machine.home) == [first]
    process.arm_guard(machine, guard(deadline_s=0.2), release(machine))
    wait_for(lambda: released(machine))


def test_keep_sends_the_guard_home(machine: LocalShell) -> None:
    process.arm_guard(machine, guard(deadline_s=3600), release(machine))
    wait_for(lambda: is_watched(machine))
    process.arm_guard(machine, guard(keep=True), release(machine))
    wait_for(lambda: not is_watched(machine))
    assert not released(machine)


def test_a_killed_guard_is_replaced_when_it_is_armed_again(machine: LocalShell) -> None:
    process.arm_guard(machine, guard(deadline_s=3600), release(machine))
    wait_for(lambda: (machine.base / "guard.lock").read_text().endswith(".py"))
    os.kill(guard_pid(machine), signal.SIGKILL)
    wait_for(lambda: not is_watched(machine))
    process.arm_guard(machine, guard(deadline_s=0.2), release(machine))
    wait_for(lambda: released(machine))


def test_any_verb_brings_a_killed_guard_back(machine: LocalShell) -> None:
    process.arm_guard(machine, guard(deadline_s=3600), release(machine))
    wait_for(lambda: (machine.base / "guard.lock").read_text().endswith(".py"))
    os.kill(guard_pid(machine), signal.SIGKILL)
    wait_for(lambda: not is_watched(machine))
    process.list_runs(machine)
    wait_for(lambda: is_watched(machine))


def test_the_guard_brings_a_killed_runner_back(machine: LocalShell) -> None:
    start_script(machine, "echo up; until [ -e $HOME/go ]; do sleep 0.02; done; exit 5")
    wait_for(lambda: (machine.run_dir(KEY) / "log").read_bytes() == b"up\n")
    os.kill(int((machine.run_dir(KEY) / "runner").read_text()), signal.SIGKILL)
    process.arm_guard(machine, guard(idle_s=0.5), release(machine))
    (machine.home / "go").touch()
    wait_for(lambda: released(machine))
    state = json.loads((machine.run_dir(KEY) / "state.json").read_text())
    assert (state["state"], state["exit_code"]) == ("ended", 5)


def test_an_older_agents_guard_gives_way(machine: LocalShell, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(
        json.dumps({"issued_at": time.time(), "deadline_at": time.time() + 3600, "idle_s": None})
    )
    subprocess.run(
        [sys.executable, str(AGENT), "guard", "--policy", str(policy)], env=machine.env, check=True
    )
    wait_for(lambda: (machine.base / "guard.lock").read_text().endswith(" agent.py"))
    process.arm_guard(machine, guard(deadline_s=3600), release(machine))
    wait_for(lambda: (machine.base / "guard.lock").read_text().endswith(agentlink.agent_name() + ".py"))
    assert len(pids_of(machine.home)) == 1


def test_a_release_that_fails_is_tried_again_until_it_works(
    machine: LocalShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = agentlink.agent_source().replace(b"WAKE.wait(30.0)", b"WAKE.wait(0.05)")
    monkeypatch.setattr(agentlink, "agent_source", lambda: source)
    monkeypatch.setattr(agentlink, "agent_name", lambda: "agent-hasty")
    flaky = f"echo x >> {machine.home}/tries; [ $(wc -l < {machine.home}/tries) -ge 3 ]"
    process.arm_guard(machine, guard(deadline_s=0.0), ("/bin/sh", "-c", flaky))
    wait_for(lambda: (machine.home / "tries").exists() and (machine.home / "tries").read_text() == "x\n" * 3)
    wait_for(lambda: not is_watched(machine))


# --- clocks ------------------------------------------------------------------------------


@pytest.fixture(params=["-1h", "+1h"])
def wrong(request: pytest.FixtureRequest, machine: LocalShell) -> LocalShell:
    """A machine whose clock is an hour off, by libfaketime (Debian's package `faketime`)."""
    machine.env |= wrongclock.environment(request.param)
    off_s = float(machine.run("date +%s").text) - time.time()
    assert abs(abs(off_s) - 3600) < 5
    return machine


def test_times_are_told_by_homes_clock(wrong: LocalShell) -> None:
    before, slack = now(), timedelta(seconds=30)
    start_script(wrong, "sleep 0.2")
    _, status = follow_to_end(wrong)
    again = process.status(wrong, KEY)
    for seen in (status, again):
        assert before - slack <= seen.started_at < seen.ended_at <= now() + slack


def test_the_deadline_is_homes(wrong: LocalShell) -> None:
    process.arm_guard(wrong, guard(deadline_s=1.5), release(wrong))
    armed = time.monotonic()
    wait_for(lambda: released(wrong))
    assert time.monotonic() - armed > 1.0


def test_the_deadline_of_a_boot_payload_is_homes(wrong: LocalShell, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    issued = time.time()
    policy.write_text(
        json.dumps(
            {
                "issued_at": issued,
                "deadline_at": issued + 1.5,
                "idle_s": None,
                "keep": False,
                "release": release(wrong),
            }
        )
    )
    armed = time.monotonic()
    subprocess.run(["python3", str(AGENT), "guard", "--policy", str(policy)], env=wrong.env, check=True)
    subprocess.run(["python3", str(AGENT), "guard", "--policy", str(policy)], env=wrong.env, check=True)
    wait_for(lambda: released(wrong))
    assert time.monotonic() - armed > 1.0


def test_the_time_limit_of_a_run_needs_no_clock_at_all(wrong: LocalShell) -> None:
    start_script(wrong, TERMINABLE, max_seconds=0.3)
    assert follow_to_end(wrong)[1].reason == "timed-out"
