"""The local provider's own: idempotent through any death, machines that outlive a reboot, no leftovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from exhaustive import exhaustive
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from servers import launch

from cloudrun.config import Settings
from cloudrun.errors import BootFailed, NotFound, NotOffered, ProviderError
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market, Stack
from cloudrun.providers import hardware
from cloudrun.providers.base import Need, SelfRelease, Stoppable
from cloudrun.providers.local import LocalProvider
from cloudrun.remote.connect import connect
from cloudrun.server import processes
from cloudrun.server.folder import MachineFolder

# Kills itself at the K-th thing that a launch does to the disk or to processes; says how many there were.
LAUNCH_AND_DIE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from servers import launch
from cloudrun.config import Settings
from cloudrun.providers.local import LocalProvider
last, done = int(sys.argv[3]), 0
def audit(event, arguments):
    global done
    awaits_server = event == "open" and isinstance(arguments[0], int) and arguments[1] == "rb"
    if awaits_server or event in ("os.rename", "subprocess.Popen"):
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
provider = LocalProvider(Settings(home=Path(sys.argv[2])))
sys.addaudithook(audit)
launch(provider, "box", token="the token")
print(done)
"""


def test_it_offers_this_computer_for_nothing(local: LocalProvider) -> None:
    (offer,) = local.offers(Need())
    assert (offer.type, offer.market, offer.price_per_hour_usd) == ("local", Market.OWN, 0)
    assert offer.vcpus >= 1
    assert offer.memory_gib > 0
    assert isinstance(local, Stoppable)
    assert isinstance(local, SelfRelease)


def test_launch_is_idempotent_by_token(local: LocalProvider) -> None:
    first, second = launch(local, "box", token="t"), launch(local, "box", token="t")
    assert first == second
    with pytest.raises(ProviderError, match="exists"):
        launch(local, "box", token="another")


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, *exhaustive(1)])
def test_a_launch_that_is_killed_anywhere_goes_on_to_one_machine(every: int, tmp_path: Path) -> None:
    steps = int(launch_and_die(tmp_path / "whole", 0).stdout)
    assert steps > 10
    end_all(tmp_path / "whole")
    for step in range(1, steps + 1, every):
        home = tmp_path / str(step)
        assert launch_and_die(home, step).returncode == -signal.SIGKILL
        provider = LocalProvider(Settings(home=home))
        found = provider.list_machines()
        assert [machine.token for machine in found] in ([], ["the token"]), step
        machine = launch(provider, "box", token="the token")
        assert provider.list_machines() == [machine]
        assert len(servers_of(provider, machine)) == 1, step
        assert machine.address
        assert connect(machine.address, provider._settings, machine="box").run("echo up").text == "up", step
        end_all(home)
        assert [path.name for path in (home / "machines").iterdir()] == [".lock"], step


def test_a_boot_that_fails_says_why_and_can_be_tried_again(local: LocalProvider, settings: Settings) -> None:
    machine = launch(local, "box")
    local.stop(machine)
    key = settings.machines_dir / "box" / "host_key"
    whole = key.read_text()
    key.write_text("no key")
    with pytest.raises(BootFailed, match="box"):
        local.start(machine)
    key.write_text(whole)
    assert local.start(machine).state is MachineState.RUNNING


def test_stop_keeps_the_disk_and_start_brings_it_back(local: LocalProvider, settings: Settings) -> None:
    machine = launch(local, "box")
    assert machine.address
    connect(machine.address, settings, machine="box").run("echo kept > disk")
    for _ in range(2):
        local.stop(machine)
    stopped = local.describe(machine)
    assert (stopped.state, stopped.address) == (MachineState.STOPPED, None)
    assert stopped.ended_at is not None
    for _ in range(2):
        started = local.start(stopped)
    assert (started.state, started.ended_at) == (MachineState.RUNNING, None)
    assert started.address == machine.address
    assert connect(machine.address, settings, machine="box").run("cat disk").text == "kept"


def test_after_a_reboot_its_pid_may_belong_to_somebody_else(local: LocalProvider, settings: Settings) -> None:
    machine = launch(local, "box")
    folder = MachineFolder(settings.machines_dir.resolve() / "box")
    server = folder.live_server()
    assert server
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: local.describe(machine).state is MachineState.STOPPED)
    other = subprocess.Popen(["sleep", "1000"])
    folder.save_server(replace(server, pid=other.pid))
    assert local.describe(machine).state is MachineState.STOPPED
    assert local.start(machine).state is MachineState.RUNNING
    local.terminate(machine)
    assert other.poll() is None  # never by pid alone
    other.kill()
    other.wait()


