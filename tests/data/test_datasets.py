"""The store of datasets at home: versions, content once, kills, many at once, deletion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from data_home import HORSES, read_tree, write_tree

from cloudrun import datasets, keptdata
from cloudrun.config import Settings
from cloudrun.errors import Ambiguous, JobError, NotFound, Refused, TransferFailed
from cloudrun.events import Event, Progress


def objects(settings: Settings) -> dict[str, Path]:
    return {path.name: path for path in keptdata.objects_dir(settings).glob("*/*")}


def test_a_folder_becomes_a_version_and_comes_back_as_it_was(
    settings: Settings, horses: Path, tmp_path: Path
) -> None:
    made, tree = datasets.add_folder(settings, "horses", horses)
    assert (made.label, made.files, made.size_bytes) == ("horses:v1", 5, sum(map(len, HORSES.values())))
    assert made.digest == tree.digest
    datasets.get(settings, made, (), tmp_path / "again")
    assert read_tree(tmp_path / "again") == HORSES
    datasets.get(settings, made, ["brown/", "empty"], tmp_path / "part")
    assert {*read_tree(tmp_path / "part")} == {"brown/a.png", "brown/b c.png", "empty"}
    with pytest.raises(NotFound, match="no 'brow'"):
        datasets.get(settings, made, ["brow"], tmp_path / "none")


def test_equal_content_is_kept_once_and_an_unchanged_folder_makes_no_version(
    settings: Settings, horses: Path, tmp_path: Path
) -> None:
    first, _ = datasets.add_folder(settings, "horses", horses)
    kept = objects(settings)
    assert len(kept) == len({*HORSES.values()})
    times = {name: path.stat().st_mtime_ns for name, path in kept.items()}
    assert datasets.add_folder(settings, "horses", horses)[0] == first
    other, _ = datasets.add_folder(settings, "ponies", write_tree(tmp_path / "other", HORSES))
    assert other.digest == first.digest
    assert {name: path.stat().st_mtime_ns for name, path in objects(settings).items()} == times
    assert not {path.stat().st_ino for path in objects(settings).values()} & {
        path.stat().st_ino for path in horses.rglob("*")
    }


def test_names_mean_the_newest_version_and_older_ones_can_be_named(settings: Settings, horses: Path) -> None:
    first, _ = datasets.add_folder(settings, "horses", horses)
    (horses / "black.png").write_bytes(b"black")
    second, _ = datasets.add_folder(settings, "horses", horses)
    assert datasets.find_dataset(settings, "horses") == second
    assert datasets.find_dataset(settings, "horses:v1") == first
    assert datasets.find_dataset(settings, f"horses:{first.digest[:8]}") == first
    (horses / "black.png").unlink()
    third, _ = datasets.add_folder(settings, "horses", horses)
    assert (third.version, third.digest) == ("v3", first.digest)
    assert [each.version for each in datasets.list_datasets(settings)] == ["v1", "v2", "v3"]
    for wrong in ("horses:v9", "horses:abc", "hors"):
        with pytest.raises(NotFound):
            datasets.find_dataset(settings, wrong)
    with pytest.raises(NotFound, match="hors'") as error:
        datasets.find_dataset(settings, "hors")
    assert "horses" in error.value.hint


@pytest.mark.parametrize("name", ["", "v1", "a/b", "..", "a:b", ".hidden", "x" * 65])
def test_a_name_that_cannot_be_typed_is_refused(settings: Settings, horses: Path, name: str) -> None:
    with pytest.raises(Refused):
        datasets.add_folder(settings, name, horses)


def test_ignore_files_links_and_special_files(settings: Settings, horses: Path) -> None:
    (horses / ".gitignore").write_text("*\n")  # of a folder that is not code: it does not count
    (horses / ".cloudrunignore").write_text("white/\n")
    (horses / datasets.TIE_FILE).write_text("horses\n")
    (horses / "first").symlink_to("brown/a.png")
    os.mkfifo(horses / "pipe")
    _, tree = datasets.add_folder(settings, "horses", horses)
    paths = {file.path for file in tree.files}
    assert paths == {".cloudrunignore", ".gitignore", "brown/a.png", "brown/b c.png", "empty", "first"}
    assert {item.path for item in tree.ignored} >= {"white/", "pipe"}
    (horses / "out").symlink_to("/etc/passwd")
    with pytest.raises(JobError, match="links out"):
        datasets.add_folder(settings, "horses", horses)
    with pytest.raises(NotFound, match="not a folder"):
        datasets.add_folder(settings, "horses", horses / "nowhere")


def test_reading_and_keeping_are_told_also_within_a_large_file(settings: Settings, horses: Path) -> None:
    (horses / "large").write_bytes(bytes(range(256)) * 16_384)  # 4 MiB
    told: dict[str, list[int]] = {}

    def watch(event: Event) -> None:
        assert isinstance(event, Progress)
        assert event.total_bytes == (4 << 20) + sum(map(len, HORSES.values()))
        told.setdefault(event.what, []).append(event.done_bytes)

    datasets.add_folder(settings, "horses", horses, on_event=watch)
    assert [*told] == ["read", "keep"]
    for amounts in told.values():
        assert amounts == sorted(amounts)
        assert amounts[-1] == (4 << 20) + sum(map(len, HORSES.values()))
        assert len({*amounts}) >= len({*HORSES.values()}) + 4


KILLED = """
import os, signal, sys
from pathlib import Path
from cloudrun import bundle, datasets
from cloudrun.config import Settings
real, count = bundle.copy_hashed, 0
def copy(source, target, *more):
    global count
    count += 1
    if count == 4:
        os.write(target, b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(source, target, *more)
bundle.copy_hashed = copy
datasets.add_folder(Settings(home=Path(sys.argv[1])), "horses", Path(sys.argv[2]))
"""


def test_a_killed_upload_leaves_no_version_and_goes_on_where_it_stopped(
    settings: Settings, horses: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, settings.home, horses], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert datasets.list_datasets(settings) == []
    whole = {name: path.stat().st_mtime_ns for name, path in objects(settings).items() if "." not in name}
    assert len(whole) == 3
    assert len(objects(settings)) == 4
    datasets.add_folder(settings, "horses", horses)
    after = {name: path.stat().st_mtime_ns for name, path in objects(settings).items()}
    assert whole.items() <= after.items()
    assert not [name for name in after if "." in name]


def test_many_at_once_get_versions_of_their_own(settings: Settings, tmp_path: Path) -> None:
    folders = [write_tree(tmp_path / str(n), {**HORSES, "own": b"%d" % n}) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda folder: datasets.add_folder(settings, "horses", folder)[0], folders))
    assert {each.version for each in made} == {f"v{n}" for n in range(1, 9)}
    for number, each in enumerate(made):
        datasets.get(settings, each, (), tmp_path / f"out{number}")
        assert read_tree(tmp_path / f"out{number}")["own"] == b"%d" % number


def test_delete_frees_what_nothing_needs_and_nothing_else(settings: Settings, horses: Path) -> None:
    first, _ = datasets.add_folder(settings, "horses", horses)
    (horses / "black.png").write_bytes(b"black")
    second, _ = datasets.add_folder(settings, "horses", horses)
    assert datasets.delete(settings, [second], active=()) == len(b"black")
    assert datasets.list_datasets(settings) == [first]
    assert len(objects(settings)) == len({*HORSES.values()})
    assert datasets.delete(settings, [first], active=()) > 0
    assert objects(settings) == {}
    assert datasets.delete(settings, [first], active=()) == 0


def test_damaged_content_is_found_on_the_way_out(settings: Settings, horses: Path, tmp_path: Path) -> None:
    made, _ = datasets.add_folder(settings, "horses", horses)
    for path in objects(settings).values():
        path.chmod(0o600)
        path.write_bytes(b"other" + path.read_bytes()[5:])
    with pytest.raises(TransferFailed, match="damaged") as content:
        datasets.get(settings, made, (), tmp_path / "again")
    keptdata.manifest_path(settings, made.digest).write_text("{}")
    with pytest.raises(TransferFailed, match="not a manifest") as manifest:
        datasets.load_tree(settings, made.digest)
    assert content.value.hint == manifest.value.hint == keptdata.ADD_AGAIN


def test_an_address_is_checked_for_form_and_fetches_nothing(settings: Settings) -> None:
    made = datasets.add_url(settings, "svhn", "http://127.0.0.1:9/a%20b.tar", sha256="AB" * 32)
    assert (made.version, made.sha256, datasets.file_name(made.url)) == ("v1", "ab" * 32, "a b.tar")
    assert datasets.add_url(settings, "svhn", made.url, sha256="ab" * 32) == made
    assert datasets.add_url(settings, "svhn", made.url, sha256="ab" * 32, extract=True).version == "v2"
    for url, sha256 in (("file:///etc/passwd", "ab" * 32), ("http://x/y", "short"), ("ftp://x/y", "ab" * 32)):
        with pytest.raises(Refused):
            datasets.add_url(settings, "svhn", url, sha256=sha256)
    with pytest.raises(Refused, match="not kept on this computer"):
        datasets.tree_of(settings, made)


def test_a_record_that_cannot_be_read_is_left_out(settings: Settings, horses: Path) -> None:
    datasets.add_folder(settings, "horses", horses)
    keptdata.version_path(settings, "horses", "v2").write_text("{")
    assert [each.version for each in datasets.list_datasets(settings)] == ["v1"]
    (horses / "black.png").write_bytes(b"black")
    assert datasets.add_folder(settings, "horses", horses)[0].version == "v3"


def test_a_digest_that_fits_two_contents_is_ambiguous(settings: Settings, monkeypatch) -> None:
    rows = [datasets.Dataset("h", f"v{n}", "ab" * 3 + str(n) * 58, datetime.now(UTC)) for n in (1, 2)]
    monkeypatch.setattr(keptdata, "read_versions", lambda *_: rows)
    with pytest.raises(Ambiguous):
        datasets.find_dataset(settings, "h:ababab")
    assert datasets.find_dataset(settings, "h:ababab2").version == "v2"
