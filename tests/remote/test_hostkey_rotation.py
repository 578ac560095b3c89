"""The host key that we made is replaced by one of the machine's own, and home is never locked out."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import SSHD, OpenSshServer, await_port

from cloudrun.errors import CloudrunError, ConnectionLost, HostKeyMismatch, MachineError
from cloudrun.keys import host_key_lines, make_keys
from cloudrun.models import Result, SshAddress
from cloudrun.remote import hostkey
from cloudrun.remote.connect import connect
from cloudrun.remote.hostkey import rotate_host_key, scan_host_key
from cloudrun.remote.shell import Shell

SHELLS = ("openssh", "paramiko")


class HoldingServer(OpenSshServer):
    """sshd that holds the keys it found at its start, as it does from 9.8 on (before: with its option -r)."""

    def restart(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
        with (self.folder / "log").open("ab") as log:
            argv = [str(SSHD), "-D", "-r", "-e", "-f", self.folder / "sshd_config"]
            self._process = subprocess.Popen(argv, stderr=log, stdout=log)
        self.pid = self._process.pid
        await_port(self.address)


class Rented:
    """An sshd that was given its host key at boot, and home's folder of its keys."""

    def __init__(self, folder: Path) -> None:
        self.server = HoldingServer(folder)
        self.keys = folder / "keys" / "rented"
        made = make_keys(self.keys, comment="rented")
        (folder / "host_key").write_text(made.host_private)
        (folder / "host_key.pub").write_text(made.host_public)
        self.key, self.pid_file = folder / "host_key", folder / "sshd.pid"
        self.server.cut()
        self.server.restart()
        self.numbers = itertools.count()
        self.old = " ".join(made.host_public.split()[:2])

    def address(self) -> SshAddress:
        """As a provider makes it: with the host keys that home knows at this moment."""
        return dataclasses.replace(self.server.address, host_key=host_key_lines(self.keys))

    def shell(self, kind: str = "openssh") -> Shell:
        """A connection of its own, for which the host has to prove itself anew."""
        settings = dataclasses.replace(self.server.settings, shell=kind)
        return connect(self.address(), settings, machine=f"connection-{next(self.numbers)}")

    def rotate(self, shell: Shell | None = None) -> bool:
        key, pid = str(self.key), str(self.pid_file)
        return rotate_host_key(shell or self.shell(), self.keys, key_path=key, pid_path=pid)

    def shown(self) -> str:
        return scan_host_key(self.server.address.host, self.server.address.port)

    def opens(self) -> bool:
        await_port(self.server.address)  # an sshd that reloads does not listen for a moment
        return all(self.shell(kind).run("echo in").text.strip() == "in" for kind in SHELLS)


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[Rented]:
    machine = Rented(tmp_path)
    yield machine
    machine.server.end()


def test_the_machine_shows_a_key_that_home_never_had(rented: Rented) -> None:
    assert rented.shown() == rented.old
    assert rented.rotate() is True
    assert rented.shown() == host_key_lines(rented.keys)
    assert rented.shown() != rented.old
    assert sorted(path.name for path in rented.keys.glob("host_key*")) == ["host_key.pub"]
    assert stat.S_IMODE(rented.key.stat().st_mode) == 0o600
    assert sorted(path.name for path in rented.key.parent.glob("host_key*")) == ["host_key", "host_key.pub"]
    assert rented.key.with_name("host_key.pub").read_text().split() == host_key_lines(rented.keys).split()
    assert rented.opens()


def test_a_second_time_does_nothing(rented: Rented) -> None:
    rented.rotate()
    lines = host_key_lines(rented.keys)
    assert rented.rotate() is False
    assert host_key_lines(rented.keys) == lines == rented.shown()


def test_who_has_the_old_key_is_no_longer_believed(rented: Rented) -> None:
    rented.rotate()
    stale = dataclasses.replace(rented.address(), host_key=rented.old)
    shell = connect(stale, dataclasses.replace(rented.server.settings, shell="paramiko"), machine="stale")
    with pytest.raises(HostKeyMismatch):
        shell.run("true")


