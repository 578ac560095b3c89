"""Host keys: the one that a host shows before there is any trust, and the one that replaces ours.

A rented machine boots with a host key that we made and that travelled through the cloud's interface. Over the
first connection, which that key verified, the machine makes one that never leaves it.
"""

from __future__ import annotations

import shlex
import socket
import time
from pathlib import Path

from cloudrun.assets import provisioning_dir
from cloudrun.errors import ConnectFailed, MachineError
from cloudrun.keys import HOST_KEY, NEXT_HOST_KEY, locked, save_text
from cloudrun.remote.shell import CONNECT_TIMEOUT_S, Shell

SSHD_KEY = "/etc/ssh/ssh_host_ed25519_key"  # sshd_config(5): the default that every image has
SSHD_PID = "/run/sshd.pid"  # sshd_config(5), as distributions set it
STEP_TIMEOUT_S = 60.0
RELOAD_TIMEOUT_S = 15.0  # until sshd, told to read its keys again, shows the new one


def scan_host_key(host: str, port: int) -> str:
    """One line "type base64". ed25519 where the host has one. Blocks up to CONNECT_TIMEOUT_S for each
    of connecting and exchanging keys; nothing is authenticated. Raises ConnectFailed."""
    import paramiko

    where = f"{host}:{port}"
    try:
        connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ConnectFailed(f"{where}: {error}", hint="is the host up, and its SSH server?") from error
    try:
        with paramiko.Transport(connection) as transport:
            options = transport.get_security_options()
            options.key_types = sorted(options.key_types, key=lambda kind: kind != "ssh-ed25519")
            transport.start_client(timeout=CONNECT_TIMEOUT_S)
            key = transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise ConnectFailed(f"{where}: {error}", hint="does an SSH server answer on that port?") from error
    return f"{key.get_name()} {key.get_base64()}"


def rotate_host_key(
    shell: Shell, folder: Path, *, key_path: str = SSHD_KEY, pid_path: str = SSHD_PID
) -> bool:
    """Replace the machine's host key by one of its own; `folder` is that of keys.make_keys.

    Blocking, a few seconds. True when it was done now, False when it had been done before. Killed at any
    point and called again it goes on; home knows the new key before the machine shows it, so
    keys.host_key_lines fits at any moment. It lasts: cloud-init writes its `ssh_keys` once for each
    instance, not at every boot. Raises MachineError where the machine does not take or show the new key
    (the old one then still opens it), and the shell's own errors.
    """
    private, public = folder / HOST_KEY, folder / f"{HOST_KEY}.pub"
    coming = folder / f"{NEXT_HOST_KEY}.pub"
    with locked(folder):
        if not private.exists() and not coming.exists():
            return False
        known = _line(coming) if coming.exists() else ""
        fresh = _step(shell, "prepare", key_path, _line(public), known)
        save_text(coming, f"{fresh}\n")
        _step(shell, "install", key_path, fresh, pid_path)
        _await_key(shell.address.host, shell.address.port, fresh)
        private.unlink(missing_ok=True)
        coming.replace(public)
    return True


def _step(shell: Shell, step: str, *arguments: str) -> str:
    """One step of provisioning/rotate_host_key.sh, as root where the key's folder needs it."""
    script = (provisioning_dir() / "rotate_host_key.sh").read_bytes()
    words = shlex.join(["sh", "-s", step, *arguments])
    folder = shlex.quote(str(Path(arguments[0]).parent))
    command = f"if [ -w {folder} ]; then {words}; else sudo -n {words}; fi"
    result = shell.run(command, input=script, timeout_s=STEP_TIMEOUT_S, check=False)
    if not result:
        reason = result.stderr.decode("utf-8", "replace").strip() or f"exit code {result.exit_code}"
        raise MachineError(
            f"{shell.address.host}: its host key could not be replaced: {reason}",
            hint="the machine works with the key it has; the same command tries again",
        )
    return result.text.strip()


def _await_key(host: str, port: int, line: str) -> None:
    """Until the host shows that key to a new connection. For a moment it may not listen at all."""
    give_up_at = time.monotonic() + RELOAD_TIMEOUT_S
    while True:
        try:
            shown = scan_host_key(host, port)
        except ConnectFailed as error:
            shown = error.message
        if shown == line:
            return
        if time.monotonic() > give_up_at:
            raise MachineError(
                f"{host} does not show its new host key: {shown}",
                hint="the machine works with the key it has; the same command tries again",
            )
        time.sleep(0.05)


def _line(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])
