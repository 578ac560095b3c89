"""The provider takes the machine: its notice becomes SIGTERM in time, and what may go on later does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from littleimds import LittleImds
from localmachine import LocalShell, follow_to_end, pids_of, start_script, wait_for
from resuming import KEY, boot, go, log_of, power_off, start_job, state_of

from cloudrun.guard import policy
from cloudrun.models import Guard
from cloudrun.remote import process
from cloudrun.remote.process import ProcessState

TERMINABLE = 'trap "echo saving; exit 75" TERM; echo up; while :; do sleep 0.02; done'


@pytest.fixture
def imds(machine: LocalShell) -> Iterator[LittleImds]:
    """The machine's metadata service. A proxy that its environment names is not asked."""
    service = LittleImds()
    machine.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = service.url
    machine.env["http_proxy"] = "http://127.0.0.1:9"
    yield service
    power_off(machine)  # its guard asks no service that is gone
    service.close()


def guarded(machine: LocalShell, **limits: object) -> None:
    guard = Guard(datetime.now(UTC), **({"deadline_at": None, "idle_minutes": None} | limits))  # type: ignore[arg-type]
    process.arm_guard(machine, guard, (), notices="aws")


def guard_log(machine: LocalShell) -> str:
    path = machine.base / "guard.log"
    return path.read_text() if path.exists() else ""


def up(machine: LocalShell, key: str = KEY) -> None:
    wait_for(lambda: log_of(machine, key) == b"up\n")


def test_the_notice_is_with_the_job_within_seconds(machine: LocalShell, imds: LittleImds) -> None:
    start_script(machine, TERMINABLE)
    start_script(machine, "touch $HOME/started", key="bbbb3333.1")
    guarded(machine)
    up(machine)
    wait_for(lambda: imds.asked > 0)
    when, told_at = imds.announce("terminate"), time.monotonic()
    log, status = follow_to_end(machine)
    assert time.monotonic() - told_at < 30  # looks are 2 s apart; a loaded computer takes longer
    assert log.startswith(b"up\n")
    assert log.endswith(b"saving\n")
    assert (status.exit_code, status.reason) == (75, "preempted")
    assert status.message == f"terminate, announced for {when}"
    assert state_of(machine)["notice"] == {"action": "terminate", "time": when}
    assert follow_to_end(machine, "bbbb3333.1")[1].reason == "preempted"
    assert not (machine.home / "started").exists()


def test_nothing_starts_any_more(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    guarded(machine)
    imds.announce("terminate")
    wait_for((machine.base / "notice.json").exists)
    start_script(machine, "touch $HOME/started")
    assert follow_to_end(machine)[1].reason == "preempted"
    assert not (machine.home / "started").exists()


def test_the_job_has_until_the_announced_time_and_no_longer(
    machine: LocalShell, imds: LittleImds, hasty: None
) -> None:
    start_script(machine, 'trap "" TERM; echo up; while :; do sleep 0.02; done', grace_s=3600)
    guarded(machine)
    up(machine)
    announced = time.time() + 3
    imds.announce("terminate", in_s=3)
    _, status = follow_to_end(machine)
    assert (status.exit_code, status.reason) == (137, "preempted")
    assert announced - 1.5 < status.ended_at.timestamp() < announced + 30  # the time has whole seconds


def test_the_service_s_own_clock_counts(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    """A machine whose clock is wrong still has the two minutes."""
    start_job(machine)
    guarded(machine)
    imds.announce("stop", in_s=60)
    wait_for(lambda: "kill_at" in state_of(machine) or state_of(machine)["state"] == "queued")
    request = json.loads((machine.run_dir(KEY) / "stop.json").read_text())
    assert 55 < request["grace_s"] <= 60


@pytest.mark.parametrize("action", ["stop", "hibernate"])
def test_a_machine_that_is_stopped_resumes_its_run_at_boot_with_no_client(
    machine: LocalShell, imds: LittleImds, hasty: None, action: str
) -> None:
    start_job(machine)
    start_script(machine, "echo second", key="bbbb3333.1")
    boot(machine, notices="aws")
    imds.announce(action)
    wait_for(lambda: state_of(machine)["state"] == "queued")
    assert process.status(machine, KEY).state is ProcessState.QUEUED
    assert state_of(machine, "bbbb3333.1")["state"] == "queued"
    power_off(machine)
    imds.withdraw()
    boot(machine)
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))
    go(machine)
    wait_for(lambda: log_of(machine, "bbbb3333.1") == b"second\n")
    log, status = follow_to_end(machine)
    assert (log, status.exit_code, status.reason) == (b"start 1\nsaving\nstart 2\ndone\n", 0, "")


def test_a_boot_ends_the_notice_of_the_one_before(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    """Also where the metadata service does not answer yet."""
    start_job(machine)
    boot(machine, notices="aws")
    imds.announce("stop")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    power_off(machine)
    imds.answer = (500, b"")
    boot(machine)
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))


