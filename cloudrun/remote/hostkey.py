"""The host key that a host shows to anyone, before there is any trust: for the user to confirm."""

from __future__ import annotations

import base64
import hashlib
import socket

from cloudrun.errors import ConnectFailed
from cloudrun.remote.shell import CONNECT_TIMEOUT_S


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


def fingerprint(host_key: str) -> str:
    """SHA256:... as ssh-keygen -l shows it, for the user to compare."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
