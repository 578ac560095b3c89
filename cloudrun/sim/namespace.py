"""A machine out of Linux namespaces: own disk, processes, host name, network, and a real sshd.

This is the host's side of it; what happens in there is inside.py. A machine is its folder:

    disk.ext4 or disk.xfs   its disk; `disk`, a folder, where there are no loop devices to be had
    pid                     its process 1, seen from here, and when that started
    plan.json               what the next boot does (it holds the user data's keys: 0600)
    boot.log                what booting had to say; the scripts' own output is inside, as on a real machine
    root                    where the root file system is put together; empty seen from here
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cloudrun
from cloudrun.errors import BootFailed, MachineError
from cloudrun.keys import save_text
from cloudrun.server import processes
from cloudrun.sim import disk, rootfs
from cloudrun.sim.acceptor import Acceptor
from cloudrun.sim.accounts import SYSTEM_PATH
from cloudrun.sim.cloudconfig import parse
from cloudrun.sim.inside import REBOOT_CODE, Plan
from cloudrun.sim.metadata import MetadataServer
from cloudrun.sim.relay import Gate
from cloudrun.sim.spec import METADATA_ADDRESS, METADATA_URL, Answer, MachineSpec, OnOff

PROGRAMS = ("sshd", "ssh-keygen", "sudo", "ip", "pivot_root", "sfdisk", "partx", "mkfs.ext4")
BOOT_TIMEOUT_S = 60.0  # takes 0.3 s; a computer under heavy load gets this long
LATE_WAIT_S = 1.0  # boot returns at the latest so long after SSH answers, whatever scripts still run
END_WAIT_S = 2.0  # for the kernel to let go of a machine that was told to end
LOG_TAIL_BYTES = 2000
Packages = Callable[[str, str], Answer]  # a path and the machine's GPUs -> status, content
STARTER = (  # isolated and without packages: it starts in a third of the time
    sys.executable,
    *("-I", "-S", "-c"),
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from cloudrun.sim.inside import main; main()",
    str(Path(cloudrun.__file__).parents[1]),
)


def missing() -> str:
    """Why there can be no namespace machine here; "" where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it takes Linux and root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    probe = subprocess.run(["unshare", "-mnpui", "--fork", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "this system does not let root make namespaces"


def end(folder: Path) -> None:
    """End what is left of a machine whose host was killed; most often it has ended itself by now."""
    with contextlib.suppress(OSError, ValueError):
        pid, _, mark = (folder / "pid").read_text().partition(" ")
        while processes.alive(int(pid), mark):
            os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.005)


class NamespaceMachine:
    """See SimMachine. One lock keeps what is done to it in order; its watcher thread ends with it."""

    def __init__(
        self,
        folder: Path,
        spec: MachineSpec,
        *,
        port: int,
        on_off: OnOff,
        packages: Packages | None = None,
        gates: Sequence[int] = (),
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._packages = packages
        self._gates = gates  # as they are at each boot
        self._host = spec.host
        self._port = port
        self._on_off = on_off
        self._disk_gb = spec.disk_gb
        self._destroyed = False
        self._grown = False  # since its last boot
        self._life: _Life | None = None
        self._image = disk.Image(folder / f"disk.{disk.choose_file_system()}")
        self._lock = threading.RLock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "root").mkdir(exist_ok=True)

    @property
    def running(self) -> bool:
        return self._life is not None

    def boot(self) -> None:
        with self._lock:
            if self._life is not None:
                return
            life = self._life = self._start()
        try:
            life.wait_booted()  # without the lock: what boots can be switched off
        except BaseException:
            with self._lock:
                if self._life is life:
                    self.power_off()
            raise

    def power_off(self, *, grace_s: float = 0) -> None:
        with self._lock:
            if self._life is not None:
                self._life.end(grace_s)
                self._life = None

    def move(self, host: str) -> None:
        self._host = host

    def grow(self, disk_gb: int) -> None:
        with self._lock:
            self._disk_gb = max(disk_gb, self._disk_gb)
            if self._image.path.exists() and self._image.grow(disk_gb):
                self._grown = True
                if self._life and self._life.disk:
                    self._life.disk.resized()

    def snapshot(self, to: Path) -> None:
        with self._lock:
            if self._life is not None or self._destroyed:
                raise MachineError(f"{self._spec.id} runs, or is gone", hint="switch it off first")
            to.mkdir(mode=0o700, parents=True)
            if self._image.path.exists():
                self._image.copy(to / self._image.path.name)
            else:
                disk.copy_folder(self._folder / "disk", to / "disk")

    def destroy(self) -> None:
        with self._lock:
            self._destroyed = True
            self.power_off()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> _Life:
        if self._destroyed:
            raise BootFailed(f"{self._spec.id} is gone", hint="launch another one")
        attached = self._attach()
        try:
            door = self._door()
            self._save_plan(attached)
            life = _Life(self._folder, door, attached, self._spec, self._ended, self._packages)
            self._grown = False
            return life
        except BaseException:
            if attached:
                attached.close()
            raise

    def _ended(self, life: _Life, code: int) -> None:
        """It switched itself off, or crashed. From its watcher thread."""
        with self._lock:
            if self._life is not life:
                return  # we did it
            self._life = None
            life.clear()
        if code == REBOOT_CODE:
            with contextlib.suppress(BootFailed):
                self.boot()
                return
        self._on_off(self._spec.id)

    def _attach(self) -> disk.Attached | None:
        """The disk as a device; None where this computer has no loop devices to give."""
        new = not self._image.path.exists() and not (self._folder / "disk").is_dir()
        if new and self._spec.image:
            self._copy_image(self._spec.image)
            new = False
        if (self._folder / "disk").is_dir():
            return None
        try:
            if new:
                self._image.make(self._disk_gb)
            return disk.attach(self._image.path)
        except OSError as error:
            if not new:
                raise BootFailed(
                    f"the disk of {self._spec.id}: {error}", hint="see losetup --list"
                ) from error
            with (self._folder / "boot.log").open("a") as log:
                log.write(f"no disk of its own, its files lie in {self._folder / 'disk'}: {error}\n")
            (self._folder / "disk").mkdir()
            return None

    def _copy_image(self, image: Path) -> None:
        """The disk that it begins with; its file system fills it at the boot."""
        try:
            if (image / "disk").is_dir():
                disk.copy_folder(image / "disk", self._folder / "disk")
                return
            disk.Image(image / self._image.path.name).copy(self._image.path)
        except OSError as error:
            raise BootFailed(f"the image of {self._spec.id}: {error}", hint="launch from another") from error
        self._grown = self._image.grow(self._disk_gb)

    def _door(self) -> socket.socket:
        """The machine's address, not listening yet: until it does, connections are refused."""
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((self._host, self._port))
        except OSError as error:
            door.close()
            raise BootFailed(
                f"{self._host}:{self._port}: {error.strerror}", hint="set CLOUDRUN_SSH_PORT to a free port"
            ) from error
        return door

    def _save_plan(self, attached: disk.Attached | None) -> None:
        root = rootfs.Disk(str(self._folder / "disk"), "", "")
        if attached:
            root = rootfs.Disk(
                attached.partition, attached.device, self._image.file_system, self._image.options, self._grown
            )
        plan = Plan(
            id=self._spec.id,
            host=self._host,
            port=self._port,
            hostname=self._spec.hostname,
            user=self._spec.user,
            python=sys.executable,
            prefixes=rootfs.outside_image(_python_folders()),
            at=str(self._folder / "root"),
            disk=root,
            config=parse(self._spec.user_data),
            environ={
                name: value.replace(METADATA_URL, f"http://{METADATA_ADDRESS}")
                for name, value in self._spec.environ.items()
            },
            gates=tuple(self._gates),
        )
        save_text(self._folder / "plan.json", json.dumps(asdict(plan)))


class _Life:
    """One boot until its end: the processes, and what the host keeps for them."""

    def __init__(
        self,
        folder: Path,
        door: socket.socket,
        attached: disk.Attached | None,
        spec: MachineSpec,
        ended: Callable[[_Life, int], None],
        packages: Packages | None,
    ) -> None:
        """Takes the door over, and the disk once it has not raised."""
        self._log = folder / "boot.log"
        self.disk = attached
        self._spec = spec
        self._ended = ended
        self._packages = packages
        self._servers: list[Acceptor] = []
        self._pid_file = folder / "pid"
        self._pid = 0  # of its process 1, seen from here
        self._answers, self._booted, self._over = threading.Event(), threading.Event(), threading.Event()
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with door, far, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*STARTER, str(folder / "plan.json"), str(door.fileno()), str(far.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
                cwd="/",
                pass_fds=(door.fileno(), far.fileno()),
                start_new_session=True,
            )
        threading.Thread(target=self._watch, name=f"machine {spec.id}", daemon=True).start()

    def wait_booted(self) -> None:
        """Blocks until SSH answers. Raises BootFailed."""
        if not self._answers.wait(BOOT_TIMEOUT_S) or self._over.is_set():
            raise BootFailed(f"{self._spec.id} did not boot: {_tail(self._log)}", hint=f"see {self._log}")
        self._booted.wait(LATE_WAIT_S)

    def end(self, grace_s: float) -> None:
        """End all of it. Blocks for the grace period at most, and a moment."""
        with contextlib.suppress(OSError):  # it has just ended by itself
            self._line.send(f"off {grace_s}".encode())
        if not self._over.wait(grace_s + END_WAIT_S):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid or self._process.pid, signal.SIGKILL)
            self._over.wait()
        self.clear()

    def clear(self) -> None:
        """Give back what the host kept for it. Idempotent."""
        for server in self._servers:
            server.close()
        if self.disk:
            self.disk.close()

    def _watch(self) -> None:
        """Hear what process 1 has to say, until it has ended."""
        with self._line:
            while True:
                try:
                    words, fds, _, _ = socket.recv_fds(self._line, 100, 1)
                except OSError:
                    break
                if not words:
                    break
                self._hear(words.decode().split(), fds)
        code = self._process.wait()
        for event in (self._over, self._answers, self._booted):
            event.set()
        self._ended(self, code)

    def _hear(self, words: list[str], fds: list[int]) -> None:
        if words[0] == "pid":
            self._pid = int(words[1])
            save_text(self._pid_file, f"{self._pid} {processes.start_mark(self._pid)}")
        elif words[0] == "metadata":
            self._servers.append(MetadataServer(socket.socket(fileno=fds[0]), self._spec.respond))
        elif words[0] == "packages":
            self._servers.append(MetadataServer(socket.socket(fileno=fds[0]), self._give_package))
        elif words[0] == "gate":
            self._servers.append(Gate(socket.socket(fileno=fds[0]), int(words[1])))
        elif words[0] == "up":
            self._answers.set()
        elif words[0] == "done":
            self._booted.set()

    def _give_package(self, _: str, path: str, __: Mapping[str, str], ___: bytes) -> Answer:
        return self._packages(path, self._spec.gpu) if self._packages else (404, b"")


def _python_folders() -> tuple[str, ...]:
    """Where this Python and its packages lie."""
    folders = (sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1]))
    return (*folders, *(os.path.realpath(folder) for folder in folders))


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return "it was destroyed meanwhile"
