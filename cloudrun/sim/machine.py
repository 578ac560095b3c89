"""The maker of a rehearsal's machines, in one of two kinds.

`namespace` (root on Linux): namespaces on a disk of their own, with OpenSSH's sshd; see namespace.py.
`embedded` (anyone): the SSH server behind `local` on a loopback address; see embedded.py.

A machine protects from accidents, not from the code that it runs: root in a namespace machine is root of
this computer with fewer rights, and an embedded one is the user who started it.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from cloudrun.errors import MachineError, UsageError
from cloudrun.sim import disk, embedded, namespace
from cloudrun.sim.packages import PackageServer
from cloudrun.sim.spec import MachineSpec, OnOff, Respond, SimMachine

__all__ = ["MachineHost", "MachineSpec", "OnOff", "Respond", "SimMachine"]

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # it names a folder and stands in mount options


CLOSING_THREADS = 8
KINDS = ("namespace", "embedded")


class MachineHost:
    """Makes machines, each in a folder of its own below `folder`, which is this host's alone.

    What an earlier host of that folder left when it was killed is removed first. kind "" is the best that
    works here. packages: what namespace machines install from.
    Raises UsageError where that folder has a host already, or that kind cannot be had here."""

    def __init__(
        self, folder: Path, *, ssh_port: int, kind: str = "", packages: PackageServer | None = None
    ) -> None:
        self.packages = packages
        self._folder = folder.resolve()
        self._port = ssh_port
        self.kind = _choose(kind)
        self._machines: dict[str, SimMachine] = {}
        self._gates: list[int] = []
        self._lock = threading.Lock()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim = (self._folder / ".lock").open("w")
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._claim.close()
            raise UsageError(
                f"the machines in {self._folder} have a host already",
                hint="end that one, or use another folder",
            ) from error
        self._sweep()

    def let_reach(self, url: str) -> None:
        """Machines that boot from now on reach that service of this computer, as one of the internet's."""
        self._gates.append(urlsplit(url).port or 443)

    def create(self, spec: MachineSpec, *, on_off: OnOff) -> SimMachine:
        """A machine that is off. Raises MachineError where one of that id exists."""
        if not ID.fullmatch(spec.id):
            raise MachineError(f"{spec.id!r} cannot name a machine", hint="use letters, digits, . _ -")
        with self._lock:
            if spec.id in self._machines:
                raise MachineError(f"{spec.id} exists already", hint="destroy it first")
            machine = self._make(spec, on_off)
            self._machines[spec.id] = machine
        return machine

    def _make(self, spec: MachineSpec, on_off: OnOff) -> SimMachine:
        folder = self._folder / spec.id
        if self.kind == "embedded":
            return embedded.EmbeddedMachine(folder, spec, port=self._port, on_off=on_off)
        serve = self.packages.respond if self.packages else None
        return namespace.NamespaceMachine(
            folder, spec, port=self._port, on_off=on_off, packages=serve, gates=self._gates
        )

    def capture(self, machine_id: str, image_id: str) -> Path:
        """Keep the disk of a machine that is off, for MachineSpec.image, whatever becomes of the machine.
        Blocks while the disk is copied. Raises MachineError while it runs, or where there is none."""
        with self._lock:
            machine = self._machines.get(machine_id)
        if machine is None:
            raise MachineError(f"there is no {machine_id}", hint="name a machine that was created here")
        draft = self._image(f"{image_id}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            machine.snapshot(draft)
            return draft.rename(self._image(image_id))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def discard(self, image_id: str) -> None:
        """Remove what was kept under that name. Idempotent; machines that began with it stay."""
        shutil.rmtree(self._image(image_id), ignore_errors=True)

    def _image(self, image_id: str) -> Path:
        return self._folder / f".image-{image_id}"  # no machine's id begins so

    def close(self) -> None:
        """End every machine and remove all that was made. Idempotent."""
        with self._lock:
            machines, self._machines = self._machines, {}
        with ThreadPoolExecutor(CLOSING_THREADS) as threads:
            list(threads.map(lambda machine: machine.destroy(), machines.values()))
        if not self._claim.closed:
            for image in self._folder.glob(".image-*"):
                shutil.rmtree(image, ignore_errors=True)
            (self._folder / ".lock").unlink(missing_ok=True)
            self._claim.close()

    def _sweep(self) -> None:
        """A namespace machine ends with its host; its folder stays, and an embedded one as a whole."""
        for folder in filter(Path.is_dir, self._folder.iterdir()):
            namespace.end(folder)
            embedded.end(folder)
            disk.detach_all(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _choose(kind: str) -> str:
    if kind not in ("", *KINDS):
        raise UsageError(f"no machines of the kind {kind!r}", hint=f"use one of: {', '.join(KINDS)}")
    why_not = namespace.missing()
    if kind == "namespace" and why_not:
        raise UsageError(
            f"no namespace machines here: {why_not}", hint="use embedded ones, or a Linux with root"
        )
    return kind or ("embedded" if why_not else "namespace")
