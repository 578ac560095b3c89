"""Outputs at home: listing and handing out."""

from __future__ import annotations

import os
from pathlib import Path

from cloudrun.outputs import copy_folder, list_folder


def fill(folder: Path) -> None:
    (folder / "a b").mkdir(parents=True)
    (folder / "a b" / "line\nbreak.txt").write_bytes(b"x" * 10)
    (folder / "link").symlink_to("a b/line\nbreak.txt")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.bin")).write_bytes(b"yy")


def test_lists_every_file_with_odd_names_and_never_follows_links(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "out").symlink_to("/etc")
    listed = {os.fsencode(file.path): (file.size, file.link) for file in list_folder(tmp_path)}
    assert listed == {
        b"a b/line\nbreak.txt": (10, ""),
        b"caf\xe9.bin": (2, ""),
        b"link": (0, "a b/line\nbreak.txt"),
        b"out": (0, "/etc"),
    }
    assert list_folder(tmp_path / "absent") == []


def test_copies_whole_and_again_only_what_changed(tmp_path: Path) -> None:
    home, to = tmp_path / "home", tmp_path / "to"
    fill(home)
    seen: list[tuple[int, int]] = []
    copy_folder(home, to, progress=lambda done, total: seen.append((done, total)))
    assert list_folder(to) == list_folder(home)
    assert seen[-1] == (12, 12)
    (to / "mine.txt").write_text("kept")
    before = (to / "a b" / "line\nbreak.txt").stat().st_ino
    copy_folder(home, to, progress=lambda *_: None)
    assert (to / "mine.txt").read_text() == "kept"
    assert (to / "a b" / "line\nbreak.txt").stat().st_ino == before
