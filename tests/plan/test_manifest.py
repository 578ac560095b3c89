"""Manifests: they come back as they were saved, and hostile or damaged ones are refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudrun.errors import CloudrunError, NotFound, TransferFailed
from cloudrun.manifest import check_path, digest_files, escapes, load_manifest, save_manifest, sort_files
from cloudrun.models import Bundle, BundleFile, Ignored

quiet = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARTS = st.binary(min_size=1, max_size=8).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
PATHS = (
    st.lists(PARTS.filter(lambda raw: raw not in (b".", b"..")), min_size=1, max_size=3)
    .map(b"/".join)
    .map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
FILES = st.builds(
    BundleFile,
    PATHS,
    st.integers(0, 2**40),
    st.integers(0, 0o777),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)
LINKS = st.builds(lambda path, link: BundleFile(path, 0, 0o777, "", link), PATHS, PATHS)


def bundle_of(files: list[BundleFile]) -> Bundle:
    return Bundle(
        digest_files(files),
        tuple(sort_files(files)),
        ignored=(Ignored("out/", "built-in: the outputs folder"),),
        secrets=("\udce9.env",),
    )


@given(st.lists(st.one_of(FILES, LINKS), max_size=6, unique_by=lambda file: file.path), st.randoms())
@quiet
def test_a_manifest_comes_back_as_it_was_saved(
    tmp_path: Path, files: list[BundleFile], random: object
) -> None:
    bundle = bundle_of(files)
    save_manifest(bundle, tmp_path / "runs" / "bundle.json")
    assert load_manifest(tmp_path / "runs" / "bundle.json") == bundle
    random.shuffle(files)  # type: ignore[attr-defined]
    assert digest_files(files) == bundle.digest
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["bundle.json"]


@given(FILES, FILES)
@quiet
def test_no_two_different_manifests_share_a_digest(one: BundleFile, other: BundleFile) -> None:
    same = replace(one, size=0) == replace(other, size=0)  # the size follows from the content
    assert (digest_files([one]) == digest_files([other])) == same


@given(st.binary(max_size=60))
@quiet
def test_any_bytes_are_a_manifest_or_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m").write_bytes(raw)
    with pytest.raises(TransferFailed):
        load_manifest(tmp_path / "m")


ROW = ["a", 1, 0o644, "0" * 64, ""]
BAD_ROWS = [
    [], ["a"], [1, 1, 1, "0" * 64, ""], ["a", -1, 1, "0" * 64, ""], ["a", True, 1, "0" * 64, ""],
    ["a", 1, 0o10000, "0" * 64, ""], ["a", 1, 1, "", ""], ["a", 1, 1, "0" * 63, ""],
    ["a", 1, 1, "0" * 64, "b"],
    ["../a", *ROW[1:]], ["/a", *ROW[1:]], ["a//b", *ROW[1:]], ["", *ROW[1:]], ["a\0", *ROW[1:]],
    ["\ud800", *ROW[1:]],
]  # fmt: skip


@pytest.mark.parametrize("row", BAD_ROWS, ids=repr)
def test_a_bad_row_is_refused(tmp_path: Path, row: list[object]) -> None:
    good = {"format": 1, "digest": "", "files": [row], "ignored": [], "secrets": []}
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        good["digest"] = digest_files([BundleFile(*row)])  # type: ignore[arg-type]
    (tmp_path / "m").write_text(json.dumps(good))
    with pytest.raises(TransferFailed):
        load_manifest(tmp_path / "m")


def test_a_changed_row_does_not_fit_the_digest(tmp_path: Path) -> None:
    save_manifest(bundle_of([BundleFile("a", 1, 0o644, "0" * 64)]), tmp_path / "m")
    (tmp_path / "m").write_text((tmp_path / "m").read_text().replace('"a"', '"b"'))
    with pytest.raises(TransferFailed, match="damaged"):
        load_manifest(tmp_path / "m")


def test_a_missing_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_manifest(tmp_path / "m")


@given(st.text(max_size=12))
@quiet
def test_an_accepted_path_stays_below_its_folder(tmp_path: Path, text: str) -> None:
    try:
        check_path(text)
    except CloudrunError:
        return
    assert (tmp_path / text).resolve().is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        ("a", "b", False), ("a", "..", True), ("d/a", "../b", False), ("d/a", "../../b", True),
        ("a", "/b", True), ("d/a", "..", False), ("a", "b/../../c", True), ("a", "...", False),
        ("a", "..b", False),
    ],
)  # fmt: skip
def test_which_links_leave_their_tree(path: str, target: str, out: bool) -> None:
    assert escapes(path, target) is out
