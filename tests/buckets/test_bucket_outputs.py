"""Outputs in a bucket: pushed once, cut anywhere and pushed again, damaged and noticed, brought back."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bucket_cases import Case

from cloudrun import bucket_outputs
from cloudrun.bucket import open_bucket
from cloudrun.config import Settings
from cloudrun.errors import NotFound, TransferFailed
from cloudrun.outputs import list_folder

RUN = "8f3k0000"
CUTS = [(number, at) for number in range(1, 6) for at in ("before", "after")]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A run's outputs: four files, one with a name that is no text, and a link."""
    folder = tmp_path / "outputs"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "last.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "run.sh").write_text("true\n")
    (folder / "run.sh").chmod(0o755)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_bytes(b"odd")
    (folder / "link").symlink_to("checkpoint/last.bin")
    return folder


def push(case: Case, folder: Path) -> int:
    return bucket_outputs.push(
        case.bucket, RUN, folder, cache=folder.parent / "hashes", progress=lambda *_: None
    )


def fetch(case: Case, to: Path, prefix: str = "") -> int:
    files = bucket_outputs.read_manifest(case.bucket, RUN).values()
    wanted = [file for file in files if file.path.startswith(prefix)]
    return bucket_outputs.fetch(case.bucket, RUN, wanted, to, progress=lambda *_: None)


def contents(folder: Path) -> dict[bytes, tuple[int, bytes]]:
    found = {}
    for file in list_folder(folder):
        path = folder / file.path
        content = os.fsencode(file.link) if file.link else path.read_bytes()
        found[os.fsencode(file.path)] = (file.mode, content)
    return found


def test_outputs_come_back_as_they_were(case: Case, home: Path, tmp_path: Path) -> None:
    sent = push(case, home)
    assert sent == sum(file.size for file in list_folder(home))
    assert fetch(case, tmp_path / "back") == sent
    assert contents(tmp_path / "back") == contents(home)
    assert fetch(case, tmp_path / "back") == 0


def test_only_what_changed_travels(case: Case, home: Path) -> None:
    push(case, home)
    assert push(case, home) == 0
    (home / "metrics.jsonl").write_text("{}\n")
    (home / "new.txt").write_text("new")
    assert push(case, home) == len("{}\n") + len("new")


def test_a_push_that_was_cut_sends_only_what_is_not_there(case: Case, home: Path) -> None:
    """All was stored but the manifest, and one file has other content of the same size by now."""
    push(case, home)
    case.bucket.delete([f"{RUN}/{bucket_outputs.MANIFEST}"])
    (home / "metrics.jsonl").write_text('{"step": 2}\n')
    assert push(case, home) == len('{"step": 2}\n')
    assert bucket_outputs.read_manifest(case.bucket, RUN).keys() == {file.path for file in list_folder(home)}


def test_what_left_home_stays_in_the_bucket(case: Case, home: Path, tmp_path: Path) -> None:
    push(case, home)
    before = contents(home)
    (home / "metrics.jsonl").unlink()
    (home / "new.txt").write_text("new")
    push(case, home)
    fetch(case, tmp_path / "back")
    assert contents(tmp_path / "back").keys() == before.keys() | {b"new.txt"}


@pytest.mark.parametrize(("number", "at"), CUTS)
def test_a_push_may_be_killed_anywhere(case: Case, home: Path, tmp_path: Path, number: int, at: str) -> None:
    """Four files and the manifest: whole afterwards, nothing twice, and no manifest before all is there."""
    script = Path(__file__).with_name("push_killed.py")
    argv = [
        sys.executable,
        str(script),
        case.address,
        RUN,
        str(home),
        str(tmp_path / "home"),
        str(number),
        at,
    ]
    cut = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert cut.returncode == -9, cut.stderr
    whole = number == 5 and at == "after"
    assert bool(bucket_outputs.read_manifest(case.bucket, RUN)) is whole
    push(case, home)
    assert len(list(case.bucket.list())) == 5
    fetch(case, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(home)


def test_damage_is_noticed(case: Case, home: Path, tmp_path: Path) -> None:
    push(case, home)
    case.corrupt(f"{RUN}/metrics.jsonl")
    with pytest.raises(TransferFailed, match="not what was stored"):
        fetch(case, tmp_path / "back", "metrics")
    assert contents(tmp_path / "back") == {}


def test_an_object_of_another_push_is_noticed(case: Case, home: Path, tmp_path: Path) -> None:
    """It is whole by itself, but not what the manifest says: that push was cut before its manifest."""
    push(case, home)
    other = tmp_path / "other"
    other.write_text("of a later push")
    case.bucket.put(f"{RUN}/metrics.jsonl", other, hashlib.sha256(other.read_bytes()).hexdigest())
    with pytest.raises(TransferFailed, match="another than its manifest says"):
        fetch(case, tmp_path / "back", "metrics")


@pytest.mark.parametrize("path", ["../escape", "/etc/escape", "a/../../escape"])
def test_a_hostile_manifest_writes_nowhere(case: Case, tmp_path: Path, path: str) -> None:
    row = {"path": path, "size": 1, "mode": 0o644, "sha256": "0" * 64, "link": ""}
    content = json.dumps({"version": 1, "run": RUN, "files": [row]}).encode()
    source = tmp_path / "manifest"
    source.write_bytes(content)
    case.bucket.put(f"{RUN}/{bucket_outputs.MANIFEST}", source, hashlib.sha256(content).hexdigest())
    with pytest.raises(TransferFailed):
        bucket_outputs.read_manifest(case.bucket, RUN)


def test_a_bucket_that_is_gone_is_no_empty_one(case: Case, home: Path, settings: Settings) -> None:
    absent = open_bucket(case.absent, settings)
    with pytest.raises(NotFound, match="nobody-made-this"):
        bucket_outputs.read_manifest(absent, RUN)
    with pytest.raises(NotFound, match="nobody-made-this"):
        bucket_outputs.push(absent, RUN, home, cache=home.parent / "hashes", progress=lambda *_: None)
