"""Azure takes the machine: its scheduled events, as the guard hears of them by the companion file."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from littleazure import COMPUTE, EVENTS, LittleAzure
from localmachine import LocalShell, follow_to_end, pids_of, start_script, wait_for
from resuming import KEY, boot, go, log_of, power_off, start_job, state_of

from cloudrun.models import Guard
from cloudrun.remote import process
from cloudrun.remote.process import ProcessState

COMPANION = Path(__file__).parents[2] / "cloudrun" / "agent" / "azure.py"
TERMINABLE = 'trap "echo saving; exit 75" TERM; echo up; while :; do sleep 0.02; done'
# Saves until there is a file `go`.
SAVING = (
    "trap 'until [ -e $HOME/go ]; do sleep 0.02; done; exit 75' TERM; echo up; while :; do sleep 0.02; done"
)


@pytest.fixture
def azure(machine: LocalShell, tmp_path: Path) -> Iterator[LittleAzure]:
    """What the machine can ask there, and the companion on it. A proxy that it is told of is not asked."""
    service = LittleAzure(tmp_path)
    machine.env |= service.environment | {"http_proxy": "http://127.0.0.1:9"}
    shutil.copy(COMPANION, companion(machine))
    yield service
    power_off(machine)  # its guard asks no service that is gone
    service.close()


def companion(machine: LocalShell) -> Path:
    return machine.home / "azure.py"


def guarded(machine: LocalShell, **limits: object) -> None:
    guard = Guard(datetime.now(UTC), **({"deadline_at": None, "idle_minutes": None} | limits))  # type: ignore[arg-type]
    process.arm_guard(machine, guard, (), notices=str(companion(machine)))


def guard_log(machine: LocalShell) -> str:
    path = machine.base / "guard.log"
    return path.read_text() if path.exists() else ""


def up(machine: LocalShell, key: str = KEY) -> None:
    wait_for(lambda: log_of(machine, key) == b"up\n")


def asked_again(azure: LittleAzure) -> None:
    """Until the events have been asked for a few times more."""
    before = azure.count(EVENTS)
    wait_for(lambda: azure.count(EVENTS) > before + 3)


# --- a preemption ------------------------------------------------------------------------


def test_the_notice_is_with_the_job_within_seconds(machine: LocalShell, azure: LittleAzure) -> None:
    azure.policy = "Delete"
    start_script(machine, TERMINABLE)
    guarded(machine)
    up(machine)
    wait_for(lambda: azure.count(EVENTS) > 0)
    event, told_at = azure.schedule("Preempt"), time.monotonic()
    when = parsedate_to_datetime(event["NotBefore"]).strftime("%Y-%m-%dT%H:%M:%SZ")
    log, status = follow_to_end(machine)
    assert time.monotonic() - told_at < 30  # looks are 2 s apart; a loaded computer takes longer
    assert log.endswith(b"saving\n")
    assert (status.exit_code, status.reason) == (75, "preempted")
    assert status.message == f"terminate, announced for {when}"
    assert state_of(machine)["notice"] == {"action": "terminate", "time": when}


def test_the_job_has_what_is_left_until_then(machine: LocalShell, azure: LittleAzure, hasty: None) -> None:
    start_script(machine, SAVING, grace_s=3600)
    guarded(machine)
    up(machine)
    azure.schedule("Preempt", in_s=30)
    wait_for((machine.run_dir(KEY) / "stop.json").exists)
    assert 0 < json.loads((machine.run_dir(KEY) / "stop.json").read_text())["grace_s"] <= 30


def test_where_the_disk_stays_the_run_goes_on_when_the_machine_is_back(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    start_job(machine)
    boot(machine, notices=str(companion(machine)))
    azure.schedule("Preempt")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    assert json.loads((machine.base / "notice.json").read_text())["action"] == "stop"
    power_off(machine)
    azure.events.clear()
    boot(machine)
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))
    go(machine)
    assert follow_to_end(machine)[1].exit_code == 0


def test_a_preemption_that_is_called_off_lets_everything_go_on(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    """Azure shows an event no longer; it has no word for its end."""
    start_job(machine)
    guarded(machine)
    azure.schedule("Preempt")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    azure.events.clear()
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))


def test_one_that_has_begun_keeps_its_time(machine: LocalShell, azure: LittleAzure, hasty: None) -> None:
    """Azure says no longer when, once it has begun: also because it was approved."""
    start_script(machine, SAVING, resume="checkpoint")
    guarded(machine)
    up(machine)
    event = azure.schedule("Preempt", in_s=40)
    wait_for((machine.base / "notice.json").exists)
    before = (machine.base / "notice.json").read_text()
    event.update(EventStatus="Started", NotBefore="")
    asked_again(azure)
    assert (machine.base / "notice.json").read_text() == before
    assert guard_log(machine).count("notice: ") == 1


@pytest.mark.parametrize("not_before", ["", "soon", None])
def test_one_that_does_not_say_when_is_now(
    machine: LocalShell, azure: LittleAzure, hasty: None, not_before: str | None
) -> None:
    start_script(machine, 'trap "" TERM; echo up; while :; do sleep 0.02; done', grace_s=3600)
    guarded(machine)
    up(machine)
    began = time.time()
    azure.schedule("Preempt", in_s=None, status="Started")["NotBefore"] = not_before
    _, status = follow_to_end(machine)
    assert (status.exit_code, status.reason) == (137, "preempted")  # after the least that a job is given
    assert status.ended_at.timestamp() < began + 10
    asked_again(azure)
    assert azure.count(EVENTS, "POST") == 0  # Azure is already going ahead


def test_the_first_of_two_counts(machine: LocalShell, azure: LittleAzure, hasty: None) -> None:
    start_script(machine, SAVING)
    guarded(machine)
    up(machine)
    azure.events.append(azure.schedule("Preempt", in_s=600) | {"EventId": "LATER"})
    azure.schedule("Preempt", in_s=30)
    azure.events = azure.events[1:]
    wait_for((machine.run_dir(KEY) / "stop.json").exists)
    asked_again(azure)
    when = json.loads((machine.base / "notice.json").read_text())["time"]
    assert datetime.fromisoformat(when).timestamp() < time.time() + 60


# --- its approval ------------------------------------------------------------------------


def test_it_is_approved_when_the_job_has_saved_and_not_before(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    start_script(machine, SAVING, resume="checkpoint")
    start_script(machine, "echo second", key="bbbb3333.1", resume="checkpoint")
    guarded(machine)
    up(machine)
    event = azure.schedule("Preempt")
    wait_for(lambda: state_of(machine).get("told"))
    asked_again(azure)
    assert azure.approvals == []
    go(machine)
    wait_for(lambda: azure.approvals)
    assert state_of(machine)["state"] == "queued"
    asked_again(azure)
    assert azure.approvals == [[event["EventId"]]]
    assert "notices: " not in guard_log(machine)


def test_an_approval_that_failed_is_sent_again(machine: LocalShell, azure: LittleAzure, hasty: None) -> None:
    azure.faults[f"POST {EVENTS}"] = [(500, b"", {}), (429, b"", {})]
    guarded(machine)
    event = azure.schedule("Preempt")
    wait_for(lambda: azure.approvals)
    asked_again(azure)
    assert azure.approvals == [[event["EventId"]]]
    assert azure.count(EVENTS, "POST") == 3


def test_nothing_is_approved_before_the_disk_has_it(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    failing = "import os\ndef full():\n    raise OSError('not yet')\nos.sync = full\n"
    companion(machine).write_text(failing + COMPANION.read_text())
    guarded(machine)
    azure.schedule("Preempt")
    wait_for(lambda: "not yet" in guard_log(machine))
    asked_again(azure)
    assert azure.count(EVENTS, "POST") == 0


def test_an_approval_that_azure_is_slow_to_show_is_not_repeated(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    azure.always[f"POST {EVENTS}"] = (200, b"", {})  # and the event stays Scheduled
    guarded(machine)
    azure.schedule("Preempt")
    wait_for(lambda: azure.count(EVENTS, "POST") == 1)
    asked_again(azure)
    assert azure.count(EVENTS, "POST") == 1


def test_where_the_disk_goes_too_whoever_brings_results_home_has_the_time_that_is_left(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    azure.policy = "Delete"
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        machine.env["SSH_CONNECTION"] = f"127.0.0.1 50000 {host} {port}"
        with socket.create_connection((host, port)), server.accept()[0]:
            start_script(machine, SAVING)
            guarded(machine)
            up(machine)
            azure.schedule("Preempt")
            go(machine)
            assert follow_to_end(machine)[1].reason == "preempted"
            asked_again(azure)
            assert azure.approvals == []
        wait_for(lambda: azure.approvals)


def test_where_the_disk_goes_too_what_is_stored_without_a_client_has_the_time_that_is_left(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    azure.policy = "Delete"
    start_script(machine, TERMINABLE)
    outbox = machine.run_dir(KEY) / "outbox"
    outbox.write_text("{}")
    guarded(machine)
    up(machine)
    azure.schedule("Preempt")
    assert follow_to_end(machine)[1].reason == "preempted"
    asked_again(azure)
    assert azure.approvals == []
    outbox.unlink()
    wait_for(lambda: azure.approvals)


# --- what is no preemption ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Freeze", "Reboot", "Redeploy", "Terminate"])
def test_another_event_is_written_down_and_the_job_runs_on(
    machine: LocalShell, azure: LittleAzure, hasty: None, kind: str
) -> None:
    start_job(machine)
    guarded(machine)
    event = azure.schedule(kind, in_s=900)
    wait_for(lambda: f"event: {kind} Scheduled {event['NotBefore']} Platform" in guard_log(machine))
    event.update(EventStatus="Started", NotBefore="")
    wait_for(lambda: f"event: {kind} Started" in guard_log(machine))
    asked_again(azure)
    assert guard_log(machine).count("event: ") == 2
    assert (state_of(machine)["state"], azure.approvals) == ("running", [])
    assert not (machine.base / "notice.json").exists()


def test_another_machine_s_preemption_is_none_of_ours(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    start_job(machine)
    azure.schedule("Preempt", name="cr-0123456789abc")
    azure.schedule("Reboot", name="another")
    guarded(machine)
    asked_again(azure)
    assert (state_of(machine)["state"], azure.approvals) == ("running", [])
    assert guard_log(machine) == ""


# --- a service that does not do well -----------------------------------------------------

FAULTS: dict[str, tuple[str, tuple[int, bytes]]] = {
    "an error": (EVENTS, (500, b"")),
    "too many questions": (EVENTS, (429, b"")),
    "an update of its own": (EVENTS, (410, b"")),
    "no JSON": (EVENTS, (200, b"<html>")),
    "not an object": (EVENTS, (200, b"[1]")),
    "not events": (EVENTS, (200, b'{"Events": [1]}')),
    "not text": (EVENTS, (200, b"\xff\xfe")),
    "no connection": (EVENTS, (0, b"")),
    "a redirect": (EVENTS, (307, b"")),
    "no name": (COMPUTE, (200, b"{}")),
    "no machine": (COMPUTE, (404, b"")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_service_does_the_guard_lives_on(
    machine: LocalShell, azure: LittleAzure, hasty: None, fault: str
) -> None:
    start_job(machine)
    path, (status, body) = FAULTS[fault]
    azure.always[path] = (status, body, {"Location": f"{azure.metadata}{EVENTS}"})
    guarded(machine)
    wait_for(lambda: azure.count(path) > 3)
    azure.always.clear()
    azure.schedule("Preempt")
    wait_for(lambda: state_of(machine)["state"] == "queued")
    assert guard_log(machine).count("notices: ") == 1


def test_a_service_that_is_slow_to_begin_keeps_no_deadline_waiting(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    """Its first answer may take minutes."""
    azure.silent_s = 600.0
    start_script(machine, TERMINABLE)
    up(machine)
    armed = time.monotonic()
    guarded(machine, deadline_at=datetime.now(UTC) + timedelta(seconds=0.5))
    assert follow_to_end(machine)[1].reason == "deadline"
    assert time.monotonic() - armed < 60


# --- a companion that is none ------------------------------------------------------------


def missing(path: Path) -> None:
    path.unlink()


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": missing,
    "cut short": lambda path: path.write_text(path.read_text().partition("    def poll(")[0]),
    "cut in a line": lambda path: path.write_text(path.read_text().partition("(self):")[0]),
    "empty": lambda path: path.write_text(""),
    "leaving": lambda path: path.write_text("import sys\nsys.exit(3)\n"),
    "another's": lambda path: path.write_text(
        "class Notices:\n    def __init__(self, wanted):\n        pass\n"
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_without_its_companion_the_guard_lives_on_and_says_so_once(
    machine: LocalShell, azure: LittleAzure, hasty: None, broken: str
) -> None:
    BROKEN[broken](companion(machine))
    guarded(machine, idle_minutes=60)
    guarded(machine, deadline_at=datetime.now(UTC) + timedelta(hours=1), idle_minutes=60)
    wait_for(lambda: "notices: " in guard_log(machine))
    assert len(pids_of(machine.home)) == 1
    start_script(machine, TERMINABLE)
    guarded(machine, deadline_at=datetime.now(UTC) + timedelta(seconds=0.3))
    assert follow_to_end(machine)[1].reason == "deadline"
    assert guard_log(machine).count("notices: ") == 1


def test_a_policy_that_does_not_say_keeps_the_companion(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    guarded(machine)
    process.arm_guard(machine, Guard(datetime.now(UTC), idle_minutes=5), ())
    asked_again(azure)
    assert process.list_runs(machine) == {}
    assert len(pids_of(machine.home)) == 1


def test_nothing_starts_on_a_machine_that_is_taken(
    machine: LocalShell, azure: LittleAzure, hasty: None
) -> None:
    azure.schedule("Preempt")
    guarded(machine)
    wait_for((machine.base / "notice.json").exists)
    start_script(machine, "touch $HOME/started", resume="checkpoint")
    asked_again(azure)
    assert process.status(machine, KEY).state is ProcessState.QUEUED
    assert not (machine.home / "started").exists()