def test_a_follower_sees_it_wait(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    start_job(machine)
    guarded(machine)
    imds.announce("stop")
    for item in process.follow(machine, KEY, log_offset=0):
        if isinstance(item, process.StateChange) and item.status.state is ProcessState.QUEUED:
            assert "goes on from its checkpoint" in item.status.message
            break


def test_a_run_that_does_not_resume_ends_with_the_machine(
    machine: LocalShell, imds: LittleImds, hasty: None
) -> None:
    start_script(machine, TERMINABLE)
    guarded(machine)
    up(machine)
    imds.announce("stop")
    assert follow_to_end(machine)[1].reason == "preempted"


def test_a_job_that_was_done_just_in_time_is_done(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    start_script(machine, 'trap "exit 0" TERM; echo up; while :; do sleep 0.02; done', resume="checkpoint")
    guarded(machine)
    up(machine)
    imds.announce("stop")
    _, status = follow_to_end(machine)
    assert (status.state, status.exit_code, status.reason) == (ProcessState.ENDED, 0, "")


def test_a_notice_that_is_withdrawn_lets_everything_go_on(
    machine: LocalShell, imds: LittleImds, hasty: None
) -> None:
    """Also what a machine finds that comes back from hibernation: the same boot, no notice."""
    start_job(machine)
    guarded(machine)
    imds.announce("hibernate")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    imds.withdraw()
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))
    go(machine)
    assert follow_to_end(machine)[1].exit_code == 0


def test_a_notice_of_long_ago_is_none(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    imds.announce("terminate", in_s=-600)
    start_job(machine)
    guarded(machine)
    wait_for(lambda: imds.asked > 5)
    assert state_of(machine)["state"] == "running"
    assert "reason" not in state_of(machine)


def test_a_runner_killed_while_the_job_saves_changes_nothing(
    machine: LocalShell, imds: LittleImds, hasty: None
) -> None:
    save = "until [ -e $HOME/go ]; do sleep 0.02; done; exit 75"
    script = f"trap '{save}' TERM; echo up; while :; do sleep 0.02; done"
    start_script(machine, script, resume="checkpoint", grace_s=3600)
    guarded(machine)
    up(machine)
    imds.announce("stop")
    wait_for(lambda: state_of(machine).get("reason") == "preempted")
    os.kill(int((machine.run_dir(KEY) / "runner").read_text()), signal.SIGKILL)
    go(machine)
    wait_for(lambda: process.status(machine, KEY).state is ProcessState.QUEUED)


def test_a_cancel_ends_a_run_that_waits_for_its_machine(
    machine: LocalShell, imds: LittleImds, hasty: None
) -> None:
    start_job(machine)
    guarded(machine)
    imds.announce("stop")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    status = process.signal(machine, KEY)
    assert (status.state, status.reason) == (ProcessState.ENDED, "cancelled")


# --- the metadata service ----------------------------------------------------------------


def test_a_token_that_has_run_out_is_replaced(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    start_job(machine)
    guarded(machine)
    wait_for(lambda: imds.asked > 1)
    assert imds.issued == 1
    imds.tokens.clear()
    wait_for(lambda: imds.issued == 2)  # a question that was under way may still have been answered
    imds.announce("stop")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    assert (imds.issued, imds.refused) == (2, 1)


FAULTS = {
    "an error": {"answer": (500, b"")},
    "no JSON": {"answer": (200, b"<html>")},
    "no time": {"answer": (200, b'{"action": "stop"}')},
    "another time": {"answer": (200, b'{"action": "stop", "time": "soon"}')},
    "not an object": {"answer": (200, b"[1]")},
    "not text": {"answer": (200, b"\xff\xfe")},
    "no token": {"token_status": 403},
    "silence": {"silent_s": 2.0},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_service_does_the_guard_lives_on(
    machine: LocalShell, imds: LittleImds, hasty: None, fault: str
) -> None:
    start_job(machine)
    for name, value in FAULTS[fault].items():
        setattr(imds, name, value)
    guarded(machine)
    wait_for(lambda: "notices: " in guard_log(machine))
    imds.token_status, imds.silent_s = 200, 0.0
    imds.announce("stop")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    assert guard_log(machine).count("notices: ") == 1


def test_without_a_service_the_deadline_is_kept(machine: LocalShell, hasty: None) -> None:
    machine.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:9"
    start_script(machine, TERMINABLE)
    up(machine)
    guarded(machine, deadline_at=datetime.now(UTC) + timedelta(seconds=0.5))
    assert follow_to_end(machine)[1].reason == "deadline"


# --- the policy --------------------------------------------------------------------------


def test_a_machine_that_is_kept_still_listens(machine: LocalShell, imds: LittleImds, hasty: None) -> None:
    start_job(machine)
    guarded(machine, keep=True)
    imds.announce("stop")
    wait_for(lambda: state_of(machine)["state"] == "queued")


def test_a_policy_that_does_not_say_keeps_the_source(
    machine: LocalShell, imds: LittleImds, hasty: None
) -> None:
    guarded(machine)
    process.arm_guard(machine, Guard(datetime.now(UTC), idle_minutes=5), ())
    asked = imds.asked
    wait_for(lambda: imds.asked > asked + 2)
    assert len(pids_of(machine.home)) == 1


def test_the_policy_names_the_source_only_where_there_is_one() -> None:
    guard = Guard(datetime.now(UTC))
    assert policy(guard, (), notices="aws")["notices"] == "aws"
    assert "notices" not in policy(guard, ())
