"""What every shell promises, held by both of ours against both servers."""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers import EmbeddedServer, OpenSshServer

from cloudrun.config import Settings
from cloudrun.errors import CommandFailed, ConnectFailed, ConnectionLost, HostKeyMismatch
from cloudrun.keys import make_key
from cloudrun.remote.connect import connect
from cloudrun.remote.shell import DEAD_PEER_S, Shell, Stream

AnyServer = EmbeddedServer | OpenSshServer
EVERY_BYTE = bytes(range(256))
LARGE = EVERY_BYTE * 20_000  # 5 MB


def test_output_is_exact_to_the_byte(shell: Shell) -> None:
    result = shell.run("head -c 256; cat >&2", input=EVERY_BYTE + EVERY_BYTE[::-1])
    assert result.exit_code == 0
    # head may have read more than it passed on, as its pipe allows; what it passed on is exact
    assert result.stdout == EVERY_BYTE
    assert EVERY_BYTE[::-1].endswith(result.stderr)


def test_streams_are_kept_apart(shell: Shell) -> None:
    result = shell.run("printf 'a\\0b'; printf 'c\\0d' >&2")
    assert (result.stdout, result.stderr) == (b"a\0b", b"c\0d")


def test_five_megabytes_each_way(shell: Shell) -> None:
    assert shell.run("cat", input=LARGE).stdout == LARGE
    assert shell.run("cat >&2", input=LARGE).stderr == LARGE


def test_input_that_nobody_reads(shell: Shell) -> None:
    assert shell.run("exec <&-; echo done", input=LARGE).text == "done"
    assert shell.run("true", input=LARGE).exit_code == 0


def test_no_input_is_an_empty_one(shell: Shell) -> None:
    assert shell.run("wc -c").text.strip() == "0"


def test_every_exit_code(shell: Shell) -> None:
    for code in (0, 1, 2, 75, 126, 127, 128, 137, 254, 255):
        assert shell.run(f"exit {code}", check=False).exit_code == code


@pytest.mark.parametrize(("name", "number"), [("TERM", 15), ("KILL", 9), ("HUP", 1)])
def test_a_command_that_dies_by_a_signal_is_not_a_lost_connection(
    shell: Shell, name: str, number: int
) -> None:
    assert shell.run(f"kill -{name} $$", check=False).exit_code == 128 + number


def test_a_failed_command_carries_its_result(shell: Shell) -> None:
    with pytest.raises(CommandFailed, match="no such luck") as caught:
        shell.run("echo out; echo no such luck >&2; exit 255")
    assert caught.value.result.exit_code == 255
    assert caught.value.result.stdout == b"out\n"


def test_a_command_is_for_sh_whatever_stands_in_it(shell: Shell, tmp_path: Path) -> None:
    name = "a 'quoted' \"name\"\twith $HOME, `x`, ! and \\ and\nnewline é"
    assert shell.run(f"printf %s {shlex.quote(name)}").stdout == name.encode()
    assert shell.run("cat <<END\nhere\nEND\n").text == "here"


def test_a_command_may_take_only_so_long(shell: Shell) -> None:
    with pytest.raises(ConnectionLost, match="time"):
        shell.run("echo begun; exec sleep 60", timeout_s=0.3)
    assert shell.run("echo still here", timeout_s=60).text == "still here"


@pytest.mark.parametrize("count", [8, 25])  # 25: beyond the 10 sessions that sshd allows a connection
def test_many_commands_at_once(shell: Shell, count: int) -> None:
    """All are there before the first one may end, whichever thread asked for them."""

    def start(number: int) -> Stream:
        stream = shell.open(f"echo {number}; read -r line; exit {number}")
        assert stream.stdout.readline() == b"%d\n" % number
        return stream

    with ThreadPoolExecutor(8) as pool, ExitStack() as streams:
        started = [streams.enter_context(stream) for stream in pool.map(start, range(count))]
        assert [shell.run(f"echo {number}").text for number in range(3)] == ["0", "1", "2"]
        for number, stream in enumerate(started):
            stream.stdin.write(b"go\n")
            assert stream.wait().exit_code == number


