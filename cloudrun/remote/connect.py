"""The shell of a machine: OpenSSH's client where it is installed, fabric otherwise."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from cloudrun.config import Settings
from cloudrun.errors import ConfigError, ConnectFailed
from cloudrun.models import SshAddress
from cloudrun.remote.shell import Shell


def connect(address: SshAddress, settings: Settings, *, machine: str) -> Shell:
    """A Shell that connects on first use. Writes the machine's known_hosts; no other I/O.

    Raises ConnectFailed while the host key is not known, ConfigError for a shell that is not there.
    """
    known_hosts = write_known_hosts(address, settings.keys_dir / machine)
    if settings.shell == "openssh" and not shutil.which("ssh"):
        raise ConfigError(
            "CLOUDRUN_SHELL is openssh, but `ssh` is not on PATH", hint="unset it, or install it"
        )
    if settings.shell == "paramiko" or not shutil.which("ssh"):
        from cloudrun.remote.ssh import FabricShell

        return FabricShell(address, known_hosts)
    from cloudrun.remote.openssh import OpenSshShell

    return OpenSshShell(address, known_hosts)


def write_known_hosts(address: SshAddress, folder: Path) -> Path:
    """The machine's own known_hosts, holding its host key and nothing else. Two lines while that key
    is being replaced (remote/hostkey.py): either may answer."""
    if not address.host_key:
        raise ConnectFailed(
            f"the host key of {address.host} is not known",
            hint="confirm it once with: cloudrun machines attach",
        )
    name = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    keys = [" ".join(line.split()[:2]) for line in address.host_key.splitlines()]
    text = "".join(f"{name} {key}\n" for key in keys)
    path = folder / "known_hosts"
    if path.is_file() and path.read_text() == text:
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".known_hosts.{secrets.token_hex(4)}")
    draft.write_text(text)
    draft.replace(path)
    return path
