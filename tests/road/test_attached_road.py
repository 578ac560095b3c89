"""The whole road over a host of somebody else's: OpenSSH's own sshd, both shells, and a line that is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faults import CuttableLine, wait_for_log
from servers import OpenSshServer

from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.events import Event, LogData
from cloudrun.models import MachineState, RunState

WRITES = """
    import os, pathlib
    out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
    (out / "a b").mkdir()
    (out / "a b" / "data.bin").write_bytes(bytes(range(256)) * 4000)
    print("hello")
"""
SAVES = """
    import os, pathlib, signal, sys, time
    kept = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"], "checkpoint")
    def save(*_):
        kept.mkdir()
        (kept / "state").write_text("saved")
        sys.exit(75)
    resume = os.environ.get("CLOUDRUN_RESUME_FROM")
    if resume:
        sys.exit(print("from", pathlib.Path(resume, "state").read_text()))
    signal.signal(signal.SIGTERM, save)
    print("ready")
    while True:
        time.sleep(0.1)
"""
# Talks until it is told that it was cut often enough.
TALKS = """
    import base64, os, pathlib, sys, time
    while not pathlib.Path(sys.argv[1]).exists():
        print(base64.b85encode(os.urandom(500)).decode())
        time.sleep(0.01)
    print("end")
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OpenSshServer]:
    (tmp_path / "host").mkdir()
    server = OpenSshServer(tmp_path / "host")
    yield server
    server.end()


@pytest.fixture
def line(host: OpenSshServer) -> Iterator[CuttableLine]:
    line = CuttableLine(host.address.host, host.address.port)
    yield line
    line.close()


def attach(settings: Settings, host: OpenSshServer, *, at: tuple[str, int], shell: str) -> Client:
    client = Client(replace(settings, shell=shell))
    target = f"{host.address.user}@{at[0]}:{at[1]}"
    key = str(host.address.key_path)
    machine = client.attach_machine("lab", target, host_key=client.scan_host_key(target), key_path=key)
    assert (machine.provider, machine.state) == ("attached", MachineState.RUNNING)
    return client


@pytest.mark.parametrize("shell", ["openssh", "paramiko"])
def test_every_verb_over_a_strangers_sshd(
    shell: str, settings: Settings, host: OpenSshServer, make_job
) -> None:
    client = attach(settings, host, at=(host.address.host, host.address.port), shell=shell)

    run = client.submit(client.plan(make_job(WRITES), on="lab"))
    assert (run.state, run.machine, run.cost_usd) == (RunState.SUCCEEDED, "lab", 0)
    assert b"".join(client.logs(run.id)) == b"hello\n"
    assert [(file.path, file.size) for file in client.outputs(run.id)] == [("a b/data.bin", 1_024_000)]

    stopped = client.submit(client.plan(make_job(SAVES, name="saves", resume=True), on="lab"), detach=True)
    wait_for_log(client, stopped.id, b"ready")
    assert client.cancel(stopped.id).state is RunState.CANCELLED
    assert client.run(stopped.id).exit_code == 75
    assert client.restart(stopped.id).state is RunState.SUCCEEDED
    assert client.files(stopped.id).log(2).read_bytes() == b"from saved\n"

    client.terminate("lab")
    assert client.machines() == []
    assert (host.folder / "home" / ".cloudrun" / "runs").is_dir()  # the host itself was not touched


@pytest.mark.parametrize(("shell", "cuts"), [("openssh", 50), ("paramiko", 10)])
def test_a_line_cut_again_and_again_loses_and_repeats_nothing(
    shell: str,
    cuts: int,
    settings: Settings,
    host: OpenSshServer,
    line: CuttableLine,
    make_job,
    tmp_path: Path,
) -> None:
    client = attach(settings, host, at=(line.host, line.port), shell=shell)
    enough, shown = tmp_path / "enough", []

    def cut(event: Event) -> None:
        if not isinstance(event, LogData):
            return
        shown.append(event.data)
        if len(shown) <= cuts:
            line.cut()
        else:
            enough.touch()

    run = client.submit(client.plan(make_job(TALKS), on="lab", args=(str(enough),)), on_event=cut)
    assert run.state is RunState.SUCCEEDED
    there = (host.folder / "home" / ".cloudrun" / "runs" / f"{run.id}.1" / "log").read_bytes()
    assert len(shown) > cuts
    assert there.endswith(b"end\n")
    assert client.files(run.id).log(1).read_bytes() == there
    assert b"".join(shown) == there
