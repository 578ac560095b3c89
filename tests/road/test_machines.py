"""Machines that stay, machines that end themselves, and what is left when things are killed or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.errors import Refused
from cloudrun.models import MachineState, RunState
from cloudrun.remote.openssh import control_folder


def wait_for_state(client: Client, name: str, state: MachineState, within_s: float = 90) -> None:
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        seen = {machine.name: machine.state for machine in client.machines(all=True)}
        if seen.get(name) is state:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} is {seen.get(name)}, not {state}")


def server_pid(client: Client, name: str) -> int:
    """The process that listens on the machine's port, found as the system knows it."""
    address = client.machine(name).address
    assert address is not None
    inode = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == address.port
    )
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.fspath(fd.readlink()) == f"socket:[{inode}]":
                return int(fd.parts[2])
        except OSError:
            continue
    raise AssertionError("nobody listens")


@pytest.fixture
def own_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No other test's connections beside one's own."""
    with tempfile.TemporaryDirectory(prefix="cr-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@pytest.mark.usefixtures("own_sockets")
def test_warming_up_opens_the_connection_before_it_is_needed(client: Client) -> None:
    before = set(control_folder().glob("*.[0-9]"))
    client.launch(name="m", stack="none")
    (socket,) = set(control_folder().glob("*.[0-9]")) - before
    subprocess.run(["ssh", "-S", str(socket), "-O", "exit", "m"], check=True, capture_output=True)
    client.warm_up("other")  # no such machine: nothing to connect to
    client.warm_up()
    give_up_at = time.monotonic() + 60
    while not socket.exists():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    assert client.shell("m").run("echo up").text == "up"


def test_stop_and_start_keep_the_disk(client: Client) -> None:
    client.launch(name="m", stack="none")
    client.shell("m").run("echo kept > file")
    assert client.stop("m").state is MachineState.STOPPED
    assert client.store.list_charges(machine="m", open_only=True) == []
    assert client.start("m").state is MachineState.RUNNING
    assert client.shell("m").run("cat file").text == "kept"
    assert len(client.store.list_charges(machine="m", open_only=True)) == 1


def test_extend_moves_the_deadline_here_and_on_the_machine(client: Client) -> None:
    client.launch(name="m", stack="none", max_hours=1)
    before = client.machine("m").deadline_at
    assert before is not None
    after = client.extend("m", hours=2).deadline_at
    assert after == before + timedelta(hours=2)
    with pytest.raises(Refused, match="cannot extend"):
        client.extend("m", hours=-1)


def test_the_machine_ends_itself_at_its_deadline_with_nobody_watching(client: Client, make_job) -> None:
    client.launch(name="m", stack="none", max_hours=1)
    run = client.submit(client.plan(make_job("import time; time.sleep(600)"), on="m"), detach=True)
    while client.run(run.id).state is not RunState.RUNNING:
        time.sleep(0.05)
    supervisor = client.run(run.id).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)  # the client is gone
    soon = client.extend("m", hours=1e-9).deadline_at  # only to learn the way: now bring it near
    assert soon is not None
    from cloudrun import machines, rent
    from cloudrun.models import Guard

    ctx = client.context()
    near = Guard(issued_at=datetime.now(UTC), deadline_at=datetime.now(UTC) + timedelta(seconds=3))
    rent.set_guard(ctx, client.machine("m"), client.shell("m"), near)
    wait_for_state(client, "m", MachineState.STOPPED)
    assert machines.heal(ctx, client.machine("m")).state is MachineState.STOPPED
    ended = client.attach(run.id)  # its outputs are still to be had
    assert ended.state is RunState.TIMED_OUT
    assert "deadline" in ended.message


def test_an_idle_machine_ends_itself(settings: Settings, client: Client) -> None:
    """Over paramiko: OpenSSH's shared connection stays open two minutes more, which is no idleness."""
    Client(replace(settings, shell="paramiko")).launch(name="m", stack="none", idle_minutes=3 / 60)
    wait_for_state(client, "m", MachineState.STOPPED, within_s=60)


