"""This computer as a provider: a machine is a folder and an SSH server of our own on loopback.

It needs no account, no root and no installed sshd, and nobody bills it. A machine outlives the
command that launched it; after a reboot of the computer it is STOPPED and `start` brings it back.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from cloudrun.config import Settings
from cloudrun.errors import NotFound, NotOffered, ProviderError
from cloudrun.guard import policy
from cloudrun.keys import make_key, save_text
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market, Offer, SshAddress, Stack
from cloudrun.providers import hardware
from cloudrun.providers.base import Need
from cloudrun.server.boot import arm_guard, pick_host, start_server
from cloudrun.server.environment import machine_environment
from cloudrun.server.folder import MachineFolder, MachineRecord, ServerRecord
from cloudrun.server.release import switch_off

REGION = "here"
TYPE = "local"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it names a folder


class LocalProvider:
    """Six verbs, Stoppable and SelfRelease. launch and start return with the server listening (< 1 s)."""

    name = "local"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def offers(self, need: Need) -> list[Offer]:
        """This computer as it is, once, at no price. Empty when the need asks for another kind."""
        if need.type not in ("", TYPE) or need.market not in (None, Market.OWN):
            return []
        gpu = hardware.gpu()
        return [
            Offer(
                provider=self.name,
                region=REGION,
                type=TYPE,
                market=Market.OWN,
                price_per_hour_usd=Decimal(0),
                price_as_of=datetime.now(UTC).date(),
                gpu=gpu.name,
                gpu_count=gpu.count,
                gpu_memory_gib=gpu.memory_gib,
                gpu_capability=gpu.capability,
                vcpus=hardware.cpu_count(),
                memory_gib=hardware.memory_gib(),
            )
        ]

    def find_image(self, stack: Stack, region: str) -> str:  # noqa: ARG002  # there is nothing to choose
        return ""

    def launch(self, spec: LaunchSpec) -> Machine:
        """Make the folder, then boot it. Killed between any two steps and called again with the
        same token, it goes on with that one machine. Raises NotOffered, BootFailed."""
        if (spec.offer.provider, spec.offer.type) != (self.name, TYPE):
            raise NotOffered(f"local does not offer {spec.offer.type}", hint="use the type `local`")
        if not NAME.fullmatch(spec.name):
            raise ProviderError(f"{spec.name!r} cannot name a machine", hint="use letters, digits, . _ -")
        with self._lock():
            folder = self._find(spec.token) or self._make(spec)
            if not folder.policy.exists():
                self._save_policy(folder, spec.guard)
            self._boot(folder)
        return self._machine(folder)

    def describe(self, machine: Machine) -> Machine:
        folder = self._find(machine.token)
        if folder is None:
            return replace(machine, state=MachineState.TERMINATED)
        return self._machine(folder, known=machine)

    def terminate(self, machine: Machine) -> None:
        """End every process of it, then remove its folder and its user key."""
        with self._lock():
            folder = self._find(machine.token)
            if folder is None:
                return
            switch_off(folder)
            grave = folder.path.with_name(f".{folder.path.name}.{secrets.token_hex(4)}")
            shutil.rmtree(self._key_folder(folder.path.name), ignore_errors=True)
            folder.path.rename(grave)  # gone in one step, whatever happens while it is emptied
            _remove(grave)

    def list_machines(self) -> list[Machine]:
        return [self._machine(folder) for folder in self._folders()]

    # --- Stoppable ---

    def stop(self, machine: Machine) -> None:
        with self._lock():
            if folder := self._find(machine.token):
                switch_off(folder)

    def start(self, machine: Machine) -> Machine:
        """Boot it again: same keys, same disk, and the same address while that is free."""
        with self._lock():
            folder = self._find(machine.token)
            if folder is None:
                raise NotFound(f"the machine {machine.name} is gone", hint="launch a new one")
            self._boot(folder)
        return self._machine(folder, known=machine)

    # --- SelfRelease ---

    def release_command(self, machine: Machine) -> tuple[str, ...]:
        """The guard's last act: every process ends, the disk stays, `start` brings it back."""
        folder = self._find(machine.token)
        return _release_command(folder) if folder else ()

    def set_guard(self, machine: Machine, guard: Guard) -> None:
        """The policy that the next boot gives to the guard."""
        if folder := self._find(machine.token):
            self._save_policy(folder, guard)
            record = _record(folder)
            folder.save_machine(replace(record, deadline_at=_text(guard.deadline_at)))

    def notices(self, machine: Machine) -> str:  # noqa: ARG002  # nobody takes it away
        return ""

    def limits(self, offer: Offer) -> str:  # noqa: ARG002  # its guard ends it, and it costs nothing
        return ""

    # --- folders ---

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One change of local machines at a time, over all processes."""
        self._settings.machines_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._settings.machines_dir / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _folders(self) -> list[MachineFolder]:
        if not self._settings.machines_dir.is_dir():
            return []
        paths = sorted(self._settings.machines_dir.resolve().iterdir())
        folders = [MachineFolder(path) for path in paths if not path.name.startswith(".")]
        return [folder for folder in folders if folder.machine()]

    def _find(self, token: str) -> MachineFolder | None:
        return next((folder for folder in self._folders() if _record(folder).token == token), None)

    def _key_folder(self, name: str) -> Path:
        return self._settings.keys_dir / name

    def _make(self, spec: LaunchSpec) -> MachineFolder:
        """Built aside and moved into place whole: a folder by that name is a complete machine."""
        final = self._settings.machines_dir.resolve() / spec.name
        if final.exists():
            raise ProviderError(
                f"a local machine named {spec.name} exists already",
                hint=f"choose another name, or run: cloudrun terminate {spec.name}",
            )
        for leftover in final.parent.glob(".*.*"):  # of a launch or an end that was killed; we hold the lock
            _remove(leftover)
        draft = MachineFolder(final.with_name(f".{spec.name}.{secrets.token_hex(4)}"))
        draft.home.mkdir(parents=True)
        draft.path.chmod(0o700)
        make_key(draft.host_key, comment=spec.name)
        key = self._key_folder(spec.name) / "id_ed25519"
        make_key(key, comment=f"cloudrun {spec.name}")
        save_text(draft.authorized_keys, key.with_suffix(".pub").read_text())
        draft.save_machine(_new_record(spec))
        draft.path.rename(final)
        return MachineFolder(final)

    # --- boot ---

    def _boot(self, folder: MachineFolder) -> None:
        """Guard first, server second; each step is harmless when already done."""
        with folder.power():
            record = _record(folder)
            if folder.live_server():
                return
            if record.stopped:
                folder.save_machine(replace(record, stopped=False, ended_at=""))
            environment = machine_environment(
                folder, data_dir=str(self._settings.datasets_dir), caller=os.environ
            )
            arm_guard(folder, environment)
            start_server(folder, environment)

    def _save_policy(self, folder: MachineFolder, guard: Guard) -> None:
        save_text(folder.policy, json.dumps(policy(guard, _release_command(folder))))

    def _machine(self, folder: MachineFolder, *, known: Machine | None = None) -> Machine:
        record, server = _record(folder), folder.live_server()
        fresh = Machine(
            id=f"local-{hashlib.sha256(record.token.encode()).hexdigest()[:10]}",
            name=record.name,
            provider=self.name,
            region=REGION,
            type=record.type,
            market=Market.OWN,
            state=MachineState.RUNNING if server else MachineState.STOPPED,
            token=record.token,
            address=self._address(folder, server) if server else None,
            stack=record.stack,
            price_per_hour_usd=Decimal(0),
            launched_at=_time(record.launched_at),
            ended_at=None if server else _time(record.ended_at),
            deadline_at=_time(record.deadline_at),
            run_owned=record.run_owned,
            gpu=record.gpu,
            gpu_count=record.gpu_count,
            gpu_memory_gib=record.gpu_memory_gib,
            gpu_capability=record.gpu_capability,
            detail=(("folder", str(folder.path)),),
        )
        if known is None:
            return fresh
        return replace(known, state=fresh.state, address=fresh.address, ended_at=fresh.ended_at)

    def _address(self, folder: MachineFolder, server: ServerRecord) -> SshAddress:
        return SshAddress(
            host=server.host,
            port=server.port,
            user=getpass.getuser(),
            key_path=self._key_folder(folder.path.name) / "id_ed25519",
            host_key=folder.host_key_line(),
        )


def _new_record(spec: LaunchSpec) -> MachineRecord:
    return MachineRecord(
        token=spec.token,
        name=spec.name,
        type=spec.offer.type,
        stack=spec.stack.name,
        host=pick_host(spec.token),
        run_owned=spec.run_owned,
        launched_at=_text(datetime.now(UTC)),
        deadline_at=_text(spec.guard.deadline_at),
        gpu=spec.offer.gpu,
        gpu_count=spec.offer.gpu_count,
        gpu_memory_gib=spec.offer.gpu_memory_gib,
        gpu_capability=spec.offer.gpu_capability,
    )


def _record(folder: MachineFolder) -> MachineRecord:
    record = folder.machine()
    if record is None:
        raise NotFound(f"{folder.path} holds no machine any more", hint="run: cloudrun machines list")
    return record


def _release_command(folder: MachineFolder) -> tuple[str, ...]:
    return (sys.executable, "-m", "cloudrun.server", "--release", str(folder.path))


def _text(time: datetime | None) -> str:
    return time.isoformat() if time else ""


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _remove(path: Path) -> None:
    """A job may have left folders that not even their owner may write to."""
    for folder, names, _ in os.walk(path):
        for name in names:
            if not (entry := Path(folder, name)).is_symlink():
                entry.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
