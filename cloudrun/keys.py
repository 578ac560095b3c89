"""The keys of one machine: what opens it, and what it proves itself with. All ed25519, made here.

One folder a machine (`Settings.keys_dir`/NAME), private to its user:

    id_ed25519, id_ed25519.pub   the login; the public half travels in the boot payload
    host_key, host_key.pub       the host's own pair; both halves travel in the boot payload
    host_key.next.pub            while the host key is being replaced: the one that comes (remote/hostkey.py)

After the replacement the private `host_key` is gone: the host alone has its own from then on.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudrun.errors import HostKeyMismatch

LOGIN_KEY = "id_ed25519"
HOST_KEY = "host_key"
NEXT_HOST_KEY = "host_key.next"


@dataclass(frozen=True, slots=True)
class Keys:
    """What a boot payload needs. The login's private half stays in its file."""

    login_path: Path
    login_public: str  # one line "type base64 comment"
    host_private: str  # OpenSSH's format; "" once the host has a key of its own
    host_public: str  # one line "type base64 comment"


def make_keys(folder: Path, *, comment: str) -> Keys:
    """The machine's keys; those that are missing are made. Idempotent, also for processes at the same
    time, and after a kill at any point: a private half alone gets its public half back."""
    with locked(folder):
        login, host = folder / LOGIN_KEY, folder / HOST_KEY
        _complete(login, comment)
        if host.exists() or not _public(host).exists():
            _complete(host, comment)
        return Keys(
            login_path=login,
            login_public=_public(login).read_text().strip(),
            host_private=host.read_text() if host.exists() else "",
            host_public=_public(host).read_text().strip(),
        )


def fingerprint(host_key: str) -> str:
    """SHA256:... of a public key line, as `ssh-keygen -l` and ssh itself show it. Raises HostKeyMismatch."""
    words = host_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise HostKeyMismatch("the host's answer is no SSH host key", hint="check the address") from error
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def host_key_lines(folder: Path) -> str:
    """The host's public key as "type base64"; while it is being replaced a second line with the new one.
    "" where there is none."""
    lines = []
    for name in (HOST_KEY, NEXT_HOST_KEY):
        path = _public(folder / name)
        if path.is_file():
            line = " ".join(path.read_text().split()[:2])
            if line not in lines:
                lines.append(line)
    return "\n".join(lines)


def make_key(path: Path, *, comment: str) -> None:
    """A fresh ed25519 pair in OpenSSH's format: `path` (0600) and `path`.pub. Replaces what is there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    save_text(path, private.decode())
    _save_public(path, comment)


def save_text(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file whole and durably: after a crash it is the old one or the new one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One change of these keys at a time, over all processes of this computer. Waits for its turn."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _complete(path: Path, comment: str) -> None:
    if not path.exists():
        make_key(path, comment=comment)
    elif not _public(path).exists():
        _save_public(path, comment)


def _save_public(path: Path, comment: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    key = load_ssh_private_key(path.read_bytes(), password=None)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    save_text(_public(path), f"{line} {comment}\n")


def _public(path: Path) -> Path:
    """host_key.next has a dot of its own, so `with_suffix` would not do."""
    return path.with_name(path.name + ".pub")
