"""The ignore rules against git itself, and the line that each one names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudrun.bundle import scan
from cloudrun.ignore import IgnoreFile, matching_rule

NAMES = ("a", "b", "ab", "a.b", "c d", "[x]", "a!", "#a", "-")
TREE = [
    *NAMES,
    *(f"d/{name}" for name in NAMES),
    *(f"d/e/{name}" for name in ("a", "b", "ab")),
    "f/d/a",
    "f/d/e/b",
]
PIECES = st.sampled_from(
    [
        *("a", "b", "d", "e", "f", "*", "**", "?", "/", "/", ".", "!", "#", " ", "\\", "\\ ", "-"),
        *("[ab]", "[!a]", "[a-c]", "[^b]", "[]-]", "[", "]", "[[:alpha:]]", "[x", "**/", "/**", "/**/"),
    ]
)
LINES = st.lists(PIECES, max_size=6).map("".join)


def git_ignored(root: Path, paths: list[str]) -> set[str]:
    """What git leaves out, one entry at a time."""
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=root, input="\0".join(paths).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return set(filter(None, done.stdout.decode().split("\0")))


def kept_by_us(root: Path) -> set[str]:
    return {file.path for file in scan(root, shared={}, outputs="outputs").files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with TREE in it."""
    root = tmp_path_factory.mktemp("tree")
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True, capture_output=True)
    for path in TREE:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    return root


@given(st.lists(LINES, min_size=1, max_size=4), st.lists(LINES, max_size=3))
@settings(max_examples=120, deadline=None)
@example(["*", "!d/"], [])
@example(["d/**", "!d/a"], [])
@example(["/*", "!/d"], ["!a", "b"])
@example(["d/*", "!d/e"], ["*"])
@example(["a\\"], ["[a"])
@example(["**/e/b", "a/**/b", "d/**/a"], [])
@example(["!!a", "\\#a", "\\!a"], ["a!"])
@example(["***", "!a"], [])
@example(["d**/a"], ["e**"])
@example(["d/***/a"], [])
def test_the_same_files_travel_as_git_would_take(root: Path, top: list[str], below: list[str]) -> None:
    (root / ".gitignore").write_text("\n".join(top) + "\n")
    (root / "d" / ".gitignore").write_text("\n".join(below) + "\n")
    everything = [*TREE, ".gitignore", "d/.gitignore"]
    assert kept_by_us(root) == set(everything) - git_ignored(root, everything)


def test_each_ignored_path_names_file_line_and_pattern(tmp_path: Path) -> None:
    (tmp_path / "sub" / "logs").mkdir(parents=True)
    (tmp_path / ".gitignore").write_text("# comment\n\n*.log\n")
    (tmp_path / "sub" / ".gitignore").write_text("logs/\n!keep.log\n")
    for path in ("a.log", "sub/b.log", "sub/keep.log", "sub/logs/x"):
        (tmp_path / path).write_text("")
    bundle = scan(tmp_path, shared={}, outputs="outputs")
    assert {each.path: each.rule for each in bundle.ignored} == {
        "a.log": ".gitignore:3 *.log",
        "sub/b.log": ".gitignore:3 *.log",
        "sub/logs/": "sub/.gitignore:1 logs/",
    }
    assert "sub/keep.log" in {file.path for file in bundle.files}


def test_our_own_file_replaces_gits_everywhere(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".gitignore").write_text("weights\n")
    (tmp_path / "sub" / ".gitignore").write_text("*\n")
    (tmp_path / ".cloudrunignore").write_text("notes\n")
    for path in ("weights", "notes", "sub/code"):
        (tmp_path / path).write_text("")
    kept = kept_by_us(tmp_path)
    assert {"weights", "sub/code"} <= kept
    assert "notes" not in kept


def test_what_is_never_code_stays_behind_even_when_taken_back(tmp_path: Path) -> None:
    for folder in (".git", "__pycache__", "sub/__pycache__", ".venv", ".cloudrun", "outputs", "sub/outputs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").write_text("")
    (tmp_path / ".gitignore").write_text("!.git\n!outputs\n!__pycache__\n")
    bundle = scan(tmp_path, shared={}, outputs="outputs")
    assert {file.path for file in bundle.files} == {".gitignore", "sub/outputs/x"}
    rules = {each.path: each.rule for each in bundle.ignored}
    assert rules["outputs/"] == "built-in: the outputs folder"
    assert rules["sub/__pycache__/"] == "built-in: __pycache__"


def test_names_that_are_not_utf8_match(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9*\n")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("")
    assert kept_by_us(tmp_path) == {".gitignore"}


def test_a_question_mark_is_one_character_not_one_byte(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("?\n", encoding="utf-8")
    (tmp_path / "é").write_text("")
    assert kept_by_us(tmp_path) == {".gitignore"}


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    for name in "abc":
        (tmp_path / name).write_text("")
    assert kept_by_us(tmp_path) == {".gitignore", "c"}


def test_the_deepest_file_that_speaks_decides() -> None:
    outer = IgnoreFile("*.log\n", ".gitignore", "")
    inner = IgnoreFile("!*.log\n", "d/.gitignore", "d/")
    assert matching_rule([outer, inner], "d/a.log", "a.log", False) == ""
    assert matching_rule([outer], "d/a.log", "a.log", False) == ".gitignore:1 *.log"
