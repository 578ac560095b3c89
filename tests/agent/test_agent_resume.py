"""Runs that survive the end of their machine, and the boot that takes them up: no client is needed."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime

import pytest
from localmachine import LocalShell, follow_to_end, pids_of, start_script, wait_for
from resuming import AGENT, KEY, boot, go, log_of, power_off, shut_down, start_job, state_of

from cloudrun.models import Guard
from cloudrun.remote import process
from cloudrun.remote.process import LogChunk, ProcessState, StateChange

TWICE = b"start 1\nstart 2\ndone\n"


def test_a_run_goes_on_from_its_checkpoint_when_the_machine_is_back(machine: LocalShell) -> None:
    start_job(machine)
    power_off(machine)
    boot(machine)
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))  # with nobody connected
    go(machine)
    log, status = follow_to_end(machine)
    assert (log, status.state, status.exit_code, status.reason) == (TWICE, ProcessState.ENDED, 0, "")
    assert not (machine.run_dir(KEY) / "env").exists()


def test_it_goes_on_again_and_again(machine: LocalShell) -> None:
    start_job(machine)
    for count in range(2, 5):
        power_off(machine)
        boot(machine)
        wait_for(lambda n=count: log_of(machine).endswith(b"start %d\n" % n))
    go(machine)
    assert follow_to_end(machine)[1].exit_code == 0


def test_who_followed_before_follows_on_from_the_same_offsets(machine: LocalShell) -> None:
    start_job(machine)
    first = [
        item
        for item in until(process.follow(machine, KEY, log_offset=0), b"start 1\n")
        if isinstance(item, (LogChunk, process.Metric))
    ]
    metrics = [item for item in first if isinstance(item, process.Metric)]
    power_off(machine)
    boot(machine)
    go(machine)
    rest = list(
        process.follow(
            machine, KEY, log_offset=len(b"start 1\n"), metric_offset=metrics[0].offset if metrics else 0
        )
    )
    assert b"".join(item.data for item in rest if isinstance(item, LogChunk)) == b"start 2\ndone\n"
    metrics += [item for item in rest if isinstance(item, process.Metric)]
    assert [metric.line for metric in metrics] == [{"epoch": 1}, {"epoch": 2}]


def until(items, data: bytes):
    """The items of a follow up to the log's bytes `data` and one look at the metrics after them."""
    seen, log = [], b""
    for item in items:
        seen.append(item)
        log += item.data if isinstance(item, LogChunk) else b""
        if log == data and any(isinstance(one, process.Metric) for one in seen):
            items.close()
            return seen
    return seen


def test_a_shutdown_lets_the_job_save_and_starts_nothing_while_it_lasts(machine: LocalShell) -> None:
    start_job(machine)
    start_script(machine, "touch $HOME/started", key="bbbb3333.1")
    shut_down(machine)
    wait_for(lambda: state_of(machine)["state"] == "queued")
    assert log_of(machine) == b"start 1\nsaving\n"
    assert process.status(machine, KEY).state is ProcessState.QUEUED  # asked again: still nothing starts
    assert not (machine.home / "started").exists()
    power_off(machine)
    state = dict(state_of(machine), down=[0.0, 0.0, "the boot before"])
    (machine.run_dir(KEY) / "state.json").write_text(json.dumps(state))
    boot(machine)
    go(machine)
    assert follow_to_end(machine)[0] == b"start 1\nsaving\nstart 2\ndone\n"
    follow_to_end(machine, "bbbb3333.1")
    assert (machine.home / "started").exists()


def test_any_verb_takes_up_a_run_from_before_a_restart(machine: LocalShell) -> None:
    """A client may be faster than the boot script; what it sees is another boot id."""
    start_job(machine)
    power_off(machine)
    state = state_of(machine)
    state["started"][2] = "another boot"
    (machine.run_dir(KEY) / "state.json").write_text(json.dumps(state))
    go(machine)
    log, status = follow_to_end(machine)
    assert (log, status.exit_code) == (TWICE, 0)


def test_a_run_that_does_not_resume_ends_as_ever(machine: LocalShell) -> None:
    start_script(machine, "echo up; sleep 600")
    wait_for(lambda: log_of(machine) == b"up\n")
    power_off(machine)
    boot(machine)
    wait_for(lambda: state_of(machine)["state"] == "ended")
    status = process.status(machine, KEY)
    assert (status.exit_code, status.reason) == (137, "killed")


def test_a_run_with_secrets_does_not_resume_and_keeps_none_on_the_disk(machine: LocalShell) -> None:
    start_job(machine, env={"TOKEN": "hunter2hunter2"}, secrets=("TOKEN",))
    power_off(machine)
    for path in machine.base.rglob("*"):
        assert not path.is_file() or b"hunter2hunter2" not in path.read_bytes()
    boot(machine)
    wait_for(lambda: state_of(machine)["state"] == "ended")
    assert process.status(machine, KEY).reason == "killed"


@pytest.mark.parametrize("code", [1, 75])
def test_a_job_that_ends_by_itself_is_over(machine: LocalShell, code: int) -> None:
    start_script(machine, f"mkdir -p outputs/checkpoint; exit {code}", resume="checkpoint")
    _, status = follow_to_end(machine)
    assert (status.state, status.exit_code, status.reason) == (ProcessState.ENDED, code, "")


