"""Outputs on their way home: verified, only what differs, and never outside the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exhaustive import exhaustive
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from localmachine import LocalShell, follow_to_end, start_script

from cloudrun.errors import ConnectionLost, TransferFailed
from cloudrun.models import BundleFile
from cloudrun.remote import agentlink, process, transfer
from cloudrun.remote.landing import Landing, checked_files, read_file_row, stays_inside

KEY = "aaaa2222.1"


@pytest.fixture
def outputs(machine: LocalShell) -> Path:
    """The outputs folder of a run that has ended, to be filled by the test."""
    start_script(machine, "true")
    follow_to_end(machine)
    return machine.run_dir(KEY) / "code" / "outputs"


def test_odd_names_come_home(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    names = [
        b"plain",
        b"with space",
        b"line\nbreak",
        b"\xff\xfe",
        b"\xc3\xa9",
        b"-rf",
        b"a:b*?",
        b"\x1b[31m",
        b"deep/er/x",
    ]
    for index, name in enumerate(names):
        path = outputs / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % index)
    result = transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert (result.files, result.skipped) == (len(names), ())
    for index, name in enumerate(names):
        assert (tmp_path / "to" / os.fsdecode(name)).read_bytes() == b"%d" % index
    listed = {os.fsencode(file.path) for file in transfer.list_outputs(machine, KEY)}
    assert listed == set(names)


def test_only_what_differs_travels(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    for index in range(20):
        (outputs / f"f{index}").write_bytes(os.urandom(1000))
    assert transfer.pull_outputs(machine, KEY, tmp_path / "to").bytes_received == 20_000
    assert transfer.pull_outputs(machine, KEY, tmp_path / "to").bytes_received == 0
    (outputs / "f3").write_bytes(b"new")
    (tmp_path / "to" / "f4").write_bytes(os.urandom(1000))  # damaged at home
    result = transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert (result.files, result.bytes, result.bytes_received) == (20, 19_003, 1003)
    assert (tmp_path / "to" / "f4").read_bytes() == (outputs / "f4").read_bytes()
    assert not (tmp_path / "to" / ".cloudrun-partial").exists()


def test_a_prefix_brings_that_part_alone(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    for name in ("checkpoint/model", "checkpoint/deep/state", "checkpoints/other", "log"):
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        (outputs / name).write_text(name)
    transfer.pull_outputs(machine, KEY, tmp_path / "to", prefix="checkpoint/")
    found = sorted(
        str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*") if path.is_file()
    )
    assert found == ["checkpoint/deep/state", "checkpoint/model"]
    assert [file.path for file in transfer.list_outputs(machine, KEY, prefix="lo")] == ["log"]


def test_a_cut_pull_goes_on(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    for index in range(4):
        (outputs / f"f{index}").write_bytes(os.urandom(1_000_000))
    machine.cut_after["received"] = 2_500_000
    with pytest.raises(ConnectionLost):
        transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [".cloudrun-partial", "f0", "f1"]
    result = transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert 1_000_000 < result.bytes_received < 2_000_000
    for index in range(4):
        assert (tmp_path / "to" / f"f{index}").read_bytes() == (outputs / f"f{index}").read_bytes()
    assert not (tmp_path / "to" / ".cloudrun-partial").exists()


def test_symlinks_inside_come_along_and_others_are_named(
    machine: LocalShell, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "d").mkdir()
    (outputs / "best").symlink_to("d/model")
    (outputs / "d" / "model").write_text("m")
    (outputs / "d" / "up").symlink_to("../best")
    (outputs / "out").symlink_to("../../spec.json")
    (outputs / "abs").symlink_to("/etc/passwd")
    (outputs / "dirlink").symlink_to("/etc")
    os.mkfifo(outputs / "fifo")
    result = transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert sorted(result.skipped) == ["abs", "dirlink", "out"]
    assert (tmp_path / "to" / "best").read_text() == (tmp_path / "to" / "d" / "up").read_text() == "m"
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["best", "d"]
    assert transfer.pull_outputs(machine, KEY, tmp_path / "to").bytes_received == 0


def test_what_was_a_symlink_and_is_a_folder_now(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "d").symlink_to(elsewhere)
    (tmp_path / "to" / "f").symlink_to(elsewhere / "target")
    (outputs / "d").mkdir()
    (outputs / "d" / "x").write_text("x")
    (outputs / "f").write_text("f")
    transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "to" / "d" / "x").read_text() == "x"
    assert (tmp_path / "to" / "f").read_text() == "f"


def test_a_folder_in_the_way_of_a_file_is_named(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "to" / "f").mkdir(parents=True)
    (outputs / "f").write_text("f")
    with pytest.raises(TransferFailed, match="'f'"):
        transfer.pull_outputs(machine, KEY, tmp_path / "to")


def test_a_file_that_grows_comes_as_it_was(machine: LocalShell, tmp_path: Path) -> None:
    start_script(machine, "cd $CLOUDRUN_OUTPUT_DIR; while [ ! -e $HOME/stop ]; do echo line >> events; done")
    while not transfer.list_outputs(machine, KEY):
        pass
    for _ in range(3):
        transfer.pull_outputs(machine, KEY, tmp_path / "to")
        assert set((tmp_path / "to" / "events").read_bytes().split()) == {b"line"}
    (machine.home / "stop").touch()
    follow_to_end(machine)
    transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert (tmp_path / "to" / "events").read_bytes() == (
        machine.run_dir(KEY) / "code/outputs/events"
    ).read_bytes()


def test_a_checkpoint_that_is_replaced_all_the_time_comes_whole(machine: LocalShell, tmp_path: Path) -> None:
    start_script(
        machine,
        """mkdir $CLOUDRUN_OUTPUT_DIR/checkpoint; cd $CLOUDRUN_OUTPUT_DIR/checkpoint; i=0
        while [ ! -e $HOME/stop ]; do
            i=$((i+1)); { for j in 1 2 3 4 5 6 7 8; do echo $i; done; } > new
            mv new model; sleep 0.1; done""",
    )
    while not any(file.path == "checkpoint/model" for file in transfer.list_outputs(machine, KEY)):
        pass
    for _ in range(4):
        transfer.pull_outputs(machine, KEY, tmp_path / "to", prefix="checkpoint/model")
        lines = (tmp_path / "to" / "checkpoint" / "model").read_text().split()
        assert len(lines) == 8
        assert len(set(lines)) == 1
    (machine.home / "stop").touch()
    follow_to_end(machine)


def test_a_file_rewritten_within_its_time_stamp_is_not_taken_from_the_cache(
    machine: LocalShell, outputs: Path, tmp_path: Path
) -> None:
    (outputs / "f").write_text("one")
    stamp = (outputs / "f").stat().st_mtime_ns
    transfer.pull_outputs(machine, KEY, tmp_path / "to")
    (outputs / "f").write_text("two")
    os.utime(outputs / "f", ns=(stamp, stamp))
    transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert (tmp_path / "to" / "f").read_text() == "two"


def test_ten_thousand_files(machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    for folder in range(100):
        (outputs / f"d{folder}").mkdir()
        for index in range(100):
            (outputs / f"d{folder}" / f"f{index}").write_bytes(b"%d/%d" % (folder, index))
    result = transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert result.files == 10_000
    assert (tmp_path / "to" / "d99" / "f99").read_bytes() == b"99/99"
    assert transfer.pull_outputs(machine, KEY, tmp_path / "to").bytes_received == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [2**28 + 1, *exhaustive(2**31 + 1)])
def test_a_big_file_in_constant_memory(size: int, machine: LocalShell, outputs: Path, tmp_path: Path) -> None:
    with (outputs / "big").open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"in the middle")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        assert transfer.pull_outputs(machine, KEY, tmp_path / "to").bytes_received == size
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 64 * 1024
        assert (tmp_path / "to" / "big").stat().st_size == size
    finally:
        (tmp_path / "to" / "big").unlink(missing_ok=True)


# --- hostile machines --------------------------------------------------------------------


def row(path: Any, data: bytes = b"", link: Any = "", **other: Any) -> list[Any]:
    sha256 = "" if link else hashlib.sha256(data).hexdigest()
    fields = {"path": path, "size": len(data), "mode": 0o644, "sha256": sha256, "link": link} | other
    return [fields[name] for name in ("path", "size", "mode", "sha256", "link")]


HOSTILE = {
    "absolute": [row("/tmp/evil")],
    "parent": [row("../evil")],
    "parent inside": [row("a/../../evil")],
    "dot": [row("./evil")],
    "empty": [row("")],
    "trailing slash": [row("evil/")],
    "double slash": [row("a//evil")],
    "NUL": [row("a\0b")],
    "twice": [row("a"), row("a")],
    "file and folder": [row("a"), row("a/b")],
    "write through a symlink": [row("a", link="/tmp"), row("a/evil")],
    "link of a link": [row("a/b", link=".."), row("a/b/c/d")],
    "our own folder": [row(".cloudrun-partial/" + "0" * 64)],
    "lone surrogate": [row("\ud800")],
    "checksum with a path": [row("a", sha256="../" * 21 + "x")],
    "no checksum": [row("a", sha256="")],
    "checksum and target": [row("a", link="b", sha256="0" * 64)],
    "negative size": [row("a", size=-1)],
    "size as text": [row("a", size="1")],
    "true as size": [row("a", size=True)],
    "name as number": [row(7)],
    "too few fields": [["a", 1]],
    "no list": {"a": 1},
    "null": None,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_lists_are_refused(case: str) -> None:
    with pytest.raises(TransferFailed):
        checked_files(HOSTILE[case])


class Says:
    """A source that says exactly that."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        if len(self.data) < size:
            raise ConnectionLost("ended")
        data, self.data = self.data[:size], self.data[size:]
        return data


