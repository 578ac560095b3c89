"""Bundles: what a scan sees, what a snapshot keeps, what comes back out."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudrun import hashing
from cloudrun.bundle import object_path, refuse_secrets, restore, scan, snapshot
from cloudrun.errors import JobError, Refused, TransferFailed
from cloudrun.models import Bundle, BundleFile


def scan_plain(folder: Path, cache_dir: Path | None = None) -> Bundle:
    return scan(folder, shared={}, outputs="outputs", cache_dir=cache_dir)


def paths(bundle: Bundle) -> list[str]:
    return [file.path for file in bundle.files]


def age(folder: Path, *, seconds: int = 3600) -> None:
    """Make the files old enough to be remembered; ctime cannot be set, so the scan's clock is."""
    for file in folder.rglob("*"):
        facts = file.stat()
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns - seconds * 10**9))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    (folder / "sub").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "sub" / "empty").write_text("")
    (folder / "link").symlink_to("sub/empty")
    return folder


def test_a_scan_holds_hashes_modes_and_links(job: Path) -> None:
    by_path = {file.path: file for file in scan_plain(job).files}
    assert list(by_path) == ["link", "run.sh", "sub/empty", "train.py"]
    assert by_path["train.py"].sha256 == hashlib.sha256(b"print(1)\n").hexdigest()
    assert by_path["train.py"].size == 9
    assert by_path["run.sh"].mode == 0o755
    assert (by_path["link"].link, by_path["link"].sha256) == ("sub/empty", "")


def test_the_digest_follows_content_names_and_modes_only(job: Path, tmp_path: Path) -> None:
    first = scan_plain(job).digest
    age(job)
    assert scan_plain(job).digest == first
    subprocess.run(["cp", "-a", str(job), str(tmp_path / "copy")], check=True)
    assert scan_plain(tmp_path / "copy").digest == first
    (job / "train.py").chmod(0o755)
    moded = scan_plain(job).digest
    (job / "train.py").write_text("print(2)\n")
    changed = scan_plain(job).digest
    (job / "train.py").rename(job / "b.py")
    assert len({first, moded, changed, scan_plain(job).digest}) == 4


def test_strange_names_travel(job: Path, tmp_path: Path) -> None:
    names = [b"a b", b"new\nline", b"caf\xe9", b"-rf", b"\x1b[31m", "雪".encode()]
    for name in names:
        (job / os.fsdecode(name)).write_bytes(name)
    kept = snapshot(scan_plain(job), tmp_path / "objects")
    back = restore(kept, tmp_path / "objects", tmp_path / "back")
    assert set(names) <= {os.fsencode(path.name) for path in back.iterdir()}
    assert scan_plain(back).digest == kept.digest