def test_a_job_that_failed_before_the_machine_went_down_has_failed(machine: LocalShell) -> None:
    start_script(machine, "echo up; until [ -e $HOME/go ]; do sleep 0.02; done; exit 3", resume="checkpoint")
    wait_for(lambda: log_of(machine) == b"up\n")
    os.kill(int((machine.run_dir(KEY) / "runner").read_text()), signal.SIGKILL)
    go(machine)
    wait_for(lambda: b"3" in (machine.run_dir(KEY) / "exit").read_bytes())
    power_off(machine)
    boot(machine)
    log, status = follow_to_end(machine)
    assert (log, status.exit_code) == (b"up\n", 3)


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_ends_in_the_shutdown_has_ended(machine: LocalShell, code: int) -> None:
    script = f"exec 2>/dev/null; trap 'exit {code}' TERM; echo up; while :; do sleep 0.02; done"
    start_script(machine, script, resume="checkpoint")
    wait_for(lambda: log_of(machine) == b"up\n")
    shut_down(machine)
    wait_for(lambda: state_of(machine)["state"] == "ended")
    assert process.status(machine, KEY).exit_code == code


def test_without_a_checkpoint_of_its_own_it_has_the_one_it_was_given(machine: LocalShell) -> None:
    start_script(
        machine,
        "echo from $CLOUDRUN_RESUME_FROM; until [ -e $HOME/go ]; do sleep 0.02; done",
        resume="checkpoint",
        resume_from="/given",
    )
    wait_for(lambda: log_of(machine) == b"from /given\n")
    power_off(machine)
    boot(machine)
    go(machine)
    assert follow_to_end(machine)[0] == b"from /given\n" * 2


def test_the_time_limit_counts_what_was_before(machine: LocalShell) -> None:
    start_job(machine, max_seconds=3600)
    power_off(machine)
    state = state_of(machine)
    state["started"][0] -= 3599.9
    (machine.run_dir(KEY) / "state.json").write_text(json.dumps(state))
    boot(machine)
    _, status = follow_to_end(machine)
    assert status.reason == "timed-out"


def test_a_cancel_reaches_a_run_that_waits_for_its_machine(machine: LocalShell) -> None:
    start_job(machine)
    shut_down(machine)
    wait_for(lambda: state_of(machine)["state"] == "queued")
    status = process.signal(machine, KEY)
    assert (status.state, status.reason) == (ProcessState.ENDED, "cancelled")
    boot(machine)
    assert log_of(machine) == b"start 1\nsaving\n"


# --- boot --------------------------------------------------------------------------------


def guard_record(machine: LocalShell) -> dict:
    return json.loads((machine.base / "guard.json").read_text())


def test_boot_arms_the_guard_and_brings_the_agent_where_a_client_looks(machine: LocalShell) -> None:
    boot(machine)
    assert guard_record(machine)["policy"]["idle_s"] == 3600
    assert len(pids_of(machine.home)) == 1
    assert (machine.base / "agent.py").read_bytes() == AGENT.read_bytes()


def test_a_policy_that_came_over_ssh_stays_over_boots(machine: LocalShell) -> None:
    """Also where the clock at home was set back since."""
    boot(machine, issued_at=time.time() + 100)
    newer = Guard(issued_at=datetime.now(UTC), deadline_at=None, idle_minutes=7)
    process.arm_guard(machine, newer, ())
    for _ in range(2):
        power_off(machine)
        boot(machine)
        assert guard_record(machine)["policy"]["idle_s"] == 420
        wait_for(lambda: len(pids_of(machine.home)) == 1)


def test_a_policy_that_came_over_ssh_before_the_first_boot_script_stays(machine: LocalShell) -> None:
    newer = Guard(issued_at=datetime.now(UTC), deadline_at=None, idle_minutes=7)
    process.arm_guard(machine, newer, ())
    boot(machine, issued_at=time.time() - 100)
    assert guard_record(machine)["policy"]["idle_s"] == 420


def test_a_damaged_policy_is_replaced_by_the_payload_s(machine: LocalShell) -> None:
    boot(machine)
    power_off(machine)
    (machine.base / "guard.json").write_bytes(b"")  # lost with the power
    boot(machine)
    assert guard_record(machine)["policy"]["idle_s"] == 3600


def test_boot_leaves_what_runs_alone(machine: LocalShell) -> None:
    start_job(machine)
    for _ in range(3):
        boot(machine)
    assert state_of(machine)["state"] == "running"
    go(machine)
    log, status = follow_to_end(machine)
    assert (log, status.exit_code) == (b"start 1\ndone\n", 0)


def test_one_damaged_run_does_not_keep_the_others_down(machine: LocalShell) -> None:
    start_job(machine)
    power_off(machine)
    broken = machine.run_dir("0000.1")
    broken.mkdir()
    (broken / "state.json").write_bytes(b"")
    path = machine.home / "policy.json"
    path.write_text(json.dumps({"issued_at": time.time(), "deadline_at": None, "idle_s": 3600}))
    machine.run(f"python3 {AGENT} boot --policy {path}")
    go(machine)
    wait_for(lambda: log_of(machine) == TWICE)


def test_states_are_told_in_order(machine: LocalShell) -> None:
    start_job(machine)
    states = []
    for item in process.follow(machine, KEY, log_offset=0):
        if isinstance(item, StateChange):
            states.append(item.status.state)
            if states == [ProcessState.RUNNING]:
                for name in ("runner", "pid"):
                    os.kill(int((machine.run_dir(KEY) / name).read_text().split()[0]), signal.SIGTERM)
            if states[-1] is ProcessState.QUEUED:
                state = dict(state_of(machine), down=[0.0, 0.0, "the boot before"])
                (machine.run_dir(KEY) / "state.json").write_text(json.dumps(state))
                go(machine)
    assert states == [ProcessState.RUNNING, ProcessState.QUEUED, ProcessState.RUNNING, ProcessState.ENDED]