class Dying:
    """A shell whose client dies at the nth command: before it was sent, or before its answer came."""

    def __init__(self, shell: Shell, nth: int, *, sent: bool) -> None:
        self.address, self._shell, self._left, self._sent = shell.address, shell, nth, sent

    def run(self, command: str, **options: object) -> Result:
        self._left -= 1
        if self._left == 0 and not self._sent:
            raise ConnectionLost("killed by the test")
        result = self._shell.run(command, **options)  # type: ignore[arg-type]
        if self._left == 0:
            raise ConnectionLost("killed by the test")
        return result


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("nth", [1, 2])
def test_killed_at_a_command_and_repeated_it_ends_right(
    rented: Rented, nth: int, sent: bool, shell: str
) -> None:
    with pytest.raises(ConnectionLost, match="killed"):
        rented.rotate(Dying(rented.shell(shell), nth, sent=sent))  # type: ignore[arg-type]
    assert rented.opens()
    assert rented.rotate(rented.shell(shell)) is True
    assert rented.shown() == host_key_lines(rented.keys) != rented.old
    assert not (rented.keys / "host_key").exists()


AT_HOME: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the new line is written": lambda patch: patch.setattr(hostkey, "save_text", _die),
    "before the new key is seen": lambda patch: patch.setattr(hostkey, "_await_key", _die),
    "before the old one is deleted": lambda patch: patch.setattr(Path, "unlink", _die),
    "before the new line takes its place": lambda patch: patch.setattr(Path, "replace", _unless_draft),
}


class Killed(BaseException):
    pass


def _die(*_: object, **__: object) -> None:
    raise Killed


_replace = Path.replace


def _unless_draft(path: Path, target: Path) -> Path:
    if path.name == "host_key.next.pub":
        raise Killed
    return _replace(path, target)


@pytest.mark.parametrize("where", AT_HOME)
def test_killed_at_home_and_repeated_it_ends_right(
    rented: Rented, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        AT_HOME[where](patch)
        with pytest.raises(Killed):
            rented.rotate()
    assert rented.opens()
    assert rented.rotate() is True
    assert rented.shown() == host_key_lines(rented.keys) != rented.old


def test_a_machine_that_makes_keys_while_killed_leaves_none_behind(rented: Rented) -> None:
    litter = rented.key.with_name("host_key.cloudrun.abc123")
    litter.mkdir()
    (litter / "key").write_text("half")
    rented.rotate()
    assert not litter.exists()


def test_a_key_that_is_not_ours_is_not_touched(rented: Rented) -> None:
    """As where another SSH server answers than the one whose key lies there."""
    other = make_keys(rented.keys.with_name("other"), comment="other")
    rented.key.write_text(other.host_private)
    with pytest.raises(MachineError, match="not the one that this machine shows"):
        rented.rotate()
    assert rented.key.read_text() == other.host_private
    assert host_key_lines(rented.keys) == rented.old
    assert rented.opens()


def test_an_sshd_that_does_not_reload_is_told_and_goes_on(
    rented: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostkey, "RELOAD_TIMEOUT_S", 0.3)
    rented.pid_file.rename(rented.pid_file.with_name("elsewhere"))
    with pytest.raises(MachineError, match="does not show"):
        rented.rotate()
    assert rented.opens()  # by the old key, which it still shows
    rented.pid_file.with_name("elsewhere").rename(rented.pid_file)
    assert rented.rotate() is True
    assert rented.opens()


def test_a_process_id_of_somebody_else_is_not_signalled(
    rented: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostkey, "RELOAD_TIMEOUT_S", 0.3)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        rented.pid_file.write_text(f"{bystander.pid}\n")
        with pytest.raises(CloudrunError):
            rented.rotate()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_sshd_that_is_started_for_each_connection(rented: Rented) -> None:
    """As by inetd, or on a machine of the rehearsal cloud: it reads its keys each time."""
    rented.server.cut()
    address = rented.server.address
    listener = socket.create_server((address.host, address.port))
    children: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            argv = [str(SSHD), "-i", "-e", "-f", str(rented.server.folder / "sshd_config")]
            with accepted:
                children.append(
                    subprocess.Popen(argv, stdin=accepted, stdout=accepted, stderr=subprocess.DEVNULL)
                )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        assert rented.rotate() is True
        assert rented.opens()
        assert rented.shown() == host_key_lines(rented.keys) != rented.old
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        for child in children:
            child.kill()
            child.wait()


def test_the_scripts_are_good_shell() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    script = Path(__file__).parents[2] / "provisioning" / "rotate_host_key.sh"
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)
