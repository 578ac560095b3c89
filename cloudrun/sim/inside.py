"""The first process of a namespace machine: its kernel's init, its boot, its door.

Started as root with a plan (a JSON file) and two sockets: the door, a bound TCP socket of this computer
where the machine's SSH server shall answer, and a line to the host that made it. It makes the namespaces and
forks; the child, process 1 in there, mounts the disk, brings up the network, boots, and serves until told
to end. When the line breaks (the host was killed) the machine ends at once, and with it every process,
mount, loop device and network of it: they all hang on process 1. Standard library only.

To the host it says: pid N; metadata and packages, with that service's socket; gate PORT, with the socket that
leads to that port of this computer; up; done, when late scripts have ended.
From the host it hears: off SECONDS. From inside: SIGRTMIN+4 (off) and +5 (reboot), as systemd would.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudrun.sim import accounts, cloudinit, programs, rootfs
from cloudrun.sim.cloudconfig import CloudConfig
from cloudrun.sim.relay import LOOPBACK, relay
from cloudrun.sim.spec import METADATA_ADDRESS, PACKAGES_ADDRESS

REBOOT_CODE = 10  # the exit code that asks the host to boot it again
FAILED_CODE = 1
INSIDE_GRACE_S = 5.0  # between SIGTERM and SIGKILL at a shutdown from inside
SSHD_PATIENCE_S = 30.0
BACKLOG = 128  # sshd's own
CLONE_FLAGS = 0x20000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000  # <sched.h>: NEWNS UTS IPC PID NET
CLONE_NEWTIME = 0x80
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24  # <sys/prctl.h>
# Rights over the one kernel that all share, <linux/capability.h>: modules, raw I/O, clock, device nodes.
DROPPED_CAPABILITIES = (16, 17, 25, 27)
ENVIRONMENT = {"PATH": accounts.SYSTEM_PATH, "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that process 1 needs to know."""

    id: str
    host: str
    port: int
    hostname: str
    user: str
    python: str  # what `python3` shall be
    prefixes: tuple[str, ...]  # folders of that Python outside of the image
    at: str  # where the root file system is put together
    disk: rootfs.Disk
    config: CloudConfig
    environ: dict[str, str] = field(default_factory=dict)  # beside what every process has
    gates: tuple[int, ...] = ()  # ports of this computer's loopback that it reaches as its own

    @classmethod
    def load(cls, path: Path) -> Plan:
        stored: dict[str, Any] = json.loads(path.read_text())
        stored["disk"] = rootfs.Disk(**stored["disk"])
        stored["config"] = CloudConfig.from_dict(stored["config"])
        return cls(**{**stored, "prefixes": tuple(stored["prefixes"]), "gates": tuple(stored["gates"])})


def main() -> None:
    """`inside.py PLAN DOOR LINE`, the two as numbers of inherited file descriptors."""
    plan = Plan.load(Path(sys.argv[1]))
    door, line = (socket.socket(fileno=int(number)) for number in sys.argv[2:4])
    for inherited in (door, line):
        inherited.set_inheritable(False)
    door.setblocking(False)
    _call("unshare", CLONE_FLAGS)
    _start_clocks()
    child = os.fork()
    if child:
        line.send(f"pid {child}".encode())
        door.close()
        line.close()
        sys.exit(_wait(child))
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    os._exit(_guarded(Init(plan, door, line).run))


