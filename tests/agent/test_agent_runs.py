"""Runs on a machine: queue, limits, signals, and what survives when its processes are killed."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest
from localmachine import LocalShell, follow_to_end, make_bundle, pids_of, start_script, wait_for

from cloudrun.errors import TransferFailed
from cloudrun.remote import process, transfer
from cloudrun.remote.process import ProcessState

KEY = "aaaa2222.1"
WAIT_FOR_GO = "echo up; until [ -e $HOME/go ]; do sleep 0.02; done; echo went"
TERMINABLE = 'trap "echo saving; exit 75" TERM; echo up; while :; do sleep 0.02; done'


def runner_pid(machine: LocalShell, key: str = KEY) -> int:
    return int((machine.run_dir(key) / "runner").read_text())


def runner_lives(machine: LocalShell) -> bool:
    told = (machine.run_dir(KEY) / "runner").read_text()  # empty while it writes its number
    return bool(told) and int(told) in pids_of(machine.home)


def state_of(machine: LocalShell, key: str = KEY) -> dict:
    return json.loads((machine.run_dir(key) / "state.json").read_text())


def log_of(machine: LocalShell, key: str = KEY) -> bytes:
    return (machine.run_dir(key) / "log").read_bytes()


def go(machine: LocalShell) -> None:
    (machine.home / "go").touch()


def kill_runner(machine: LocalShell, key: str = KEY) -> None:
    pid = runner_pid(machine, key)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in pids_of(machine.home))


@pytest.mark.parametrize("code", [0, 1, 75, 137, 255])
def test_the_exit_code_comes_home(machine: LocalShell, code: int) -> None:
    start_script(machine, f"echo out; echo err >&2; exit {code}")
    log, status = follow_to_end(machine)
    assert (log, status.exit_code) == (b"out\nerr\n", code)
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.ended_at >= status.started_at
    again = process.status(machine, KEY)
    assert (again.state, again.exit_code, again.log_bytes) == (ProcessState.ENDED, code, 8)


def test_start_is_idempotent(machine: LocalShell) -> None:
    for _ in range(3):
        start_script(machine, "echo once; echo once >> $HOME/times")
    follow_to_end(machine)
    assert start_script(machine, "echo other").state is ProcessState.ENDED
    assert (machine.home / "times").read_text() == "once\n"


def test_the_job_finds_its_environment(machine: LocalShell) -> None:
    names = ("PWD", "CLOUDRUN_OUTPUT_DIR", "CLOUDRUN_DATA_DIR", "CLOUDRUN_RESUME_FROM", "GREETING")
    script = "".join(f'echo "${name}"; ' for name in names)
    start_script(machine, script, env={"GREETING": "h\u00e9llo\n$x"}, outputs="out", resume_from="/from/here")
    log, _ = follow_to_end(machine)
    code = machine.run_dir(KEY) / "code"
    expected = [str(code), str(code / "out"), str(machine.base / "data"), "/from/here", "h\u00e9llo", "$x"]
    assert log.decode().splitlines() == expected
    assert (code / "out").is_dir()


def test_the_machines_own_data_folder_stands(machine: LocalShell) -> None:
    machine.env["CLOUDRUN_DATA_DIR"] = "/data/of/the/machine"
    start_script(machine, 'echo "$CLOUDRUN_DATA_DIR"')
    assert follow_to_end(machine)[0] == b"/data/of/the/machine\n"


def test_secrets_are_on_disk_only_until_the_process_has_started(machine: LocalShell) -> None:
    secret = "hunter2hunter2"
    start_script(machine, WAIT_FOR_GO, key="aaaa0000.1")
    start_script(machine, "echo ${#TOKEN}", env={"TOKEN": secret})
    env = machine.run_dir(KEY) / "env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert secret in env.read_text()
    go(machine)
    assert follow_to_end(machine)[0] == b"14\n"
    assert not [
        path for path in machine.base.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert "env" not in process.read_spec(machine, KEY)


def test_nothing_here_is_readable_by_others(machine: LocalShell) -> None:
    start_script(machine, "umask")
    assert follow_to_end(machine)[0] == b"%04o\n" % current_umask()
    assert stat.S_IMODE(machine.base.stat().st_mode) == 0o700


def current_umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def test_labels_are_readable_again(machine: LocalShell) -> None:
    start_script(machine, "true", labels={"job": "svhn", "note": "\u00e9"})
    assert process.read_spec(machine, KEY)["labels"] == {"job": "svhn", "note": "\u00e9"}
    follow_to_end(machine)
    assert list(process.list_runs(machine)) == [KEY]


@pytest.mark.parametrize("command", [("no-such-program",), ("./job.sh",), ("folder",)])
def test_a_command_that_is_not_there_cannot_start(machine: LocalShell, command: tuple[str, ...]) -> None:
    bundle, open_content = make_bundle({"job.sh": b"not executable"})
    transfer.push_bundle(machine, bundle, open_content)
    process.start(machine, process.ProcessSpec(key=KEY, bundle=bundle.digest, command=command))
    _, status = follow_to_end(machine)
    assert (status.reason, status.exit_code) == ("cannot-start", None)
    assert command[0] in status.message


def test_a_run_of_a_bundle_that_was_not_pushed_is_refused(machine: LocalShell) -> None:
    with pytest.raises(TransferFailed, match="not on this machine"):
        process.start(machine, process.ProcessSpec(key=KEY, bundle="ab" * 32, command=("true",)))


def test_damaged_content_is_found_and_pushed_anew(machine: LocalShell) -> None:
    bundle, open_content = make_bundle({"job.sh": b"echo fine"})
    transfer.push_bundle(machine, bundle, open_content)
    sha256 = bundle.files[0].sha256
    (machine.base / "objects" / sha256[:2] / sha256).write_bytes(b"echo fake")
    spec = process.ProcessSpec(key=KEY, bundle=bundle.digest, command=("/bin/sh", "job.sh"))
    process.start(machine, spec)
    log, status = follow_to_end(machine)
    assert (log, status.reason) == (b"", "cannot-start")
    assert transfer.push_bundle(machine, bundle, open_content).files_sent == 1
    start_script(machine, "echo fine", key="aaaa2222.2")
    assert follow_to_end(machine, "aaaa2222.2")[0] == b"fine\n"


def test_an_unknown_run_is_absent(machine: LocalShell) -> None:
    assert process.status(machine, "nobody.1").state is ProcessState.ABSENT
    assert process.signal(machine, "nobody.1").state is ProcessState.ABSENT
    assert follow_to_end(machine, "nobody.1")[1].state is ProcessState.ABSENT
    assert process.list_runs(machine) == {}


# --- the queue ---------------------------------------------------------------------------


def test_runs_go_one_after_the_other_in_order(machine: LocalShell) -> None:
    script = "echo $CLOUDRUN_RUN_ID >> $HOME/order; until [ -e $HOME/go ]; do sleep 0.02; done"
    keys = [f"run{number}.1" for number in range(5)]
    for position, key in enumerate(keys):
        status = start_script(machine, script, key=key, env={"CLOUDRUN_RUN_ID": key})
        assert status.queue_position == position
    wait_for((machine.home / "order").exists)
    assert process.status(machine, keys[0]).state is ProcessState.RUNNING
    assert [process.status(machine, key).queue_position for key in keys[1:]] == [1, 2, 3, 4]
    go(machine)
    for key in reversed(keys):
        assert follow_to_end(machine, key)[1].exit_code == 0
    assert (machine.home / "order").read_text().split() == keys
    wait_for(lambda: [path.name for path in (machine.base / "queue").iterdir()] == ["lock"])


def test_a_queued_run_is_cancelled_without_ever_starting(machine: LocalShell) -> None:
    start_script(machine, WAIT_FOR_GO, key="first.1")
    start_script(machine, "touch $HOME/started", key="second.1")
    start_script(machine, "echo third", key="third.1")
    status = process.signal(machine, "second.1")
    assert (status.state, status.reason, status.exit_code) == (ProcessState.ENDED, "cancelled", None)
    go(machine)
    assert follow_to_end(machine, "third.1")[0] == b"third\n"
    assert not (machine.home / "started").exists()


def test_killed_runners_neither_free_the_queue_too_early_nor_block_it(machine: LocalShell) -> None:
    start_script(machine, f"{WAIT_FOR_GO}; touch $HOME/done", key="first.1")
    wait_for(lambda: log_of(machine, "first.1") == b"up\n")
    start_script(machine, "ls $HOME/done", key="second.1")
    start_script(machine, "echo third", key="third.1")
    kill_runner(machine, "second.1")
    kill_runner(machine, "first.1")  # its job lives on, and the queue must wait for it
    assert process.status(machine, "third.1").state is ProcessState.QUEUED
    go(machine)
    log, status = follow_to_end(machine, "third.1")
    assert (log, status.exit_code) == (b"third\n", 0)
    assert process.status(machine, "second.1").exit_code == 0


# --- limits and signals ------------------------------------------------------------------


def test_cancel_lets_the_job_save(machine: LocalShell) -> None:
    start_script(machine, TERMINABLE)
    wait_for(lambda: log_of(machine) == b"up\n")
    process.signal(machine, KEY, reason="preempted")
    log, status = follow_to_end(machine)
    assert log.endswith(b"saving\n")
    assert (status.exit_code, status.reason) == (75, "preempted")


def test_a_job_that_will_not_end_is_killed_after_the_grace_period(machine: LocalShell) -> None:
    start_script(machine, 'trap "" TERM; echo up; while :; do sleep 0.02; done')
    wait_for(lambda: log_of(machine) == b"up\n")
    process.signal(machine, KEY, grace_s=0.2)
    _, status = follow_to_end(machine)
    assert (status.exit_code, status.reason) == (137, "cancelled")


def test_less_patience_the_second_time(machine: LocalShell) -> None:
    start_script(machine, 'trap "" TERM; echo up; while :; do sleep 0.02; done')
    wait_for(lambda: log_of(machine) == b"up\n")
    process.signal(machine, KEY, grace_s=3600)
    process.signal(machine, KEY, grace_s=0.1)
    assert follow_to_end(machine)[1].exit_code == 137


def test_the_time_limit_is_kept_with_nobody_watching(machine: LocalShell) -> None:
    start_script(machine, TERMINABLE, max_seconds=0.3)
    wait_for(lambda: state_of(machine)["state"] == "ended")
    status = process.status(machine, KEY)
    assert (status.exit_code, status.reason) == (75, "timed-out")


def test_sigterm_passes_through_a_shell_that_would_keep_it(machine: LocalShell) -> None:
    """sh does not pass SIGTERM on, and would die of it before the program that it runs has saved."""
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('up')\n"
        "time.sleep(600)"
    )
    start_script(machine, f'python3 -S -c "{program}"\ncode=$?\nexit $code')
    wait_for(lambda: log_of(machine) == b"up\n")
    process.signal(machine, KEY)
    assert follow_to_end(machine)[1].exit_code == 75


def test_workers_of_a_job_are_left_to_the_job(machine: LocalShell) -> None:
    """SIGTERM goes to the command alone: a worker that dies under a saving job would spoil the save."""
    program = (
        "import signal, subprocess, sys\n"
        "worker = subprocess.Popen(['sleep', '600'])\n"
        "def save(*_):\n"
        "    worker.terminate() if worker.poll() is None else sys.exit(1)\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('up')\n"
        "worker.wait()\n"
        "signal.pause()\n"
    )
    bundle, open_content = make_bundle({"job.py": program.encode()})
    transfer.push_bundle(machine, bundle, open_content)
    process.start(machine, process.ProcessSpec(key=KEY, bundle=bundle.digest, command=("python3", "job.py")))
    wait_for(lambda: log_of(machine) == b"up\n")
    process.signal(machine, KEY)
    assert follow_to_end(machine)[1].exit_code == 75


def test_what_the_job_leaves_behind_ends_with_it(machine: LocalShell) -> None:
    start_script(machine, "sleep 600 & echo $!")
    log, status = follow_to_end(machine)
    assert status.exit_code == 0
    assert int(log) not in pids_of(machine.home)


# --- killed processes --------------------------------------------------------------------


def test_killing_the_runner_loses_neither_job_nor_log_nor_exit_code(machine: LocalShell) -> None:
    start_script(machine, f"{WAIT_FOR_GO}; exit 42")
    wait_for(lambda: log_of(machine) == b"up\n")
    kill_runner(machine)
    go(machine)
    wait_for(lambda: log_of(machine).endswith(b"went\n"))
    log, status = follow_to_end(machine)
    assert (log, status.exit_code, status.reason) == (b"up\nwent\n", 42, "")


def test_killing_the_runner_again_and_again_under_follow(machine: LocalShell) -> None:
    start_script(machine, f"{WAIT_FOR_GO}; exit 42")
    seen = []
    for item in process.follow(machine, KEY, log_offset=0):
        seen.append(item)
        if isinstance(item, process.LogChunk) and item.data == b"up\n":
            for _ in range(3):
                kill_runner(machine)
                wait_for(lambda: process.status(machine, KEY).state is ProcessState.RUNNING)
                wait_for(lambda: runner_lives(machine))
            kill_runner(machine)  # follow itself has to notice this one
            go(machine)
    assert isinstance(seen[-1], process.StateChange)
    assert seen[-1].status.exit_code == 42


def test_a_revived_runner_still_stops_the_job(machine: LocalShell) -> None:
    start_script(machine, TERMINABLE)
    wait_for(lambda: log_of(machine) == b"up\n")
    kill_runner(machine)
    process.signal(machine, KEY)
    assert follow_to_end(machine)[1].exit_code == 75


def test_a_runner_killed_before_it_told_the_job_has_a_successor_that_does(machine: LocalShell) -> None:
    start_script(machine, TERMINABLE)
    wait_for(lambda: log_of(machine) == b"up\n")
    kill_runner(machine)
    state = dict(
        state_of(machine), reason="cancelled", kill_at=time.clock_gettime(time.CLOCK_BOOTTIME) + 3600
    )
    (machine.run_dir(KEY) / "state.json").write_text(json.dumps(state))
    assert follow_to_end(machine)[1].exit_code == 75


def test_a_killed_job_is_a_failure_that_says_so(machine: LocalShell) -> None:
    start_script(machine, WAIT_FOR_GO)
    wait_for(lambda: log_of(machine) == b"up\n")
    os.kill(int((machine.run_dir(KEY) / "pid").read_text().split()[0]), signal.SIGKILL)
    _, status = follow_to_end(machine)
    assert (status.exit_code, status.reason) == (137, "killed")
    assert "signal 9" in status.message


def test_killing_job_shell_and_runner_together_is_told_too(machine: LocalShell) -> None:
    start_script(machine, WAIT_FOR_GO)
    wait_for(lambda: log_of(machine) == b"up\n")
    kill_runner(machine)
    os.kill(state_of(machine)["pid"], signal.SIGKILL)
    os.kill(int((machine.run_dir(KEY) / "pid").read_text().split()[0]), signal.SIGKILL)
    _, status = follow_to_end(machine)  # which leaves a new runner behind, and hears its finding
    assert (status.state, status.exit_code, status.reason) == (ProcessState.ENDED, 137, "killed")


def test_a_killed_shell_does_not_end_the_job_that_it_wraps(machine: LocalShell) -> None:
    start_script(machine, WAIT_FOR_GO)
    wait_for(lambda: log_of(machine) == b"up\n")
    os.kill(state_of(machine)["pid"], signal.SIGKILL)
    assert process.status(machine, KEY).state is ProcessState.RUNNING
    go(machine)
    log, status = follow_to_end(machine)
    assert log == b"up\nwent\n"
    assert (status.exit_code, status.reason) == (137, "killed")


def test_a_run_whose_folder_is_wiped_does_not_run_on(machine: LocalShell) -> None:
    start_script(machine, WAIT_FOR_GO)
    wait_for(lambda: log_of(machine) == b"up\n")
    runner = runner_pid(machine)
    machine.base.rename(machine.home / "gone")
    os.kill(runner, signal.SIGUSR1)  # it would look within a minute
    wait_for(lambda: pids_of(machine.home) == [])


def test_a_run_from_before_a_restart_of_the_machine_is_over(machine: LocalShell) -> None:
    start_script(machine, WAIT_FOR_GO)
    wait_for(lambda: log_of(machine) == b"up\n")
    kill_runner(machine)
    state = state_of(machine)
    job = int((machine.run_dir(KEY) / "pid").read_text().split()[0])
    for pid in (state["pid"], job):
        os.kill(pid, signal.SIGKILL)
    # The same id now belongs to another, later process: this very one.
    state.update(pid=os.getpid(), started=[state["started"][0], 0.0, "another boot"])
    (machine.run_dir(KEY) / "state.json").write_text(json.dumps(state))
    _, status = follow_to_end(machine)
    assert (status.state, status.reason) == (ProcessState.ENDED, "killed")
    assert Path(f"/proc/{os.getpid()}").exists()