def test_terminate_ends_every_process_and_leaves_nothing(local: LocalProvider, settings: Settings) -> None:
    machine = launch(local, "box")
    assert machine.address
    shell = connect(machine.address, settings, machine="box")
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    shell.run(f'setsid sh -c "{stubborn}" >/dev/null 2>&1 </dev/null & echo $! > stubborn')
    shell.run("mkdir locked && touch locked/file && chmod 500 locked")
    pid = int(shell.run("cat stubborn").text)
    folder = settings.machines_dir.resolve() / "box"
    assert len(processes.belonging_to(folder)) >= 3  # the server, its guard, the stubborn one
    local.terminate(machine)
    assert not processes.start_mark(pid)
    assert processes.belonging_to(folder) == []
    assert not folder.exists()
    assert not (settings.keys_dir / "box").exists()


def test_the_guard_is_armed_by_the_boot(local: LocalProvider, settings: Settings) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=2)
    (offer,) = local.offers(Need())
    spec = LaunchSpec(
        token="t",
        name="box",
        offer=offer,
        stack=Stack("none"),
        guard=Guard(issued_at=datetime.now(UTC), deadline_at=deadline, idle_minutes=5),
    )
    machine = local.launch(spec)
    assert machine.deadline_at == deadline
    armed = json.loads((settings.machines_dir / "box/home/.cloudrun/guard.json").read_text())["policy"]
    assert armed["deadline_at"] == pytest.approx(deadline.timestamp())
    assert armed["idle_s"] == 300
    assert tuple(armed["release"]) == local.release_command(machine)


def test_a_machine_ends_itself_at_its_deadline(local: LocalProvider, settings: Settings) -> None:
    """No client: only the guard that the boot left there, and the release command."""
    (offer,) = local.offers(Need())
    now = datetime.now(UTC)
    guard = Guard(issued_at=now, deadline_at=now + timedelta(seconds=1))
    spec = LaunchSpec(token="t", name="box", offer=offer, stack=Stack("none"), guard=guard)
    machine = local.launch(spec)
    until(lambda: local.describe(machine).state is MachineState.STOPPED)
    until(lambda: local.describe(machine).ended_at is not None)
    later = Guard(issued_at=now, deadline_at=now + timedelta(hours=1))
    local.set_guard(machine, later)
    until(lambda: not processes.belonging_to(settings.machines_dir.resolve() / "box"))
    assert local.start(machine).state is MachineState.RUNNING
    assert local.list_machines()[0].deadline_at == later.deadline_at


def test_what_is_gone_cannot_be_started(local: LocalProvider) -> None:
    machine = launch(local, "box")
    local.terminate(machine)
    local.stop(machine)
    assert local.release_command(machine) == ()
    with pytest.raises(NotFound):
        local.start(machine)


def test_a_name_cannot_lead_out_of_the_folder(local: LocalProvider) -> None:
    for name in ("../box", ".box", "a/b", ""):
        with pytest.raises(ProviderError):
            launch(local, name, token="t")


def test_it_launches_only_its_own_type(local: LocalProvider) -> None:
    (offer,) = local.offers(Need())
    guard = Guard(issued_at=datetime.now(UTC))
    wanted = LaunchSpec("t", "box", replace(offer, type="p2.xlarge"), Stack("none"), guard)
    with pytest.raises(NotOffered):
        local.launch(wanted)


def test_gpus_as_nvidia_smi_lists_them() -> None:
    two = "Tesla K80, 11441, 3.7\nNVIDIA A10G, 23028, 8.6\n"
    assert hardware.parse_gpus(two) == hardware.Gpu("Tesla K80", 2, 11.2, 3.7)
    assert hardware.parse_gpus("") == hardware.Gpu()
    assert hardware.parse_gpus("No devices were found\n") == hardware.Gpu()


@bounds(deadline=None)
@given(st.text())
def test_nvidia_smi_may_say_anything(text: str) -> None:
    assert hardware.parse_gpus(text).count >= 0


def launch_and_die(home: Path, step: int) -> subprocess.CompletedProcess[str]:
    helpers = str(Path(__file__).resolve().parents[1] / "remote")
    return subprocess.run(
        [sys.executable, "-c", LAUNCH_AND_DIE, helpers, str(home), str(step)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def end_all(home: Path) -> None:
    provider = LocalProvider(Settings(home=home))
    for machine in provider.list_machines():
        provider.terminate(machine)


def servers_of(provider: LocalProvider, machine: Machine) -> list[int]:
    """Processes that serve that machine, by their argument vector: there must be one."""
    folder = provider._find(machine.token)
    assert folder
    return [
        pid
        for pid in processes.belonging_to(folder.path)
        if b"--machine" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]


def until(condition: Callable[[], bool], *, within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
