"""Real SSH servers for tests: the embedded one, and OpenSSH's sshd as a plain process of this user."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path

import pytest

from cloudrun.config import Settings
from cloudrun.keys import make_key
from cloudrun.models import Guard, LaunchSpec, Machine, SshAddress, Stack
from cloudrun.providers.base import Need
from cloudrun.providers.local import LocalProvider
from cloudrun.server import processes

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Server:
    """A server under test: where it is, and ways to hurt it."""

    address: SshAddress
    pid: int
    frozen: list[int] = field(default_factory=list)

    def everyone(self) -> list[int]:
        """The server and the processes that serve its connections, the commands themselves included."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if self.pid in processes.ancestors(pid)]

    def freeze(self) -> None:
        self.frozen = self.everyone()
        for pid in self.frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.frozen:
            if processes.start_mark(pid):
                os.kill(pid, signal.SIGCONT)
        self.frozen = []

    def cut(self) -> None:
        """Every connection and the server itself die at once, commands too."""
        everyone = self.everyone()
        for pid in everyone:
            with suppress(ProcessLookupError):  # its parent's end was its own
                os.kill(pid, signal.SIGKILL)
        give_up_at = time.monotonic() + 60
        while any(processes.start_mark(pid) for pid in everyone):  # signals take time
            assert time.monotonic() < give_up_at
            time.sleep(0.005)


class EmbeddedServer(Server):
    """A local machine of its own home folder."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder)
        self.provider = LocalProvider(self.settings)
        self.machine = launch(self.provider, "box")
        super().__init__(*self._where())

    def restart(self) -> None:
        self.machine = self.provider.start(self.machine)
        self.address, self.pid = self._where()

    def end(self) -> None:
        self.thaw()
        self.provider.terminate(self.machine)

    def _where(self) -> tuple[SshAddress, int]:
        folder = self.provider._find(self.machine.token)
        assert self.machine.address
        assert folder
        live = folder.live_server()
        assert live
        return self.machine.address, live.pid


class OpenSshServer(Server):
    """sshd with its own configuration, keys and address; needs no rights beyond this user's."""

    def __init__(self, folder: Path) -> None:
        if SSHD is None:
            pytest.skip("OpenSSH's sshd is not installed")
        self.settings = Settings(home=folder)
        self.folder = folder
        host = "127.0.6.1"
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        make_key(folder / "host_key", comment="host")
        key = folder / "keys" / "box" / "id_ed25519"
        make_key(key, comment="user")
        (folder / "home").mkdir()
        (folder / "sshd_config").write_text(
            f"ListenAddress {host}:{port}\n"
            f"HostKey {folder}/host_key\n"
            f"PidFile {folder}/sshd.pid\n"
            f"AuthorizedKeysFile {key}.pub\n"
            # SHLVL: bash takes no part of a heavy ~/.bashrc in; HOME: nothing is written to the real one.
            f"SetEnv SHLVL=5 HOME={folder}/home\n"
            "UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nPrintMotd no\nSubsystem sftp internal-sftp\n"
        )
        public = (folder / "host_key.pub").read_text()
        address = SshAddress(host, port, getuser(), key, " ".join(public.split()[:2]))
        super().__init__(address, 0)
        self.restart()

    def restart(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd puts its unprivileged half, as root only
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log, stdout=log
            )
        self.pid = self._process.pid
        await_port(self.address)

    def cut(self) -> None:
        super().cut()
        self._process.wait()

    def end(self) -> None:
        self.thaw()
        self.cut()


def launch(provider: LocalProvider, name: str, *, token: str = "") -> Machine:
    (offer,) = provider.offers(Need())
    return provider.launch(
        LaunchSpec(
            token=token or f"token of {name}",
            name=name,
            offer=offer,
            stack=Stack("none"),
            guard=Guard(issued_at=datetime.now(UTC)),
        )
    )


def await_port(address: SshAddress, *, within_s: float = 90) -> None:
    """sshd tells nobody that it listens, so it is asked until it does."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection((address.host, address.port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)
        else:
            return
