"""The process that is the rehearsal cloud: `python -m cloudrun.sim FOLDER PORT`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from cloudrun.errors import BootFailed, MachineError, UsageError
from cloudrun.locks import holding
from cloudrun.sim.record import FILE, SimRecord, find_sim, lock_path

SSH_PORT = 22
OTHER_SSH_PORTS = range(2222, 2322)
UP_TIMEOUT_S = 60.0  # importing moto takes 2 to 10 s on a busy computer
DOWN_TIMEOUT_S = 30.0
LOG = "cloud.log"
LOG_SHOWN = 10


def up(folder: Path, *, kind: str = "") -> SimRecord:
    """Begin a rehearsal cloud in that folder (blocking, seconds). Idempotent: one that is up is returned.

    kind: of its machines; "" = the best that works here. Raises BootFailed, UsageError.
    """
    found = find_sim(folder)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / FILE).unlink(missing_ok=True)
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloudrun.sim", str(folder), str(free_ssh_port()), kind],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    give_up_at = time.monotonic() + UP_TIMEOUT_S
    while time.monotonic() < give_up_at:
        found = find_sim(folder)
        if found is not None:
            process.returncode = 0  # it outlives us: nobody waits for it, and nobody warns
            return found
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    lines = (folder / LOG).read_text(errors="replace").splitlines()[-LOG_SHOWN:]
    raise BootFailed("the rehearsal cloud did not come up: " + " | ".join(lines), hint=f"see {folder / LOG}")


def down(folder: Path) -> None:
    """End it with all its machines (blocking). What a killed one left behind is removed too. Idempotent.

    Its ledger and outputs, in `folder/home`, stay. Raises MachineError where it does not end.
    """
    found = find_sim(folder)
    if found is not None:
        os.kill(found.pid, signal.SIGTERM)
        _await_end(folder, found.pid)
    if (folder / "machines").is_dir():
        from cloudrun.sim.machine import MachineHost

        MachineHost(folder / "machines", ssh_port=SSH_PORT).close()
        shutil.rmtree(folder / "machines", ignore_errors=True)
    (folder / FILE).unlink(missing_ok=True)


def serve(folder: Path, ssh_port: int, kind: str) -> None:
    """Be the rehearsal cloud until SIGTERM. Raises UsageError where another is one for that folder."""
    from cloudrun.sim.aws import AwsDouble
    from cloudrun.sim.azure import AzureDouble
    from cloudrun.sim.machine import MachineHost
    from cloudrun.sim.packages import PackageServer, missing

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with holding(lock_path(folder)) as ours:
        if not ours:
            raise UsageError("a rehearsal cloud is up there already", hint="cloudrun sim status")
        packages = None if missing() else PackageServer.of_stacks()
        host = MachineHost(folder / "machines", ssh_port=ssh_port, kind=kind, packages=packages)
        try:
            with AwsDouble(host) as aws, AzureDouble(host, folder=folder / "azure") as azure:
                for url in (aws.url, azure.url):
                    host.let_reach(url)
                repositories = packages.environment() if packages and host.kind == "namespace" else {}
                record = SimRecord(folder, os.getpid(), aws.url, ssh_port, host.kind, azure.environment())
                replace(record, packages=repositories).save()
                over.wait()
                (folder / FILE).unlink(missing_ok=True)
        finally:
            host.close()


def free_ssh_port() -> int:
    """The port for the SSH servers of all machines: 22 where we may have it on loopback addresses."""
    for port in [SSH_PORT, *OTHER_SSH_PORTS]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.254.254.254", port))
            except OSError:
                continue
            return int(port)
    raise UsageError("no port is free for the rehearsal machines", hint="end what listens on 2222 to 2321")


def _await_end(folder: Path, pid: int) -> None:
    give_up_at = time.monotonic() + DOWN_TIMEOUT_S
    while time.monotonic() < give_up_at:
        with holding(lock_path(folder)) as free:
            if free:
                return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    with holding(lock_path(folder)) as free:
        if not free:
            raise MachineError("the rehearsal cloud does not end", hint=f"kill -9 {pid}")
