"""What is OpenSSH's alone: control sockets that heal, several clients on one master, and its protocol."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import EmbeddedServer

from cloudrun.errors import ConnectFailed, ConnectionLost, HostKeyMismatch, RemoteError
from cloudrun.remote.connect import connect
from cloudrun.remote.mux import Control, NoMaster
from cloudrun.remote.openssh import OpenSshShell, connect_error, control_folder


@pytest.fixture
def openssh(embedded: EmbeddedServer) -> OpenSshShell:
    shell = connect(embedded.address, embedded.settings, machine="box")
    assert isinstance(shell, OpenSshShell)
    return shell


def test_a_master_that_was_killed_leaves_a_socket_that_heals(openssh: OpenSshShell) -> None:
    assert openssh.run("true")
    os.kill(master_pid(openssh), signal.SIGKILL)
    assert openssh.run("echo healed").text == "healed"


def test_a_file_in_the_sockets_place_heals(openssh: OpenSshShell) -> None:
    end_master(openssh)
    openssh._path(0).write_text("not a socket")
    assert openssh.run("echo healed").text == "healed"


def test_the_end_of_a_master_that_is_killed_under_a_command_is_a_lost_connection(
    openssh: OpenSshShell,
) -> None:
    with openssh.open("echo begun; cat") as stream:
        assert stream.stdout.readline() == b"begun\n"
        os.kill(master_pid(openssh), signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            stream.stdout.read()
        with pytest.raises(ConnectionLost):
            stream.wait()


def test_all_processes_share_one_master(openssh: OpenSshShell, embedded: EmbeddedServer) -> None:
    end_master(openssh)
    code = (
        "import sys; from pathlib import Path; from cloudrun.config import Settings\n"
        "from cloudrun.remote.connect import connect; from cloudrun.models import SshAddress\n"
        f"from pathlib import PosixPath; address = {embedded.address!r}\n"
        f"shell = connect(address, Settings(home=Path({str(embedded.settings.home)!r})), machine='box')\n"
        "print(shell.run('echo $SSH_CONNECTION').text)"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]
    ports = {client.communicate(timeout=60)[0] for client in clients}
    assert len(ports) == 1
    assert ports == {openssh.run("echo $SSH_CONNECTION").text + "\n"}


def test_a_terminal(embedded: EmbeddedServer, openssh: OpenSshShell) -> None:
    """interactive() on a real PTY of our own: bytes both ways, the window's size, the exit code."""
    assert interactive(embedded, "openssh", "stty size; read -r word; echo got $word; exit 5") == (
        "33 77",
        "got it",
        5,
    )


def test_a_terminal_over_fabric(embedded: EmbeddedServer) -> None:
    size, got, code = interactive(embedded, "paramiko", "stty size; read -r word; echo got $word; exit 5")
    assert (got, code) == ("got it", 5)
    assert size == "33 77"


def test_control_sockets_are_ours_alone_and_short_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = control_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("long" * 40)))
    assert control_folder().parent == Path("/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    taken = tmp_path / f"cloudrun-{os.getuid()}"
    taken.mkdir(mode=0o777)
    taken.chmod(0o777)  # whatever the umask
    safe = control_folder()
    assert safe != taken
    assert safe.stat().st_mode & 0o777 == 0o700


def test_sshs_words_become_our_errors(embedded: EmbeddedServer) -> None:
    where = embedded.address
    changed = "@@@@@\n@ WARNING: REMOTE HOST\nHost key verification failed.\n"
    assert isinstance(connect_error(where, changed), HostKeyMismatch)
    for said in (
        "ssh: connect to host x port 1: Connection refused",
        "a@b: Permission denied (publickey).",
        "",
    ):
        error = connect_error(where, said)
        assert isinstance(error, ConnectFailed)
        assert error.hint
        assert said.rpartition("\n")[2] in error.message


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(lambda body: framed(body))))
def test_a_master_may_say_anything(said: bytes) -> None:
    """Whatever comes over the control socket: our errors or an answer, never another exception."""
    ours, theirs = socket.socketpair()
    theirs.sendall(framed(b"\0\0\0\1\0\0\0\4") + said)
    theirs.shutdown(socket.SHUT_WR)
    control = Control.__new__(Control)
    control._socket, control.reported, control.over = ours, None, False
    assert control._receive()[0] == 1
    with ours, theirs, contextlib.suppress(RemoteError):
        assert control.exit_code() is None or control.reported is not None


def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    with pytest.raises(NoMaster):
        Control(tmp_path / "none", timeout_s=1)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def master_pid(shell: OpenSshShell) -> int:
    with Control(shell._path(0), timeout_s=5) as control:
        control._send(b"\x10\0\0\x04\0\0\0\x01")
        return int.from_bytes(control._receive()[1][4:8], "big")


def end_master(shell: OpenSshShell) -> None:
    try:
        with Control(shell._path(0), timeout_s=5) as control:
            control.terminate()
    except NoMaster:
        return
    while shell._path(0).exists():
        time.sleep(0.01)


def interactive(server: EmbeddedServer, kind: str, command: str) -> tuple[str, str, int]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    code = (
        "import sys; from pathlib import Path, PosixPath; from cloudrun.config import Settings\n"
        "from cloudrun.remote.connect import connect; from cloudrun.models import SshAddress\n"
        f"settings = Settings(home=Path({str(server.settings.home)!r}), shell={kind!r})\n"
        f"sys.exit(connect({server.address!r}, settings, machine='box').interactive({command!r}))"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # the client's controlling terminal
    )
    os.close(theirs)
    said = b""
    watchdog = threading.Timer(60, client.kill)
    watchdog.start()
    while b"33 77" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"it\n")
    try:
        while chunk := os.read(ours, 1000):
            said += chunk
    except OSError:  # EIO: the other side is closed
        pass
    exit_code = client.wait()
    watchdog.cancel()
    os.close(ours)
    lines = [line.strip() for line in said.decode().splitlines()]
    return next(x for x in lines if x == "33 77"), next(x for x in lines if x.startswith("got")), exit_code
