"""A machine for those who are not root: the SSH server behind `local`, on a loopback address of its own.

It has its own home, keys, environment and metadata service (AWS_EC2_METADATA_SERVICE_ENDPOINT), and runs
its user data as homeboot.py says. It shares users, processes, network and disk with this computer: growing
its disk changes nothing, `sudo` runs what it is given as the same user, and a new host key cannot be put in.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import cloudrun
from cloudrun.errors import BootFailed, MachineError
from cloudrun.keys import make_keys, save_text
from cloudrun.server import processes
from cloudrun.server.boot import start_server
from cloudrun.server.environment import machine_environment
from cloudrun.server.folder import MachineFolder, MachineRecord, ServerRecord
from cloudrun.sim import disk, programs
from cloudrun.sim.cloudconfig import parse
from cloudrun.sim.homeboot import HomePlan
from cloudrun.sim.metadata import MetadataServer
from cloudrun.sim.spec import METADATA_URL, MachineSpec, OnOff

BOOT_TIMEOUT_S = 60.0
LATE_WAIT_S = 1.0  # boot returns at the latest so long after SSH answers, whatever scripts still run
INSIDE_GRACE_S = 3.0  # between SIGTERM and SIGKILL at a shutdown from inside
STARTER = (
    sys.executable,
    *("-I", "-S", "-c"),
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from cloudrun.sim.homeboot import main; main()",
    str(Path(cloudrun.__file__).parents[1]),
)


class EmbeddedMachine:
    """See SimMachine."""

    def __init__(self, folder: Path, spec: MachineSpec, *, port: int, on_off: OnOff) -> None:
        self._folder = MachineFolder(folder)
        self._spec = spec
        self._host = spec.host
        self._port = port
        self._on_off = on_off
        self._config = parse(spec.user_data)
        self._power: _PowerSwitch | None = None
        self._metadata: MetadataServer | None = None
        self._destroyed = False
        self._lock = threading.RLock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def running(self) -> bool:
        return self._power is not None and self._folder.live_server() is not None

    def boot(self) -> None:
        with self._lock:
            if self._destroyed:
                raise BootFailed(f"{self._spec.id} is gone", hint="launch another one")
            if self.running:
                return
            self.power_off()  # what is left of one whose server died
            try:
                self._boot()
            except BaseException:
                self.power_off()
                raise

    def power_off(self, *, grace_s: float = 0) -> None:
        with self._lock:
            processes.end_all(self._folder.path, grace_s=grace_s)
            if self._power:
                self._power.close()
            if self._metadata:
                self._metadata.close()
            self._power = self._metadata = None

    def move(self, host: str) -> None:
        self._host = host

    def grow(self, disk_gb: int) -> None:
        """It has no disk of its own."""

    def snapshot(self, to: Path) -> None:
        """Its home: it has no disk of its own. What names the home by its path, as the programs of a virtual
        environment do, still means this one's."""
        with self._lock:
            if self.running or not self._folder.home.exists():
                raise MachineError(f"{self._spec.id} runs, or is gone", hint="switch it off first")
            to.mkdir(mode=0o700, parents=True)
            disk.copy_folder(self._folder.home, to / "home")

    def destroy(self) -> None:
        with self._lock:
            self._destroyed = True
            self.power_off()
            shutil.rmtree(self._folder.path, ignore_errors=True)

    def _boot(self) -> None:
        folder, first = self._folder, not self._folder.home.exists()
        if first:
            self._make_home()
            self._install_keys()
        folder.save_machine(_record(self._spec, self._host))
        folder.save_server(ServerRecord(0, "", self._host, self._port))  # the port that it shall take
        switch = folder.path / "power"
        programs.install_embedded(folder.path / "bin", switch)
        self._power = _PowerSwitch(switch, self._switched)
        listener = socket.create_server((self._host, 0))
        self._metadata = MetadataServer(listener, self._spec.respond)
        environment = self._environment(listener.getsockname()[1])
        self._run("early", environment).wait(BOOT_TIMEOUT_S)
        start_server(folder, environment)
        server = folder.live_server()
        if server is None or (server.host, server.port) != (self._host, self._port):
            raise BootFailed(
                f"{self._host}:{self._port} cannot be had", hint="set CLOUDRUN_SSH_PORT to a free port"
            )
        late = self._run("late", environment)
        with contextlib.suppress(subprocess.TimeoutExpired):
            late.wait(LATE_WAIT_S)
        late.returncode = late.returncode or 0  # a script of its own pace: the machine's end is its end

    def _make_home(self) -> None:
        if self._spec.image is None:
            self._folder.home.mkdir()
            return
        try:
            disk.copy_folder(self._spec.image / "home", self._folder.home)
        except OSError as error:
            raise BootFailed(f"the image of {self._spec.id}: {error}", hint="launch from another") from error

    def _install_keys(self) -> None:
        """The server's own pair, that of the user data or a fresh one, and the keys that open it."""
        given = self._config.host_keys
        if "ed25519_private" in given:
            save_text(self._folder.host_key, given["ed25519_private"])
            save_text(self._folder.host_key.with_suffix(".pub"), given.get("ed25519_public", ""))
        else:
            make_keys(self._folder.path, comment=self._spec.hostname)
        opening = self._config.authorized_keys or (self._nobodys_key(),)
        save_text(self._folder.authorized_keys, "".join(f"{line}\n" for line in opening))

    def _nobodys_key(self) -> str:
        """The server wants one key at least: one of which no other half is left."""
        with tempfile.TemporaryDirectory(dir=self._folder.path) as folder:
            return make_keys(Path(folder), comment="nobody").login_public

    def _environment(self, metadata_port: int) -> dict[str, str]:
        base = machine_environment(
            self._folder, data_dir=str(self._folder.home / ".cloudrun/data"), caller=os.environ
        )
        metadata = f"http://{self._host}:{metadata_port}"
        del base["CLOUDRUN_DATA_DIR"]  # as on a rented machine, which knows no such setting
        return base | {
            "PATH": f"{self._folder.path / 'bin'}:{base['PATH']}",
            "USER": self._spec.user,
            "LOGNAME": self._spec.user,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata,
            **{name: value.replace(METADATA_URL, metadata) for name, value in self._spec.environ.items()},
        }

    def _run(self, stage: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """One half of the boot, as a process of the machine."""
        folder = self._folder
        plan = HomePlan(self._spec.id, self._spec.user, str(folder.home), self._config)
        save_text(folder.path / "plan.json", json.dumps(asdict(plan)))
        with (folder.path / "boot.log").open("ab") as log:
            return subprocess.Popen(
                [*STARTER, str(folder.path / "plan.json"), stage],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder.home,
                start_new_session=True,
            )

    def _switched(self, switch: _PowerSwitch, word: str) -> None:
        """Someone inside ran `shutdown`. From the switch's thread."""
        with self._lock:
            if self._power is not switch:
                return
            self._power = None
            self.power_off(grace_s=INSIDE_GRACE_S)
            if word == "reboot":
                with contextlib.suppress(BootFailed):
                    self.boot()
                    return
        self._on_off(self._spec.id)


class _PowerSwitch:
    """A named pipe: who writes "off" or "reboot" into it from inside, is heard here. Deaf after one word."""

    def __init__(self, path: Path, heard: Callable[[_PowerSwitch, str], None]) -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        self._heard = heard
        self._lock = threading.Lock()
        self._pipe = open(path, "r+b", buffering=0)  # noqa: PTH123, SIM115  # both ways: never at its end
        threading.Thread(target=self._listen, name=f"power {path.parent.name}", daemon=True).start()

    def close(self) -> None:
        with self._lock:
            if not self._pipe.closed:
                self._pipe.write(b"closed\n")

    def _listen(self) -> None:
        known = (b"off", b"reboot", b"closed")
        word = next(word for word in map(bytes.strip, self._pipe) if word in known)
        with self._lock:
            self._pipe.close()
        if word != b"closed":
            self._heard(self, word.decode())


def end(folder: Path) -> None:
    """End what is left of a machine whose host was killed."""
    processes.end_all(folder, grace_s=0)


def _record(spec: MachineSpec, host: str) -> MachineRecord:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return MachineRecord(
        token=spec.id, name=spec.hostname, type="sim", stack="", host=host, run_owned=False, launched_at=now
    )