def test_a_stream_talks_both_ways(shell: Shell) -> None:
    with shell.open("while read -r line; do echo got $line; done; exit 7") as stream:
        for word in (b"one", b"two"):
            stream.stdin.write(word + b"\n")
            assert stream.stdout.readline() == b"got " + word + b"\n"
        stream.close_stdin()
        assert stream.stdout.read() == b""
        assert stream.wait().exit_code == 7


def test_a_stream_of_five_megabytes_each_way(shell: Shell) -> None:
    with shell.open("cat") as stream:
        writer = threading.Thread(target=lambda: (stream.stdin.write(LARGE), stream.close_stdin()))
        writer.start()
        assert stream.stdout.read() == LARGE
        writer.join()
        assert stream.wait()


def test_a_stream_keeps_the_end_of_a_long_stderr(shell: Shell) -> None:
    with shell.open("head -c 3000000 /dev/zero >&2; echo the end >&2; echo out") as stream:
        assert stream.stdout.read() == b"out\n"
        result = stream.wait()
    assert result.stderr.endswith(b"the end\n")
    assert len(result.stderr) == 64 * 1024


def test_writing_to_a_command_that_ended_is_no_lost_connection(shell: Shell) -> None:
    with shell.open("exit 4") as stream:
        assert stream.wait().exit_code == 4
        with pytest.raises(BrokenPipeError):
            stream.stdin.write(LARGE)


def test_waiting_for_a_stream_has_a_limit(shell: Shell) -> None:
    with shell.open("read -r line") as stream:
        with pytest.raises(ConnectionLost, match="time"):
            stream.wait(0.2)
        stream.close_stdin()
        assert stream.wait().exit_code == 1


def test_a_stream_can_be_dropped_at_any_time(shell: Shell) -> None:
    stream = shell.open("cat /dev/zero")
    stream.stdout.read(1000)
    stream.close()
    stream.close()
    assert shell.run("echo still here").text == "still here"