def test_a_launch_killed_before_its_answer_was_stored_is_found_again(client: Client) -> None:
    script = (
        "import os, sys; from pathlib import Path; from cloudrun.client import Client;"
        "from cloudrun.config import Settings; from cloudrun.providers.local import LocalProvider as L\n"
        "real = L.launch\n"
        "def launch(self, spec):\n real(self, spec); os.kill(os.getpid(), 9)\n"
        "L.launch = launch\n"
        "Client(Settings(home=Path(sys.argv[1]), poll_s=0.2)).launch(name='m', stack='none')"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(client.settings.home)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert client.machine("m").id == ""
    (found,) = client.machines()
    assert (found.name, found.state, bool(found.id)) == ("m", MachineState.RUNNING, True)
    assert client.shell("m").run("echo up").text == "up"
    client.terminate("m")
    assert client.store.list_charges(open_only=True) == []


def test_a_launch_that_never_reached_the_provider_is_written_off(client: Client) -> None:
    script = (
        "import os, sys; from pathlib import Path; from cloudrun.client import Client;"
        "from cloudrun.config import Settings; from cloudrun.providers.local import LocalProvider as L\n"
        "L.launch = lambda self, spec: os.kill(os.getpid(), 9)\n"
        "Client(Settings(home=Path(sys.argv[1]), poll_s=0.2)).launch(name='m', stack='none')"
    )
    subprocess.run([sys.executable, "-c", script, str(client.settings.home)], check=False)
    assert client.machine("m").state is MachineState.PENDING
    assert client.machines() == []
    (charge,) = client.store.list_charges(machine="m")
    assert charge.void


def test_the_ssh_server_killed_under_a_run_loses_nothing(client: Client, make_job) -> None:
    client.launch(name="m", stack="none")
    script = "import time\nfor n in range(30): print('line', n, flush=True); time.sleep(0.1)"
    run = client.submit(client.plan(make_job(script), on="m"), detach=True)
    while b"line 5" not in b"".join(client.logs(run.id)):
        time.sleep(0.05)
    os.kill(server_pid(client, "m"), signal.SIGKILL)
    ended = client.attach(run.id)
    assert ended.state is RunState.SUCCEEDED
    assert client.files(run.id).log(1).read_bytes() == b"".join(b"line %d\n" % n for n in range(30))


def test_the_store_deleted_in_mid_run_is_rebuilt_and_the_run_finished(client: Client, make_job) -> None:
    client.launch(name="m", stack="none")
    script = "import time; print('on', flush=True); time.sleep(3); print('off')"
    run = client.submit(client.plan(make_job(script), on="m"), detach=True)
    while b"on" not in b"".join(client.logs(run.id)):
        time.sleep(0.05)
    supervisor = client.run(run.id).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    for path in client.settings.home.glob("cloudrun.sqlite*"):
        path.unlink()

    again = Client(client.settings)
    assert again.runs() == []
    assert [machine.name for machine in again.adopt()] == ["m"]
    assert again.adopt() == []  # idempotent
    ended = again.attach(run.id)
    assert (ended.state, ended.job) == (RunState.SUCCEEDED, "tiny")
    assert again.files(run.id).log(1).read_bytes() == b"on\noff\n"
    again.terminate("m")


def test_runs_known_only_to_their_machine_are_adopted_too(client: Client, make_job, tmp_path: Path) -> None:
    client.launch(name="m", stack="none")
    run = client.submit(client.plan(make_job("print('from far')"), on="m"))
    import shutil

    shutil.rmtree(client.settings.runs_dir)
    for path in client.settings.home.glob("cloudrun.sqlite*"):
        path.unlink()
    again = Client(client.settings)
    again.adopt()
    assert again.attach(run.id).state is RunState.SUCCEEDED
    assert again.files(run.id).log(1).read_bytes() == b"from far\n"
