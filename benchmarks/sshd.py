"""A real OpenSSH server on loopback, for one benchmark: own keys, own home folder, gone afterwards."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudrun.models import SshAddress

# SHLVL: bash sources ~/.bashrc for every command over SSH unless it believes to be a nested shell, and what
# stands in there is not ours to measure.
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxSessions 100
MaxStartups 100
LogLevel QUIET
SetEnv SHLVL=5 HOME={home}
"""


@dataclass(frozen=True)
class Server:
    """Where it listens, and the folder in which its users find themselves."""

    port: int
    folder: Path
    home: Path

    def address(self, port: int = 0) -> SshAddress:
        """How to reach it, directly or through a proxy's port."""
        host_key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        return SshAddress(
            "127.0.0.1", port or self.port, getpass.getuser(), self.folder / "user_key", host_key
        )


def ssh_options(address: SshAddress, folder: Path) -> list[str]:
    """Options of `ssh` for a connection to that server which shares nothing with others."""
    known_hosts = folder / f"known_hosts_{address.host}_{address.port}"
    known_hosts.write_text(f"[{address.host}]:{address.port} {address.host_key}\n")
    words = ["-F", "none", "-p", str(address.port), "-i", str(address.key_path)]
    for option in ("IdentitiesOnly=yes", "BatchMode=yes", "ControlPath=none", "LogLevel=ERROR"):
        words += ["-o", option]
    return [*words, "-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes"]


@contextlib.contextmanager
def openssh_server(folder: Path) -> Iterator[Server]:
    """Serve from the folder while the context is open. Raises RuntimeError where sshd is not installed."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("this benchmark needs OpenSSH's server, sshd, and its client")
    Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation folder, when started as root
    home = folder / "home"
    home.mkdir(parents=True)
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(port=port, folder=folder, home=home))
    with subprocess.Popen([program, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield Server(port, folder, home)
        finally:
            process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError("sshd did not start")
