"""Following a run over a line that breaks: nothing lost, nothing repeated, little delay."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from localmachine import LocalShell, follow_to_end, start_script, wait_for

from cloudrun.errors import CloudrunError, ConnectionLost, RemoteError, TransferFailed
from cloudrun.remote import agentlink, process
from cloudrun.remote.process import LogChunk, Metric, ProcessState, StateChange

KEY = "aaaa2222.1"


def test_a_log_followed_over_fifty_cuts_is_the_same_byte_for_byte(machine: LocalShell) -> None:
    start_script(
        machine,
        "i=0; while [ $i -lt 400 ]; do echo line $i of many; i=$((i+1)); done\n"
        "head -c 300000 /dev/urandom; echo end",
    )
    log, cuts, draw = b"", 0, random.Random(50)
    status = None
    while status is None:
        if cuts < 50:
            machine.cut_after["received"] = draw.randrange(30, 12000)
        try:
            for item in process.follow(machine, KEY, log_offset=len(log)):
                if isinstance(item, LogChunk):
                    assert item.offset == len(log)
                    log += item.data
                elif isinstance(item, StateChange) and item.status.state is ProcessState.ENDED:
                    status = item.status
        except ConnectionLost:
            cuts += 1
    assert cuts == 50
    assert log == (machine.run_dir(KEY) / "log").read_bytes()
    assert status.log_bytes == len(log)


def test_states_come_in_order_and_ended_is_last(machine: LocalShell) -> None:
    start_script(machine, "until [ -e $HOME/go ]; do sleep 0.02; done", key="first.1")
    start_script(machine, "echo mine")
    seen = []
    for item in process.follow(machine, KEY, log_offset=0):
        seen.append(item.status.state if isinstance(item, StateChange) else item)
        if seen[-1] is ProcessState.QUEUED:
            (machine.home / "go").touch()
    assert seen[0] is ProcessState.QUEUED
    assert seen[-1] is ProcessState.ENDED
    assert LogChunk(0, b"mine\n") in seen


def test_metrics_come_line_by_line_and_bad_lines_do_not(machine: LocalShell) -> None:
    start_script(
        machine,
        """cd $CLOUDRUN_OUTPUT_DIR; printf '{"epoch": 1}\\nnonsense\\n[1]\\n{"epoch": 2' > metrics.jsonl
        until [ -e $HOME/go ]; do sleep 0.02; done; printf '}\\n' >> metrics.jsonl""",
    )
    lines = []
    for item in process.follow(machine, KEY, log_offset=0):
        if isinstance(item, Metric):
            lines.append(item)
            (machine.home / "go").touch()
    assert [metric.line for metric in lines] == [{"epoch": 1}, {"epoch": 2}]
    again = process.follow(machine, KEY, log_offset=0, metric_offset=lines[0].offset)
    assert [item.line for item in again if isinstance(item, Metric)] == [{"epoch": 2}]


def test_metrics_written_anew_begin_again(machine: LocalShell) -> None:
    start_script(
        machine,
        """cd $CLOUDRUN_OUTPUT_DIR; printf '{"a": 1}\\n{"a": 2}\\n' > metrics.jsonl
        until [ -e $HOME/go ]; do sleep 0.02; done
        printf '{"b": 1}\\n' > new; mv new metrics.jsonl""",
    )
    lines = []
    for item in process.follow(machine, KEY, log_offset=0):
        if isinstance(item, Metric):
            lines.append(item.line)
            (machine.home / "go").touch()
    assert lines == [{"a": 1}, {"a": 2}, {"b": 1}]


def test_metrics_through_a_symlink_are_not_read(machine: LocalShell) -> None:
    (machine.home / "private").write_text('{"secret": 1}\n')
    start_script(machine, "ln -s $HOME/private $CLOUDRUN_OUTPUT_DIR/metrics.jsonl")
    assert not [item for item in process.follow(machine, KEY, log_offset=0) if isinstance(item, Metric)]


def test_an_offset_behind_the_log_is_an_error(machine: LocalShell) -> None:
    start_script(machine, "echo short")
    with pytest.raises(RemoteError, match="the log has"):
        follow_to_end(machine, offset=1000)


def test_a_silent_line_is_noticed(machine: LocalShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat is due every 5 s; with less patience than that the line seems dead."""
    monkeypatch.setattr(process, "DEAD_PEER_S", 0.3)
    start_script(machine, "sleep 60")
    with pytest.raises(ConnectionLost):
        follow_to_end(machine)