def test_what_is_no_file_stays_behind_with_a_reason(job: Path) -> None:
    os.mkfifo(job / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(job)
        listener.bind("sock")
        os.chdir(here)
        bundle = scan_plain(job)
    assert {each.path: each.rule for each in bundle.ignored} == {
        "pipe": "built-in: a named pipe, not a file",
        "sock": "built-in: a socket, not a file",
    }


@pytest.mark.parametrize("target", ["/etc/passwd", "../other", "sub/../../other", "deep/../../other"])
def test_a_link_out_of_the_folder_is_refused_unless_ignored(job: Path, target: str) -> None:
    (job.parent / "other").write_text("")
    (job / "bad").symlink_to(target)
    with pytest.raises(JobError, match="'bad' links out"):
        scan_plain(job)
    (job / ".gitignore").write_text("bad\n")
    assert "bad" not in paths(scan_plain(job))


def test_a_link_that_leaves_by_way_of_another_link_is_refused(job: Path) -> None:
    (job / "sub" / "top").symlink_to("..")
    (job / "bad").symlink_to("sub/top/../x")  # by its letters sub/x, in truth job/../x
    with pytest.raises(JobError, match="'bad' links out"):
        scan_plain(job)


def test_an_unreadable_file_is_a_job_error(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(
        hashing, "open_steady", deny
    )  # root may read everything, so the file mode would not do
    with pytest.raises(JobError, match=r"cannot be read: Permission denied"):
        scan_plain(job)


def test_a_file_that_changes_once_is_read_again_and_one_that_never_rests_is_refused(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashing._digest
    times = 1

    def busy(file: int, size: int, *more: object) -> tuple[str, bytes]:
        nonlocal times
        found = digest(file, size, *more)
        if times > 0 and os.fstat(file).st_ino == (job / "train.py").stat().st_ino:
            times -= 1
            (job / "train.py").write_text("x" * (times + 20))
        return found

    monkeypatch.setattr(hashing, "_digest", busy)
    train = next(file for file in scan_plain(job).files if file.path == "train.py")
    assert train.sha256 == hashlib.sha256((job / "train.py").read_bytes()).hexdigest()
    assert train.size == (job / "train.py").stat().st_size
    times = 1000
    with pytest.raises(JobError, match="keeps changing"):
        scan_plain(job)


def test_shared_modules_are_placed_in_the_tree(job: Path, tmp_path: Path) -> None:
    module = tmp_path / "lib" / "plumbing.py"
    package = tmp_path / "lib" / "readers"
    package.mkdir(parents=True)
    module.write_text("M")
    (package / "__init__.py").write_text("P")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_text("")
    shared = {"plumbing.py": module, "readers": package}
    bundle = scan(job, shared=shared, outputs="outputs")
    assert {"shared/plumbing.py", "shared/readers/__init__.py"} == set(paths(bundle)) - set(
        paths(scan_plain(job))
    )
    back = restore(snapshot(bundle, tmp_path / "o"), tmp_path / "o", tmp_path / "back")
    assert (back / "shared" / "plumbing.py").read_text() == "M"
    own = {"plumbing.py": back / "shared" / "plumbing.py", "readers": package}
    assert scan(back, shared=own, outputs="outputs").digest == bundle.digest


def test_secrets_are_found_and_refused(job: Path) -> None:
    refuse_secrets(scan_plain(job))
    (job / ".env").write_text("A=1")
    (job / "sub" / "notes.txt").write_text("hello\n-----BEGIN OPENSSH PRIVATE KEY-----\nxx\n")
    bundle = scan_plain(job)
    assert set(bundle.secrets) == {".env", "sub/notes.txt"}
    with pytest.raises(Refused, match=r"\.env.*sub/notes\.txt"):
        refuse_secrets(bundle)


def test_unchanged_files_are_not_read_again_and_changed_ones_are(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    read: list[str] = []
    steady = hashing._read_steady

    def counted(name: str, *more: object) -> tuple[os.stat_result, str, bool]:
        read.append(name)
        return steady(name, *more)

    monkeypatch.setattr(hashing, "_read_steady", counted)
    (job / ".env").write_text("A=1")
    scan_plain(job, cache)
    read.clear()
    scan_plain(job, cache)
    assert len(read) == 4  # files of this moment are never remembered: their clock may not have ticked
    monkeypatch.setattr(hashing, "RACY_NS", -(10**15))
    first = scan_plain(job, cache)
    read.clear()
    assert scan_plain(job, cache) == first
    assert read == []
    before = (job / "train.py").stat()
    (job / "train.py").write_text("print(2)\n")  # the same size
    os.utime(job / "train.py", ns=(before.st_atime_ns, before.st_mtime_ns))  # and time
    second = scan_plain(job, cache)
    assert read == ["train.py"]
    assert second.digest != first.digest


@pytest.mark.parametrize(
    "junk", ["", "[]", "{", '{"train.py": 1}', '{"train.py": [1,2,3,4,5,6]}', "[" * 9999]
)
def test_a_damaged_cache_counts_as_none(job: Path, tmp_path: Path, junk: str) -> None:
    good = scan_plain(job, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(junk)
    assert scan_plain(job, tmp_path / "cache") == good


def test_a_snapshot_keeps_equal_content_once_and_is_idempotent(job: Path, tmp_path: Path) -> None:
    (job / "twin.py").write_text("print(1)\n")
    bundle = scan_plain(job)
    objects = tmp_path / "objects"
    kept = snapshot(bundle, objects)
    assert kept.root is None
    files = [file for file in objects.rglob("*") if file.is_file()]
    assert len(files) == 3  # five names: a link and a twin among them
    stamps = {file: file.stat().st_ino for file in files}
    assert snapshot(bundle, objects) == kept == snapshot(kept, objects)
    assert {file: file.stat().st_ino for file in files} == stamps


def test_a_snapshot_mends_a_torn_object(job: Path, tmp_path: Path) -> None:
    bundle = scan_plain(job)
    kept = snapshot(bundle, tmp_path / "o")
    torn = object_path(tmp_path / "o", next(file.sha256 for file in kept.files if file.path == "train.py"))
    torn.chmod(0o600)
    torn.write_text("")
    snapshot(bundle, tmp_path / "o")
    assert torn.read_text() == "print(1)\n"


def test_a_snapshot_refuses_what_changed_after_the_plan(job: Path, tmp_path: Path) -> None:
    bundle = scan_plain(job)
    (job / "train.py").write_text("print(9)\n")
    with pytest.raises(JobError, match="changed after the plan"):
        snapshot(bundle, tmp_path / "o")
    (job / "train.py").unlink()
    with pytest.raises(JobError, match="changed after the plan"):
        snapshot(bundle, tmp_path / "o")
    assert not list((tmp_path / "o").rglob("*.*"))


def test_many_processes_snapshot_the_same_tree_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.py").write_text(str(number % 150))
    code = (
        "import sys; from pathlib import Path; from cloudrun.bundle import scan, snapshot;"
        "print(snapshot(scan(Path(sys.argv[1]), shared={}, outputs='o', cache_dir=Path(sys.argv[2]) / 'c'),"
        "Path(sys.argv[2]) / 'objects').digest)"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    digests = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 4
    bundle = scan_plain(folder)
    assert digests == {bundle.digest}
    assert len([file for file in (tmp_path / "objects").rglob("*") if file.is_file()]) == 150
    restore(snapshot(bundle, tmp_path / "objects"), tmp_path / "objects", tmp_path / "back")


def test_restore_gives_back_the_same_tree(job: Path, tmp_path: Path) -> None:
    kept = snapshot(scan_plain(job), tmp_path / "o")
    back = restore(kept, tmp_path / "o", tmp_path / "back")
    assert scan_plain(back).digest == kept.digest
    assert stat.S_IMODE((back / "run.sh").stat().st_mode) == 0o755
    assert (back / "link").is_symlink()
    with pytest.raises(Refused, match="not empty"):
        restore(kept, tmp_path / "o", tmp_path / "back")


def test_restore_notices_damage_and_loss(job: Path, tmp_path: Path) -> None:
    kept = snapshot(scan_plain(job), tmp_path / "o")
    broken = object_path(tmp_path / "o", next(file.sha256 for file in kept.files if file.path == "train.py"))
    broken.chmod(0o600)
    broken.write_text("print(7)\n")
    with pytest.raises(TransferFailed, match=r"train\.py.*damaged"):
        restore(kept, tmp_path / "o", tmp_path / "a")
    broken.unlink()
    with pytest.raises(TransferFailed):
        restore(kept, tmp_path / "o", tmp_path / "b")


@pytest.mark.parametrize(
    "file",
    [
        BundleFile("../evil", 0, 0o644, hashlib.sha256(b"").hexdigest()),
        BundleFile("/tmp/evil", 0, 0o644, hashlib.sha256(b"").hexdigest()),
        BundleFile("a/../../evil", 0, 0o644, hashlib.sha256(b"").hexdigest()),
        BundleFile("evil", 0, 0o777, "", "../../outside"),
        BundleFile("evil", 0, 0o777, "", "/etc"),
    ],
    ids=lambda file: f"{file.path}->{file.link}",
)
def test_restore_writes_nothing_outside(job: Path, tmp_path: Path, file: BundleFile) -> None:
    kept = snapshot(scan_plain(job), tmp_path / "o")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(TransferFailed, match="refused"):
        restore(replace(kept, files=(*kept.files, file)), tmp_path / "o", tmp_path / "in" / "back")
    assert {path for path in set(tmp_path.rglob("*")) - before if "in" not in path.parts} == set()