def say(text: str) -> None:
    """To the boot log."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)  # noqa: T201  # that is the log


def _start_clocks() -> None:
    """Uptime and monotonic clock of what forks from here start near zero, where the kernel can do that."""
    with contextlib.suppress(OSError):
        _call("unshare", CLONE_NEWTIME)
        up = int(time.clock_gettime(time.CLOCK_MONOTONIC))
        boot = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        Path("/proc/self/timens_offsets").write_text(f"monotonic -{up} 0\nboottime -{boot} 0\n")


class Init:
    """Process 1."""

    def __init__(self, plan: Plan, door: socket.socket, line: socket.socket) -> None:
        self._plan = plan
        self._door = door
        self._line = line
        self._asked: int | None = None  # the signal that asked for the end
        self._early = self._late = 0
        self._events = selectors.DefaultSelector()

    def run(self) -> int:
        """Boot, then serve until the end. Returns the exit code."""
        if os.getpid() != 1:  # what follows mounts, renames and kills everything in reach
            raise RuntimeError("not in a namespace of its own")
        fresh = self._prepare()
        self._early = self._fork(lambda: boot_early(self._plan, fresh=fresh))
        self._events.register(self._line, selectors.EVENT_READ, self._obey)
        self._events.register(self._wake, selectors.EVENT_READ, self._reap)
        while True:
            for key, _ in self._events.select():
                code: int | None = key.data()
                if code is not None:
                    return code

    def _prepare(self) -> bool:
        os.umask(0o022)
        os.setsid()
        fresh = rootfs.enter(self._plan.disk, Path(self._plan.at), self._plan.prefixes)
        socket.sethostname(self._plan.hostname)
        subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, env=ENVIRONMENT, check=True)
        services = [("metadata", METADATA_ADDRESS, 80), ("packages", PACKAGES_ADDRESS, 80)]
        for name, address, port in services + [(f"gate {port}", LOOPBACK, port) for port in self._plan.gates]:
            service = socket.create_server((address, port))
            socket.send_fds(self._line, [name.encode()], [service.fileno()])
            service.close()
        self._wake, waker = socket.socketpair()
        for end in (self._wake, waker):
            end.setblocking(False)
        self._waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (programs.POWER_OFF, programs.REBOOT):
            signal.signal(number, self._note)
        for capability in DROPPED_CAPABILITIES:
            _call("prctl", PR_CAPBSET_DROP, capability)
        return fresh

    def _note(self, number: int, _: object) -> None:
        self._asked = number

    def _obey(self) -> int | None:
        words = self._line.recv(100).split()
        if words:  # else the host is gone
            end_processes(float(words[1]))
        return 0

    def _reap(self) -> int | None:
        self._wake.recv(4096)
        if self._asked is not None:
            self._door.close()
            end_processes(INSIDE_GRACE_S)
            return REBOOT_CODE if self._asked == programs.REBOOT else 0
        while (ended := _reap_one()) is not None:
            child, code = ended
            if child == self._early:
                if code:
                    return FAILED_CODE
                self._door.listen(BACKLOG)
                self._events.register(self._door, selectors.EVENT_READ, self._answer)
                self._line.send(b"up")
                self._late = self._fork(lambda: boot_late(self._plan))
            elif child == self._late:
                self._line.send(b"done")
        return None

    def _answer(self) -> int | None:
        """sshd is in the machine's network, the door in this computer's: a process joins the two."""
        try:
            connection, peer = self._door.accept()
        except OSError:  # who knocked is gone again
            return None
        with connection:
            self._fork(lambda: relay(connection, peer[0], (self._plan.host, self._plan.port)))
        return None

    def _fork(self, work: Callable[[], None]) -> int:
        child = os.fork()
        if child:
            return child
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, programs.POWER_OFF, programs.REBOOT):
            signal.signal(number, signal.SIG_DFL)
        for own in (self._door, self._line, self._wake, self._waker):
            own.close()
        os._exit(_guarded(work))


NETWORK = f"""\
link set lo up
address add {METADATA_ADDRESS}/32 dev lo
address add {PACKAGES_ADDRESS}/32 dev lo
"""


# In place of this computer's, out of reach from in here; as from the image's maker, hence trusted.
SYSTEM_SOURCES = f"deb [trusted=yes] http://{PACKAGES_ADDRESS}/ubuntu /\n"


def boot_early(plan: Plan, *, fresh: bool) -> None:
    """All that comes before SSH answers."""
    if fresh:
        programs.install(plan.python)
        if Path("/etc/apt").is_dir():
            Path("/etc/apt/sources.list").write_text(SYSTEM_SOURCES)
    if not Path(cloudinit.CLOUD, "instances", plan.id).exists():  # also where the disk was another machine's
        _name_it(plan.hostname)
    place = cloudinit.Place(plan.id, ENVIRONMENT | plan.environ, say)
    cloudinit.run_early(plan.config, place)
    if plan.disk.grown:
        _fill_disk(plan.disk)
    cloudinit.once("users_groups", place, lambda: accounts.make_user(plan.user, plan.environ))
    cloudinit.once("ssh", place, lambda: accounts.install_keys(plan.config, plan.user, plan.environ))
    subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-p", str(plan.port), "-E", "/var/log/auth.log"],
        env=ENVIRONMENT,
        start_new_session=True,
    ).returncode = 0  # process 1 inherits it
    deadline = time.monotonic() + SSHD_PATIENCE_S
    while not Path("/run/sshd.pid").exists():  # written once it listens
        if time.monotonic() > deadline:
            raise TimeoutError("sshd does not start: " + Path("/var/log/auth.log").read_text()[-1000:])
        time.sleep(0.002)


def boot_late(plan: Plan) -> None:
    cloudinit.run_late(plan.config, cloudinit.Place(plan.id, ENVIRONMENT | plan.environ, say))


def end_processes(grace_s: float) -> None:
    """SIGTERM to everything else in here, and return when it is gone or the time is over."""
    deadline = time.monotonic() + grace_s
    number: int = signal.SIGTERM
    while time.monotonic() < deadline:
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return
        if number:
            os.kill(-1, signal.SIGCONT)
        number = 0  # from now on: is anyone there?
        while _reap_one() is not None:
            pass
        time.sleep(0.01)


def _fill_disk(disk: rootfs.Disk) -> None:
    """What cloud-init's modules growpart and resizefs do at every boot."""
    grow = ["xfs_growfs", "/"] if disk.file_system == "xfs" else ["resize2fs", disk.source]
    for argv in (["growpart", disk.device, "1"], grow):
        answer = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        say(f"{argv[0]}: {(answer.stdout + answer.stderr).strip()}")


def _name_it(hostname: str) -> None:
    Path("/etc/hostname").write_text(f"{hostname}\n")
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost\n")
    Path("/etc/machine-id").write_text(f"{os.urandom(16).hex()}\n")


def _reap_one() -> tuple[int, int] | None:
    """A child that has ended and its exit code; None when there is none right now."""
    try:
        child, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (child, os.waitstatus_to_exitcode(status)) if child else None


def _wait(child: int) -> int:
    """Its exit code; one that was killed has failed."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return FAILED_CODE if code < 0 else code


def _guarded(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    except BaseException:  # a fork never returns into its parent's code
        traceback.print_exc()
        return FAILED_CODE


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*map(ctypes.c_ulong, arguments)):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


_libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()
