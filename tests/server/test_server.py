"""The machine that the embedded server makes of a folder."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import pytest
from servers import EmbeddedServer

from cloudrun.keys import make_key
from cloudrun.models import MachineState
from cloudrun.remote.connect import connect
from cloudrun.remote.shell import Shell
from cloudrun.server import processes
from cloudrun.server.boot import pick_host
from cloudrun.server.folder import FALLBACK_HOST, MachineFolder


def test_the_environment_is_made_anew(embedded: EmbeddedServer, shell: Shell) -> None:
    lines = shell.run("env -0").stdout.decode().rstrip("\0").split("\0")
    environment = dict(line.split("=", 1) for line in lines)
    assert "hush" not in environment.values()
    assert environment["HOME"] == str(home(embedded))
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert environment["CLOUDRUN_DATA_DIR"] == str(embedded.settings.datasets_dir)
    assert environment["LC_TIME"] == "C"
    there = f"{embedded.address.host} {embedded.address.port}"
    assert environment["SSH_CONNECTION"].endswith(there)
    assert shell.run("pwd; id -un").text.split() == [str(home(embedded)), embedded.address.user]
    assert shell.run("command -v python3").text == str(Path(sys.executable).parent / "python3")


def test_the_folder_is_closed_to_other_users(embedded: EmbeddedServer) -> None:
    folder = home(embedded).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "host_key").stat().st_mode) == 0o600
    assert stat.S_IMODE(embedded.address.key_path.stat().st_mode) == 0o600


def test_every_machine_has_an_address_and_a_port_of_its_own(
    embedded: EmbeddedServer, own: EmbeddedServer
) -> None:
    assert embedded.address.port >= 20000
    assert embedded.address.host.startswith("127.")
    assert (embedded.address.host, embedded.address.port) != (own.address.host, own.address.port)
    assert embedded.address.host_key != own.address.host_key


def test_where_there_is_only_one_loopback_address() -> None:
    assert pick_host("a token", bindable=lambda host: False) == FALLBACK_HOST
    hosts = {pick_host(str(number), bindable=lambda host: True) for number in range(50)}
    assert len(hosts) == 50
    assert not [
        host for host in hosts if host.startswith(("127.0.", "128.")) or host.endswith((".0", ".255"))
    ]


def test_a_terminal_follows_the_window(embedded: EmbeddedServer) -> None:
    with master_of_pty(
        embedded, 'while read -r x; do stty size; done; trap "exit 9" INT; echo set; read -r y'
    ) as pty:
        pty.say(b"go\n")
        assert pty.until(b"24 80")
        pty.resize(50, 132)
        pty.say(b"go\n")
        assert pty.until(b"50 132")
        pty.say(b"\x04")  # ^D ends the loop
        assert pty.until(b"set")
        pty.say(b"\x03")  # ^C comes as SIGINT from the terminal
        assert pty.ended() == 9


def test_files_over_sftp_stay_at_home(embedded: EmbeddedServer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 5000)
    secret = tmp_path / "secret"
    secret.write_text("hush")
    (home(embedded) / "way-out").symlink_to(tmp_path)
    (home(embedded) / "link-out").symlink_to(secret)
    batch = f"put {source} there\nls -la\nrename there moved\nget moved {tmp_path}/back\nmkdir d\nrmdir d\n"
    assert sftp(embedded, batch).returncode == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    for path in (
        str(secret),
        "../machine.json",
        "way-out/secret",
        "link-out",
        str(home(embedded).parent / "host_key"),
    ):
        answer = sftp(embedded, f"get {path} {tmp_path}/stolen\n")
        assert answer.returncode != 0, path
        assert not (tmp_path / "stolen").exists()
    assert sftp(embedded, f"put {source} way-out/planted\n").returncode != 0
    assert not (tmp_path / "planted").exists()


def test_scp(embedded: EmbeddedServer, tmp_path: Path) -> None:
    source = tmp_path / "a file"
    source.write_bytes(b"content")
    for flags in ((), ("-O",)):  # SFTP, and the protocol before it
        answer = client("scp", embedded, *flags, str(source), f"{embedded.address.host}:copy")
        assert answer.returncode == 0, (flags, answer.stderr)
        assert (home(embedded) / "copy").read_bytes() == b"content"
        (home(embedded) / "copy").unlink()


def test_another_key_does_not_open_it(embedded: EmbeddedServer, tmp_path: Path) -> None:
    make_key(tmp_path / "other", comment="")
    answer = client("ssh", embedded, embedded.address.host, "true", key=tmp_path / "other")
    assert answer.returncode == 255
    assert "Permission denied" in answer.stderr


def test_detached_work_outlives_session_and_server(own: EmbeddedServer, tmp_path: Path) -> None:
    shell = connect(own.address, own.settings, machine="box")
    work = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo done > {tmp_path}/result"
    shell.run(f"setsid sh -c {shlex.quote(work)} >/dev/null 2>&1 </dev/null &")
    os.kill(own.pid, signal.SIGKILL)
    until(lambda: own.provider.describe(own.machine).state is MachineState.STOPPED)
    (tmp_path / "go").touch()
    until((tmp_path / "result").exists)


def test_work_that_is_not_detached_ends_with_its_session(embedded: EmbeddedServer, shell: Shell) -> None:
    stream = shell.open("echo $$; exec cat")
    pid = int(stream.stdout.readline())
    assert processes.start_mark(pid)
    stream.close()
    until(lambda: not processes.start_mark(pid))


def test_it_comes_back_on_its_key_and_port(own: EmbeddedServer) -> None:
    (home(own) / "disk").write_text("kept")
    before = own.address
    os.kill(own.pid, signal.SIGKILL)
    until(lambda: own.provider.describe(own.machine).state is MachineState.STOPPED)
    own.restart()
    assert own.address == before
    assert connect(own.address, own.settings, machine="box").run("cat disk").text == "kept"


def test_it_takes_another_port_where_the_old_one_is_taken(own: EmbeddedServer) -> None:
    own.provider.stop(own.machine)
    with socket.create_server((own.address.host, own.address.port)):
        before = own.address
        own.restart()
    assert own.address.port != before.port
    assert own.address.host_key == before.host_key
    assert connect(own.address, own.settings, machine="box").run("true")


def test_two_servers_cannot_serve_one_machine(own: EmbeddedServer) -> None:
    folder = home(own).parent
    second = subprocess.run(
        [sys.executable, "-m", "cloudrun.server", "--machine", folder], timeout=60, check=False
    )
    assert second.returncode == 0
    live = MachineFolder(folder).live_server()
    assert live
    assert live.pid == own.pid


def test_started_by_hand_it_leaks_nothing_either(own: EmbeddedServer) -> None:
    own.provider.stop(own.machine)
    folder = MachineFolder(home(own).parent)
    server = subprocess.Popen(
        [sys.executable, "-m", "cloudrun.server", "--machine", folder.path],
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "hush"},
    )
    until(lambda: folder.live_server() is not None)
    assert "hush" not in connect(own.address, own.settings, machine="box").run("env").text
    server.terminate()
    assert server.wait() == 0


def test_the_machine_switches_itself_off(own: EmbeddedServer) -> None:
    shell = connect(own.address, own.settings, machine="box")
    command = shlex.join(own.provider.release_command(own.machine))
    shell.run("setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > sleeper")
    sleeper = int((home(own) / "sleeper").read_text())
    shell.run(f"setsid {command} >/dev/null 2>&1 </dev/null &")
    until(lambda: own.provider.describe(own.machine).state is MachineState.STOPPED)
    until(lambda: not processes.start_mark(sleeper))
    assert own.provider.describe(own.machine).ended_at is not None
    own.restart()
    assert connect(own.address, own.settings, machine="box").run("cat sleeper").text == str(sleeper)


def test_a_pid_alone_is_nobody() -> None:
    child = subprocess.Popen(["sleep", "100"])
    mark = processes.start_mark(child.pid)
    assert processes.alive(child.pid, mark)
    assert not processes.alive(child.pid, mark + "0")
    assert not processes.alive(os.getpid(), mark)
    child.kill()
    until(lambda: not processes.alive(child.pid, mark))  # a zombie is gone already
    child.wait()
    assert not processes.alive(child.pid, "")


def test_processes_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """macOS has no /proc: `ps` tells the same."""
    own = os.getpid()
    monkeypatch.setattr(processes, "_has_proc", lambda: False)
    mark = processes.start_mark(own)
    assert mark
    assert processes.alive(own, mark)
    assert os.getppid() in processes.ancestors(own)
    assert processes.start_mark(2**22) == ""


def home(server: EmbeddedServer) -> Path:
    return server.settings.machines_dir.resolve() / "box" / "home"


def until(condition: object, *, within_s: float = 90) -> None:
    """What happens in a process that is not our child can only be asked for."""
    deadline = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def client(
    program: str,
    server: EmbeddedServer,
    *arguments: str,
    key: Path | None = None,
    input: str = "",
) -> subprocess.CompletedProcess[str]:
    connect(server.address, server.settings, machine="box")  # writes known_hosts
    known = server.settings.keys_dir / "box" / "known_hosts"
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
    options += ["-o", "IdentityAgent=none", "-i", str(key or server.address.key_path)]
    port = "-p" if program == "ssh" else "-P"
    return subprocess.run(
        [program, *options, port, str(server.address.port), *arguments],
        input=input,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def sftp(server: EmbeddedServer, batch: str) -> subprocess.CompletedProcess[str]:
    return client("sftp", server, "-b", "-", server.address.host, input=batch)


class master_of_pty:  # noqa: N801  # reads as the function that it is
    """An asyncssh client with a terminal; it knows how to change its window's size."""

    def __init__(self, server: EmbeddedServer, command: str) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._server, self._command = server, command

    def __enter__(self) -> master_of_pty:
        address = self._server.address
        self._connection = self._wait(
            asyncssh.connect(
                address.host,
                address.port,
                username=address.user,
                client_keys=[str(address.key_path)],
                known_hosts=None,
                config=None,
                agent_path=None,
            )
        )
        self._process = self._wait(
            self._connection.create_process(
                self._command, term_type="xterm", term_size=(80, 24), encoding=None
            )
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()
        self._wait(self._connection.wait_closed())
        self._loop.close()

    def say(self, data: bytes) -> None:
        self._process.stdin.write(data)

    def resize(self, rows: int, columns: int) -> None:
        self._process.change_terminal_size(columns, rows)

    def until(self, wanted: bytes) -> bool:
        said = b""
        while wanted not in said:
            chunk = self._wait(self._process.stdout.read(1000))
            assert chunk, said
            said += chunk
        return True

    def ended(self) -> int:
        return self._wait(self._process.wait()).exit_status  # type: ignore[no-any-return]

    def _wait(self, awaitable):  # type: ignore[no-untyped-def]
        import asyncio

        return self._loop.run_until_complete(asyncio.wait_for(awaitable, 30))
