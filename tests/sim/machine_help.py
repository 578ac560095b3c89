"""A host of rehearsal machines for tests, and the client's side of each: keys, user data, a real shell."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudrun.config import Settings
from cloudrun.errors import ConnectionLost
from cloudrun.keys import make_keys
from cloudrun.models import SshAddress
from cloudrun.remote.connect import connect
from cloudrun.remote.shell import Shell
from cloudrun.sim import namespace
from cloudrun.sim.machine import MachineHost, MachineSpec, SimMachine
from cloudrun.sim.metadata import Imds
from cloudrun.sim.packages import PackageServer

PORT = 20022  # not sshd's own, which a developer's computer has in use
USER = "ubuntu"
_numbers = itertools.count(1)


def need(kind: str) -> str:
    """That kind, or a skip that says what is missing for it."""
    if kind == "namespace" and (why_not := namespace.missing()):
        pytest.skip(f"namespace machines: {why_not}")
    return kind


def free_address() -> str:
    """A loopback address that no other test of this or another process uses."""
    number = next(_numbers)
    return f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}.{number % 250 + 1}"


def wait_for(truth: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Until that is so. Fails after the seconds."""
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


@dataclass
class Client:
    """One machine with all that its owner has of it."""

    machine: SimMachine
    spec: MachineSpec
    folder: Path
    settings: Settings
    public_key: str
    switched_off: list[str] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)

    def shell(self, *, host: str = "", user: str = USER) -> Shell:
        """Strict about the host key that the user data gave it."""
        keys = self.settings.keys_dir / self.spec.id
        address = SshAddress(
            host=host or self.spec.host,
            port=PORT,
            user=user,
            key_path=keys / "id_ed25519",
            host_key=self.public_key,
        )
        return connect(address, self.settings, machine=self.spec.id)

    def run(self, command: str, *, check: bool = True) -> str:
        return self.shell().run(command, check=check, timeout_s=60).text

    def switch(self, command: str) -> None:
        """Run what cuts the very connection that it is given over."""
        with contextlib.suppress(ConnectionLost):
            self.run(command, check=False)

    def shown_host_key(self) -> str:
        """The key that it shows to strangers, in base64."""
        command = ["ssh-keyscan", "-t", "ed25519", "-p", str(PORT), self.spec.host]
        scanned = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return next(line.split()[2] for line in scanned.splitlines() if not line.startswith("#"))

    def log(self) -> str:
        return (self.folder / "boot.log").read_text()


class Rehearsal:
    """A MachineHost in a folder of a test's own."""

    def __init__(self, folder: Path, kind: str, *, packages: PackageServer | None = None) -> None:
        self.kind = kind
        self.folder = folder
        self.settings = Settings(home=folder / "home", ssh_port=PORT)
        self.host = MachineHost(folder / "machines", ssh_port=PORT, kind=kind, packages=packages)

    def create(
        self,
        config: Mapping[str, object] | None = None,
        *,
        disk_gb: int = 4,
        metadata: Mapping[str, str] | None = None,
        user_data: bytes | None = None,
        name: str = "",
        gpu: str = "",
    ) -> Client:
        """A machine that is off, with its keys in the user data. `user_data` instead is taken as it is."""
        name = name or f"i-{next(_numbers):04}"
        keys = make_keys(self.settings.keys_dir / name, comment=name)
        whole = {
            "ssh_keys": {"ed25519_private": keys.host_private, "ed25519_public": keys.host_public},
            "ssh_authorized_keys": [keys.login_public],
            **(config or {}),
        }
        spec = MachineSpec(
            id=name,
            host=free_address(),
            hostname=f"ip-{name}",
            user=USER,
            user_data=user_data or b"#cloud-config\n" + json.dumps(whole).encode(),
            disk_gb=disk_gb,
            respond=Imds(dict(metadata or {}).get).respond,
            gpu=gpu,
        )
        told, switched_off = threading.Event(), list[str]()

        def on_off(which: str) -> None:
            switched_off.append(which)
            told.set()

        machine = self.host.create(spec, on_off=on_off)
        folder = self.folder / "machines" / name
        return Client(machine, spec, folder, self.settings, keys.host_public, switched_off, told)

    def boot(self, config: Mapping[str, object] | None = None, **options: object) -> Client:
        client = self.create(config, **options)  # type: ignore[arg-type]
        client.machine.boot()
        return client
