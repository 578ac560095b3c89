"""The shell over OpenSSH's own client: one `ssh` process holds the connection (ControlMaster), and
every command is a session on it, asked for over its control socket (mux.py).

The master outlives this process by CONTROL_PERSIST_S, so that the next command finds it warm, and
several of our processes share it. It notices a dead peer by itself and ends; that ends the streams
of its sessions without an exit code, which is how ConnectionLost is told from any exit code.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudrun.errors import ConnectFailed, ConnectionLost, HostKeyMismatch, RemoteError
from cloudrun.models import Result, SshAddress
from cloudrun.remote.command import checked, wrapped
from cloudrun.remote.mux import Control, NoMaster, SessionRefused
from cloudrun.remote.pipes import PipeStream, Session, collect
from cloudrun.remote.shell import CONNECT_TIMEOUT_S, DEAD_PEER_S, Stream

CONTROL_PERSIST_S = 120
# A silent peer is asked every 3 s and given up at the fourth question: 12 s, below DEAD_PEER_S.
ALIVE_INTERVAL_S = 3
ALIVE_COUNT = 3
MOST_MASTERS = 8  # a server takes 10 sessions on each (sshd_config's MaxSessions)
LOST_AT_ONCE_S = 1.0  # a master found in the act of ending says so at once; a silent peer takes longer
FORWARD_TRIES = 20
NO_STATUS = 255  # ssh(1): its own exit code for an error
SUN_PATH_BYTES = 104  # sys/un.h of macOS (Linux: 108), with the ending NUL
SUFFIX_BYTES = 17  # what ssh appends while it makes the socket


class OpenSshShell:
    """A Shell (see shell.py). known_hosts holds the machine's host key; no other file is asked."""

    def __init__(self, address: SshAddress, known_hosts: Path) -> None:
        self.address = address
        self._known_hosts = known_hosts
        self._starting = threading.Lock()
        facts = "\0".join(map(str, (*_facts(address), known_hosts)))
        self._control = control_folder() / hashlib.sha256(facts.encode()).hexdigest()[:16]

    def run(
        self, command: str, *, input: bytes = b"", timeout_s: float | None = None, check: bool = True
    ) -> Result:
        result = collect(self._open(command), input, timeout_s)
        return checked(result, self.address) if check else result

    def open(self, command: str) -> Stream:
        return PipeStream(self._open(command))

    def interactive(self, command: str = "") -> int:
        self._master(0).close()
        argv = [*self._ssh(0), "-tt", "--", self.address.host, *([command] if command else [])]
        code = subprocess.run(argv, check=False).returncode
        if code == NO_STATUS and not self._master_lives(0):
            raise ConnectionLost(f"{self.address.host}: the connection died", hint="try again")
        return code

    @contextmanager
    def forward(self, local_port: int, remote_port: int, *, remote_host: str = "127.0.0.1") -> Iterator[int]:
        port = self._open_forward(local_port, remote_host, remote_port)
        try:
            yield port
        finally:
            with suppress(RemoteError), Control(self._path(0), timeout_s=DEAD_PEER_S) as control:
                control.close_forward(port, remote_host, remote_port)

    def close(self) -> None:
        """Nothing to let go of: the master is shared, and ends by itself once it was idle long enough."""

    # --- sessions ---

    def _open(self, command: str) -> Session:
        for index in range(MOST_MASTERS):
            with suppress(SessionRefused):
                return self._open_on(index, command)
        raise ConnectFailed(
            f"{self.address.host} takes no more commands at once", hint="wait for some of them to end"
        )

    def _open_on(self, index: int, command: str) -> Session:
        """A session on that master. One that was just ending never started the command: once more, then."""
        begun = time.monotonic()
        try:
            return self._request(index, command)
        except ConnectionLost:
            if time.monotonic() - begun > LOST_AT_ONCE_S:
                raise
        return self._request(index, command)

    def _request(self, index: int, command: str) -> Session:
        control = self._master(index)
        (their_in, our_in), (our_out, their_out), (our_err, their_err) = (os.pipe() for _ in range(3))
        try:
            control.open_session(wrapped(command), (their_in, their_out, their_err))
        except BaseException:
            control.close()
            for fd in (our_in, our_out, our_err):
                os.close(fd)
            raise
        finally:
            for fd in (their_in, their_out, their_err):
                os.close(fd)
        return Session(
            command, control, our_in, our_out, our_err, lambda: self._master_lives(index), self.address.host
        )

    def _open_forward(self, local_port: int, remote_host: str, remote_port: int) -> int:
        """ssh cannot be asked for "any free port": one is looked up, and another if it is snatched."""
        for _ in range(1 if local_port else FORWARD_TRIES):
            port = local_port or _free_port()
            with self._master(0) as control:
                if control.open_forward(port, remote_host, remote_port):
                    return port
        raise ConnectFailed(f"port {port} of this computer is taken", hint="choose another, or 0 for any")

    # --- masters ---

    def _path(self, index: int) -> Path:
        return self._control.with_name(f"{self._control.name}.{index}")

    def _master(self, index: int) -> Control:
        """A control connection to that master, which is started where none serves."""
        path = self._path(index)
        with suppress(NoMaster):
            return Control(path, timeout_s=DEAD_PEER_S)
        with self._starting, path.with_suffix(f".lock{index}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(NoMaster):  # another thread or process was faster
                return Control(path, timeout_s=DEAD_PEER_S)
            path.unlink(missing_ok=True)  # the socket of a master that was killed
            self._start(index)
        try:
            return Control(path, timeout_s=DEAD_PEER_S)
        except NoMaster as error:
            raise ConnectFailed(f"{self.address.host}: {error}", hint="try again") from error

    def _start(self, index: int) -> None:
        """Connect, and return when the master is authenticated and in the background."""
        if not self.address.key_path.is_file():
            raise ConnectFailed(
                f"the user key {self.address.key_path} is missing",
                hint="it is made with the machine: launch or attach the machine again",
            )
        persist = ("-M", "-N", "-f", "-o", f"ControlPersist={CONTROL_PERSIST_S}")
        with tempfile.TemporaryFile() as said:  # not a pipe: older masters keep it open for life
            master = subprocess.Popen(
                [*self._ssh(index), *persist, "--", self.address.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "LC_ALL": "C"},  # its messages are told apart below
            )
            try:
                code = master.wait(CONNECT_TIMEOUT_S + 2)
            except subprocess.TimeoutExpired:
                code = NO_STATUS
            finally:
                if master.poll() is None:
                    master.kill()
                    master.wait()
            said.seek(0)
            if code != 0:
                raise connect_error(self.address, said.read().decode("utf-8", "replace"))

    def _master_lives(self, index: int) -> bool:
        try:
            with Control(self._path(index), timeout_s=DEAD_PEER_S) as control:
                return control.master_lives()
        except NoMaster:
            return False

    def _ssh(self, index: int) -> list[str]:
        """ssh with everything said here and nothing read from the user's or the system's configuration."""
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _quoted(self._known_hosts),
            "GlobalKnownHostsFile": "none",
            "UpdateHostKeys": "no",
            "IdentityFile": _quoted(self.address.key_path),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "BatchMode": "yes",
            "ConnectTimeout": f"{CONNECT_TIMEOUT_S:.0f}",
            "ServerAliveInterval": str(ALIVE_INTERVAL_S),
            "ServerAliveCountMax": str(ALIVE_COUNT),
            "Ciphers": "^aes128-gcm@openssh.com",  # half again as fast as the default; first if both have it
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        where = ("-l", self.address.user, "-p", str(self.address.port))
        return ["ssh", "-F", "none", "-S", str(self._path(index)), *where, *words]


# What ssh says, in this order of precedence; the text is its own, in the C locale.
_SAYINGS: tuple[tuple[str, type[RemoteError], str], ...] = (
    (
        "Host key verification failed",
        HostKeyMismatch,
        "somebody else may be answering there; if the machine was rebuilt, attach or launch it anew",
    ),
    (
        "Permission denied",
        ConnectFailed,
        "the machine does not accept this key: was it made for another machine?",
    ),
    (
        "Connection refused",
        ConnectFailed,
        "no SSH server answers there: is it stopped? see: cloudrun machines list",
    ),
    ("Could not resolve hostname", ConnectFailed, "check the host's name and this computer's network"),
    ("Load key", ConnectFailed, "the key file cannot be read: see its owner and permissions"),
)


def connect_error(address: SshAddress, said: str) -> RemoteError:
    """ssh's own words as one of our errors."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("@")]
    where = f"{address.user}@{address.host}:{address.port}"
    for needle, kind, hint in _SAYINGS:
        if needle in said:
            why = "another host key than recorded" if kind is HostKeyMismatch else lines[-1]
            return kind(f"{where}: {why}", hint=hint)
    why = lines[-1] if lines else f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    return ConnectFailed(f"{where}: {why}", hint="is the machine up, and the network? then try again")


def control_folder() -> Path:
    """Where control sockets live: ours alone, and short enough for a socket's path."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108  # made safe below
    folder = base / f"cloudrun-{os.getuid()}"
    longest = len(os.fsencode(folder)) + len("/0123456789abcdef.0") + SUFFIX_BYTES
    if longest >= SUN_PATH_BYTES:
        folder = Path("/tmp") / folder.name  # noqa: S108
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    if _is_ours(folder):
        return folder
    return Path(tempfile.mkdtemp(prefix="cloudrun-", dir="/tmp"))  # somebody sits on our name


def _is_ours(folder: Path) -> bool:
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077


def _facts(address: SshAddress) -> tuple[str, ...]:
    return (
        address.host,
        str(address.port),
        address.user,
        str(address.key_path.absolute()),
        address.host_key,
    )


def _quoted(path: Path) -> str:
    """A path as ssh_config wants it: in quotes for its spaces, with its % doubled."""
    return '"' + str(path).replace("%", "%%") + '"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
