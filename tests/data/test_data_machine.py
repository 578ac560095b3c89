"""Data on a machine: what travels, what a cut leaves, what a run sees, and what is fetched there."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from data_home import HORSES, read_tree, write_tree
from localmachine import LocalShell, make_bundle
from slowserver import serving

from cloudrun import datasets, datasets_remote
from cloudrun.config import Settings
from cloudrun.errors import ConnectionLost, TransferFailed
from cloudrun.remote import agentlink, datalink, transfer

Pack = Callable[[], bytes]


def see(machine: LocalShell, view: str, mount: str) -> dict[str, bytes]:
    return read_tree(Path(view) / mount)


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_a_dataset_travels_once_and_a_run_finds_it_beside_the_machines_own(
    settings: Settings, horses: Path, machine: LocalShell
) -> None:
    made, _ = datasets.add_folder(settings, "horses", horses)
    write_tree(machine.base / "data", {"mnist/file": b"own", "horses/other": b"own, but hidden by the given"})
    sent = datasets_remote.push(settings, machine, made.digest)
    assert sent.files_sent == len({*HORSES.values()})
    view = datalink.place(machine, "run.1", [("horses", made.digest), ("again", made.digest)])
    assert view == str(machine.run_dir("run.1") / "data")
    assert see(machine, view, "horses") == see(machine, view, "again") == HORSES
    assert see(machine, view, "mnist") == {"file": b"own"}
    assert names(view) == {"again", "horses", "mnist"}
    files = [path for path in (Path(view) / "horses").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
    before = machine.sent
    assert datasets_remote.push(settings, machine, made.digest).files_sent == 0
    assert machine.sent - before < 1000
    assert datalink.place(machine, "run.1", [("horses", made.digest)]) == view
    assert names(view) == {"horses", "mnist"}


def test_only_what_a_new_version_adds_travels(settings: Settings, horses: Path, machine: LocalShell) -> None:
    datasets_remote.push(settings, machine, datasets.add_folder(settings, "horses", horses)[0].digest)
    (horses / "black.png").write_bytes(b"black")
    second, _ = datasets.add_folder(settings, "horses", horses)
    assert datasets_remote.push(settings, machine, second.digest).bytes_sent == len(b"black")


def test_a_cut_push_goes_on_where_it_stopped(settings: Settings, tmp_path: Path, machine: LocalShell) -> None:
    big = os.urandom(3_000_000)
    made, _ = datasets.add_folder(settings, "big", write_tree(tmp_path / "big", {"a": b"a", "big": big}))
    agentlink.call(machine, "list", {})  # the agent is there
    machine.cut_after["sent"] = 2_000_000
    with pytest.raises(ConnectionLost):
        datasets_remote.push(settings, machine, made.digest)
    assert datasets_remote.push(settings, machine, made.digest).bytes_sent < 2_000_000
    view = datalink.place(machine, "run.1", [("big", made.digest)])
    assert see(machine, view, "big") == {"a": b"a", "big": big}


def test_ten_thousand_small_files_take_as_many_commands_as_one(
    settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    files = {f"{n % 100}/{n}": b"%d" % n for n in range(10_000)}
    made, _ = datasets.add_folder(settings, "many", write_tree(tmp_path / "many", files))
    agentlink.call(machine, "list", {})
    with pytest.raises(TransferFailed, match="not on this machine"):  # and the part beside the agent is there
        datalink.place(machine, "run.1", [("many", made.digest)])
    commands = []
    real = machine.open
    machine.open = lambda command: commands.append(command) or real(command)
    sent = []

    def send() -> None:
        sent.append(datasets_remote.push(settings, machine, made.digest).files_sent)

    view = datasets_remote.lay_out(machine, "run.1", [("many", made.digest)], send)
    assert (sent, len(commands)) == ([10_000], 3)
    assert see(machine, view, "many") == files
    datasets_remote.lay_out(machine, "run.2", [("many", made.digest)], send)
    assert (sent, len(commands)) == ([10_000], 4)


def test_what_somebody_wrote_into_a_dataset_does_not_reach_the_next_run(
    settings: Settings, horses: Path, machine: LocalShell
) -> None:
    made, _ = datasets.add_folder(settings, "horses", horses)
    datasets_remote.push(settings, machine, made.digest)
    first = Path(datalink.place(machine, "run.1", [("horses", made.digest)])) / "horses"
    (first / "more").write_bytes(b"added")
    (first / "empty").unlink()
    view = datalink.place(machine, "run.2", [("horses", made.digest)])
    assert see(machine, view, "horses") == HORSES


def test_damaged_content_is_forgotten_and_travels_again(
    settings: Settings, horses: Path, machine: LocalShell
) -> None:
    made, _ = datasets.add_folder(settings, "horses", horses)
    datasets_remote.push(settings, machine, made.digest)
    sha256 = hashlib.sha256(b"white horse").hexdigest()
    (machine.base / "objects" / sha256[:2] / sha256).write_bytes(b"black horse")
    with pytest.raises(TransferFailed, match="damaged"):
        datalink.place(machine, "run.1", [("horses", made.digest)])
    assert datasets_remote.push(settings, machine, made.digest).files_sent == 1
    view = datalink.place(machine, "run.1", [("horses", made.digest)])
    assert see(machine, view, "horses") == HORSES


def freed(machine: LocalShell, *digests: str, remove: bool = True) -> tuple[int, list[str]]:
    return datalink.discard(machine, digests, remove=remove)


def content(machine: LocalShell) -> set[bytes]:
    return {path.read_bytes() for path in (machine.base / "objects").glob("*/*")}


def test_data_is_taken_off_a_machine_but_not_what_others_need(
    settings: Settings, horses: Path, tmp_path: Path, machine: LocalShell
) -> None:
    first, _ = datasets.add_folder(settings, "horses", horses)
    other, _ = datasets.add_folder(
        settings, "o", write_tree(tmp_path / "o", {"1": b"white horse", "2": b"2"})
    )
    for made in (first, other):
        datasets_remote.push(settings, machine, made.digest)
        datalink.place(machine, "run.1", [("d", made.digest)])
    job = make_bundle({"code.py": b"brown horse"})
    transfer.push_bundle(machine, *job)
    shutil.rmtree(machine.run_dir("run.1"))
    gone = sum(map(len, {*HORSES.values()})) - len(b"white horse") - len(b"brown horse")
    assert freed(machine, first.digest, remove=False) == (gone, [])
    assert freed(machine, first.digest) == (gone, [])
    assert freed(machine, first.digest) == (0, [])
    assert content(machine) == {b"white horse", b"brown horse", b"2"}
    assert transfer.push_bundle(machine, *job).files_sent == 0
    assert datasets_remote.push(settings, machine, first.digest).bytes_sent == gone
    view = datalink.place(machine, "run.2", [("d", first.digest)])
    assert see(machine, view, "d") == HORSES


def test_what_a_run_uses_stays_and_without_names_the_rest_goes(
    settings: Settings, horses: Path, tmp_path: Path, machine: LocalShell
) -> None:
    used, _ = datasets.add_folder(settings, "horses", horses)
    other, _ = datasets.add_folder(settings, "o", write_tree(tmp_path / "o", {"own": b"of the other one"}))
    for made in (used, other):
        datasets_remote.push(settings, machine, made.digest)
    datalink.place(machine, "old.1", [("d", other.digest), ("h", used.digest)])
    os.utime(machine.run_dir("old.1") / "data", (0, 0))  # never started, long ago
    view = datalink.place(machine, "run.1", [("d", used.digest)])  # about to start
    with serving(b"fetched") as server:
        fetch(machine, server.url, b"fetched", key="old.2")
    os.utime(machine.run_dir("old.2") / "data", (0, 0))
    assert freed(machine, used.digest) == (0, [used.digest])
    assert freed(machine) == (len(b"of the other one") + len(b"fetched"), [used.digest])
    assert see(machine, view, "d") == HORSES
    assert content(machine) == {*HORSES.values()}
    assert freed(machine, other.digest, used.digest) == (0, [used.digest])


# --- from an address ---------------------------------------------------------------------


def fetch(
    machine: LocalShell,
    url: str,
    content: bytes,
    *,
    extract: bool = False,
    sha256: str = "",
    key: str = "run.1",
) -> Path:
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256(f"{sha256}{extract}".encode()).hexdigest()
    name = datasets.file_name(url)
    datalink.fetch(machine, digest=digest, url=url, sha256=sha256, name=name, extract=extract)
    return Path(datalink.place(machine, key, [("got", digest)])) / "got"


def test_a_file_is_fetched_once_by_the_machine_itself(machine: LocalShell) -> None:
    content = os.urandom(500_000)
    with serving(content) as server:
        got = fetch(machine, server.url, content)
        assert read_tree(got) == {"horses.tar": content}
        assert (got / "horses.tar").stat().st_mode & 0o777 == 0o444
        fetch(machine, server.url, content)
        assert server.asked == [""]
    assert machine.sent < 100_000


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on_where_the_server_lets_it(machine: LocalShell, ranges: bool) -> None:
    content = os.urandom(500_000)
    with serving(content, ranges=ranges) as server:
        server.cuts = [200_000]
        assert read_tree(fetch(machine, server.url, content)) == {"horses.tar": content}
        assert server.asked == ["", "bytes=200000-"]
        assert server.sent == (500_000 if ranges else 700_000)


def test_other_content_than_the_checksum_says_is_refused_and_forgotten(machine: LocalShell) -> None:
    with serving(b"something else") as server, pytest.raises(TransferFailed, match="other content"):
        fetch(machine, server.url, b"", sha256="ab" * 32)
    assert not list((machine.base / "datasets").glob("*.part"))


def test_an_address_that_says_no_is_told(machine: LocalShell) -> None:
    with serving(b"x") as server:
        server.status = 404
        with pytest.raises(TransferFailed, match="answers 404") as error:
            fetch(machine, server.url, b"x")
        assert len(server.asked) == 1
        assert "reach that address" in error.value.hint


def tar_of(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def zip_of(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            packed.writestr(info, content)
    return made.getvalue()


@pytest.mark.parametrize(
    "archive", [tar_of(("./a/b", b"1"), ("ü", b"2")), zip_of(("a/", b""), ("a/b", b"1"), ("ü", b"2"))]
)
def test_archives_are_unpacked(machine: LocalShell, archive: bytes) -> None:
    with serving(archive) as server:
        got = fetch(machine, server.url, archive, extract=True)
    assert read_tree(got) == {"a/b": b"1", "ü": b"2"}


HOSTILE = {
    "above": tar_of(("../evil", b"x")),
    "absolute": tar_of(("/tmp/evil", b"x")),
    "symlink": tar_of(("evil", b""), kind=tarfile.SYMTYPE, link="/etc"),
    "hardlink": tar_of(("evil", b""), kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "device": tar_of(("evil", b""), kind=tarfile.CHRTYPE),
    "twice": tar_of(("evil", b"x"), ("evil/inside", b"x")),
    "zip above": zip_of(("a/../../evil", b"x")),
    "zip symlink": zip_of(("evil", b"/etc"), mode=0o120777),
    "cut tar": tar_of(("a", os.urandom(200_000)))[:90_000],
    "cut zip": zip_of(("a", b"x" * 1000))[:-10],
    "no archive": b"only text",
}


@pytest.mark.parametrize("archive", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_or_damaged_archive_is_a_clear_error(machine: LocalShell, archive: bytes) -> None:
    with serving(archive) as server, pytest.raises(TransferFailed, match=r"archive|tar nor zip") as error:
        fetch(machine, server.url, archive, extract=True)
    assert error.value.hint
    assert not list(machine.home.rglob("evil*"))
    assert not [path for path in (machine.base / "datasets").iterdir() if len(path.name) == 64]