def test_the_agent_goes_when_the_client_has_gone(machine: LocalShell) -> None:
    start_script(machine, "echo up; sleep 60")
    link = agentlink.open_verb(
        machine, "follow", prologue=agentlink.pack({"key": KEY, "log_offset": 0, "metric_offset": 0})
    )
    link.read_frame()
    follower = link._stream.process
    link.close()
    assert follower.returncode == 0


def test_a_login_script_that_prints_is_skipped(machine: LocalShell) -> None:
    class Chatty(LocalShell):
        def open(self, command: str):
            return super().open("printf 'Welcome!\\0cloudrun\\0\\0cloudrun agent 1'; " + command)

    assert process.list_runs(Chatty(machine.home)) == {}


def test_a_login_script_that_never_stops_is_refused(machine: LocalShell) -> None:
    class Endless(LocalShell):
        def open(self, command: str):
            return super().open("yes; " + command)

    with pytest.raises(RemoteError, match="print without end"):
        process.list_runs(Endless(machine.home))


@pytest.mark.parametrize(
    ("command", "words"),
    [("exit 127", "no python3"), ("echo oh dear >&2; exit 3", "oh dear"), ("true", "exit code 0")],
)
def test_an_agent_that_does_not_start_is_explained(machine: LocalShell, command: str, words: str) -> None:
    class Broken(LocalShell):
        def open(self, _: str):
            return super().open(command)

    with pytest.raises(RemoteError, match=words):
        process.list_runs(Broken(machine.home))


def test_half_an_agent_is_never_put_in_place(machine: LocalShell) -> None:
    name, source = agentlink.agent_name(), agentlink.agent_source()
    command = agentlink._PUSH.format(name=name, size=len(source))
    assert machine.run(command, input=source[:1000], check=False).exit_code != 0
    assert not (machine.base / f"{name}.py").exists()
    assert process.list_runs(machine) == {}


class _Bytes:
    """A link's stream that says what a machine might say."""

    def __init__(self, data: bytes) -> None:
        self.stdout = os.fdopen(os.memfd_create("said"), "r+b")
        self.stdout.write(data)
        self.stdout.seek(0)

    def close(self) -> None:
        self.stdout.close()


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda kind, body: agentlink.FRAME.pack(kind, len(body)) + body,
        st.sampled_from([b"Z", b"E", b"S", b"M", b"L", b"H"]),
        st.binary(max_size=60)
        | st.builds(lambda value: json.dumps(value).encode(), st.dictionaries(st.text(), st.integers())),
    )
)
def test_whatever_a_machine_says_is_an_error_of_ours(data: bytes) -> None:
    stream = _Bytes(data)
    link = agentlink.Link(stream)
    with contextlib.suppress(CloudrunError):
        process._item(*link.read_frame())
    stream.stdout.seek(0)
    with pytest.raises(CloudrunError):
        link.read_json()
    stream.close()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text())))
def test_requests_survive_the_way(request_fields: dict) -> None:
    import zlib

    packed = agentlink.pack(request_fields)
    (size,) = agentlink.LENGTH.unpack(packed[:4])
    assert size == len(packed) - 4
    unpacked = json.loads(zlib.decompress(packed[4:]))
    assert {**request_fields, "now": unpacked["now"]} == unpacked


def test_pieces_that_do_not_join_are_refused() -> None:
    class Liar:
        def open(self, _: str) -> object:
            body = (7).to_bytes(8, "big") + b"x"
            stream = _Bytes(agentlink.MAGIC + agentlink.FRAME.pack(b"L", len(body)) + body)
            stream.stdin = io.BytesIO()
            return stream

    with pytest.raises(TransferFailed, match="do not join"):
        list(process.follow(Liar(), KEY, log_offset=0))


def test_lines_written_while_followed_arrive_before_the_run_ends(machine: LocalShell) -> None:
    start_script(machine, "for i in 1 2 3; do echo $i; until [ -e $HOME/go$i ]; do sleep 0.01; done; done")
    count = 0
    for item in process.follow(machine, KEY, log_offset=0):
        if isinstance(item, LogChunk):
            count += item.data.count(b"\n")
            (machine.home / f"go{count}").touch()
    assert count == 3
    wait_for(lambda: process.status(machine, KEY).exit_code == 0)