@pytest.mark.parametrize("chosen", [False, True], ids=["any-port", "chosen-port"])
def test_forwarding_a_port(shell: Shell, chosen: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = free_port() if chosen else 0
        with shell.forward(port, far.getsockname()[1]) as local:
            assert local == port or not chosen
            for _ in range(2):
                near = socket.create_connection(("127.0.0.1", local))
                peer, _ = far.accept()
                with near, peer:
                    near.sendall(LARGE[:100_000])
                    near.shutdown(socket.SHUT_WR)  # each direction ends by itself, as with a plain socket
                    assert read_all(peer) == LARGE[:100_000]
                    peer.sendall(LARGE)
                    peer.shutdown(socket.SHUT_WR)
                    assert read_all(near) == LARGE
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", local), 5)


def test_forwarding_a_port_that_is_taken(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectFailed, match=str(port)), shell.forward(port, 1):
            pass


def test_forwarding_to_nobody(shell: Shell) -> None:
    with shell.forward(0, free_port()) as local, socket.create_connection(("127.0.0.1", local)) as near:
        assert near.recv(1) == b""
    assert shell.run("echo still here").text == "still here"


def test_a_machine_that_died_and_came_back(own_server: AnyServer, own_shell: Shell) -> None:
    assert own_shell.run("echo before").text == "before"
    own_server.cut()
    with pytest.raises((ConnectFailed, ConnectionLost)):
        own_shell.run("true")
    own_server.restart()
    again = own_shell if own_server.address == own_shell.address else None
    assert again is not None, "the server came back elsewhere"
    assert again.run("echo after").text == "after"


@pytest.mark.parametrize("way", ["run", "read", "wait", "write"])
def test_a_connection_that_dies_under_a_command(own_server: AnyServer, own_shell: Shell, way: str) -> None:
    begun, lost = threading.Event(), []
    thread = losing(own_shell, way, begun, lost)
    assert begun.wait(60)
    own_server.cut()
    thread.join(DEAD_PEER_S)
    assert [type(error) for error in lost] == [ConnectionLost]
    assert lost[0].hint


@pytest.mark.slow
@pytest.mark.parametrize("combination", [("embedded", "openssh"), ("sshd", "paramiko")], indirect=True)
def test_a_frozen_machine_is_noticed(own_server: AnyServer, own_shell: Shell) -> None:
    ways = ("run", "read", "wait", "write")
    began = [threading.Event() for _ in ways]
    lost: list[BaseException] = []
    threads = [losing(own_shell, way, begun, lost) for way, begun in zip(ways, began, strict=True)]
    assert all(begun.wait(60) for begun in began)
    own_server.freeze()
    limit = threading.Event()
    timer = threading.Timer(DEAD_PEER_S, limit.set)
    timer.start()
    for thread in threads:
        thread.join(DEAD_PEER_S * 3)
    assert not limit.is_set(), "noticed, but too late"
    timer.cancel()
    assert [type(error) for error in lost] == [ConnectionLost] * 4
    own_server.thaw()
    assert own_shell.run("echo back").text == "back"


def test_somebody_else_answers(server: AnyServer, shell_settings: Settings, tmp_path: Path) -> None:
    make_key(tmp_path / "other", comment="")
    settings = dataclasses.replace(shell_settings, home=tmp_path)
    liar = dataclasses.replace(server.address, host_key=(tmp_path / "other.pub").read_text())
    with pytest.raises(HostKeyMismatch) as caught:
        connect(liar, settings, machine="box").run("true")
    assert caught.value.hint


def test_a_key_that_the_machine_does_not_know(
    server: AnyServer, shell_settings: Settings, tmp_path: Path
) -> None:
    make_key(tmp_path / "other", comment="")
    stranger = dataclasses.replace(server.address, key_path=tmp_path / "other")
    with pytest.raises(ConnectFailed) as caught:
        connect(stranger, shell_settings, machine="box").run("true")
    assert "key" in caught.value.hint


def test_a_key_that_is_missing(server: AnyServer, shell_settings: Settings, tmp_path: Path) -> None:
    lost = dataclasses.replace(server.address, key_path=tmp_path / "none")
    with pytest.raises(ConnectFailed, match="none"):
        connect(lost, shell_settings, machine="box").run("true")


def test_nobody_listens(server: AnyServer, shell_settings: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(shell_settings, home=tmp_path)
    nobody = dataclasses.replace(server.address, port=free_port())
    for attempt in (lambda s: s.run("true"), lambda s: s.open("true"), lambda s: s.interactive("true")):
        with pytest.raises(ConnectFailed, match="refused") as caught:
            attempt(connect(nobody, settings, machine="box"))
        assert "machines list" in caught.value.hint


def test_paths_with_spaces_and_percent_signs(
    server: AnyServer, shell_settings: Settings, tmp_path: Path
) -> None:
    odd = tmp_path / "my 100% home"
    key = odd / "a key %h"
    key.parent.mkdir()
    key.write_bytes(server.address.key_path.read_bytes())
    key.chmod(0o600)
    settings = dataclasses.replace(shell_settings, home=odd)
    shell = connect(dataclasses.replace(server.address, key_path=key), settings, machine="box")
    assert shell.run("echo fine").text == "fine"
    shell.close()


def losing(shell: Shell, way: str, begun: threading.Event, lost: list[BaseException]) -> threading.Thread:
    """A thread that is in the middle of a command when the connection goes, and what it raised."""

    def read() -> None:
        with shell.open("echo begun; cat") as stream:
            assert stream.stdout.readline() == b"begun\n"
            begun.set()
            stream.stdout.read()

    def wait() -> None:
        with shell.open("echo begun; cat") as stream:
            assert stream.stdout.readline() == b"begun\n"
            begun.set()
            stream.wait()

    def write() -> None:
        with shell.open("echo begun; cat >/dev/null") as stream:
            assert stream.stdout.readline() == b"begun\n"
            begun.set()
            while True:
                stream.stdin.write(LARGE)

    def run() -> None:
        with shell.open("mktemp -u") as stream:
            mark = stream.stdout.read().decode().strip()
        watcher = threading.Thread(target=lambda: (await_file(Path(mark)), begun.set()))
        watcher.start()
        shell.run(f": > {mark}; exec sleep 60")

    def go(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # the thread's own outcome, for the test to judge
            lost.append(error)

    work = {"run": run, "read": read, "wait": wait, "write": write}[way]
    thread = threading.Thread(target=go, args=(work,))
    thread.start()
    return thread


def await_file(path: Path) -> None:
    while not path.exists():
        os.sched_yield()
    path.unlink()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while chunk := connection.recv(1 << 20):
        data += chunk
    return data


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