def chunks(*pieces: bytes) -> bytes:
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces) + bytes(4)


def land(to: Path, file: BundleFile, said: bytes) -> bool:
    with Landing(to) as landing:
        [(wanted, offset)] = landing.find_missing([file])
        return landing.take(wanted, offset, Says(said).read, lambda _: None)


FILE = checked_files([row("f", b"right")])[0]


def test_content_lands_when_it_is_right(tmp_path: Path) -> None:
    assert land(tmp_path, FILE, chunks(b"ri", b"ght"))
    assert (tmp_path / "f").read_bytes() == b"right"


@pytest.mark.parametrize(
    "said", [chunks(b"right", b"!"), chunks(b"right and more"), b"\xff\xff\xff\xff" + b"x" * 99]
)
def test_more_content_than_announced_is_refused(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(TransferFailed):
        land(tmp_path, FILE, said)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("said", [chunks(b"wrong"), chunks(b"rig"), chunks()])
def test_content_that_is_not_right_never_lands_and_is_asked_for_again(tmp_path: Path, said: bytes) -> None:
    assert not land(tmp_path, FILE, said)
    assert not (tmp_path / "f").exists()
    assert land(tmp_path, FILE, chunks(b"right"))


def test_a_file_whose_disk_lies_is_refused_in_the_end(
    machine: LocalShell, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "f").write_bytes(b"right")
    source = agentlink.agent_source() + b"\ndef hash_open(file, size):\n    return size, 'ab' * 32\n"
    monkeypatch.setattr(agentlink, "agent_source", lambda: source)
    monkeypatch.setattr(agentlink, "agent_name", lambda: "agent-lies")
    with pytest.raises(TransferFailed, match="checksums"):
        transfer.pull_outputs(machine, KEY, tmp_path / "to")
    assert not (tmp_path / "to" / "f").exists()


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", chunks(b"[1]"), chunks(b"nonsense"), chunks(b'[-1, 0, "x"]')]
)
def test_a_hostile_description_of_a_file_is_refused(said: bytes) -> None:
    with pytest.raises(TransferFailed):
        read_file_row("f", Says(said).read)


def test_a_file_that_is_gone_is_no_error() -> None:
    assert read_file_row("f", Says(chunks()).read) is None


def test_privileged_mode_bits_stay_behind(tmp_path: Path) -> None:
    assert land(tmp_path, checked_files([row("f", b"right", mode=0o6777)])[0], chunks(b"right"))
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755


def test_a_partial_folder_that_is_a_symlink_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / ".cloudrun-partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((TransferFailed, OSError)):
        land(tmp_path / "to", FILE, chunks(b"right"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    }


parts = st.sampled_from(["a", "b", "c", "..", ".", "", "/", "\0", ".cloudrun-partial"])
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)
CONTENTS = {hashlib.sha256(data).hexdigest(): data for data in (b"", b"1", b"22")}
rows = st.builds(row, paths, st.sampled_from(sorted(CONTENTS.values()))) | st.builds(row, paths, link=paths)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listings=st.lists(st.lists(rows, max_size=5), min_size=1, max_size=3))
@example(listings=[[row("a/b", link="..")], [row("c", link="a/b/../..")], [row("c/x", b"1")]])
@example(listings=[[row("a", link="b")], [row("b", link="..")], [row("a/x", b"1")]])
def test_no_listing_whatever_writes_outside(
    listings: list[list[list[Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("pull")
    to = base / "in" / "to"
    to.mkdir(parents=True)
    (base / "in" / "witness").write_bytes(b"untouched")
    for listing in listings:
        try:
            files = checked_files(listing)
        except TransferFailed:
            continue
        with Landing(to) as landing:
            for file, offset in landing.find_missing([file for file in files if not file.link]):
                data = CONTENTS[file.sha256]
                try:
                    landing.take(file, offset, Says(chunks(data) if data else chunks()).read, lambda _: None)
                except TransferFailed:
                    landing.sweep()
            landing.make_links([file for file in files if file.link])
        for path in to.rglob("*"):
            if path.is_symlink():
                assert loops(path) or path.resolve().is_relative_to(to.resolve())
    outside = {path: data for path, data in tree(base).items() if not path.startswith(f"{to}/")}
    assert outside == {str(base / "in" / "witness"): b"untouched"}


def loops(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


@pytest.mark.parametrize(
    ("path", "link", "inside"),
    [
        ("a", "b", True),
        ("a", "b/c", True),
        ("a", "..", False),
        ("d/a", "..", True),
        ("d/a", "../b", True),
        ("d/a", "../../b", False),
        ("d/a", "b/../../..", False),
        ("d/a", "/etc", False),
        ("d/a", "", False),
        ("d/a", "x/../y", False),
    ],
)
def test_which_symlinks_stay_inside(path: str, link: str, inside: bool) -> None:
    assert stays_inside(path, link) is inside


@pytest.fixture
def hostile(machine: LocalShell, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], LocalShell]:
    """The machine with another agent, which lists what the test says."""

    def make(listing: list[Any]) -> LocalShell:
        source = agentlink.agent_source() + (
            b"\ndef manifest():\n    read_request()\n    reply({'files': %r, 'skipped': []})\n" % listing
        )
        monkeypatch.setattr(agentlink, "agent_source", lambda: source)
        monkeypatch.setattr(agentlink, "agent_name", lambda: "agent-evil")
        return machine

    return make


def test_a_hostile_agent_gets_nothing_written(
    hostile: Callable[[list[Any]], LocalShell], tmp_path: Path
) -> None:
    machine = hostile([row("good", b"x"), row("../evil", b"x")])
    for action in (transfer.list_outputs, lambda *a: transfer.pull_outputs(*a, tmp_path / "to")):
        with pytest.raises(TransferFailed, match="evil"):
            action(machine, KEY)
    assert not (tmp_path / "evil").exists()
    assert process.list_runs(machine) == {}
