"""Published formats, read from small files in the true layout; and files that lie about themselves."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import readers

RANDOM = np.random.default_rng(0)


def write_mat(file: Path, images: object = None, labels: object = None, *, compressed: bool = True) -> Path:
    images = RANDOM.integers(0, 256, (32, 32, 3, 30), np.uint8) if images is None else images
    labels = (np.arange(30, dtype=np.uint8) % 10 + 1)[:, None] if labels is None else labels
    scipy.io.savemat(file, {"X": images, "y": labels}, do_compression=compressed)
    return file


def write_idx(file: Path, array: np.ndarray) -> bytes:
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    file.write_bytes(content)
    return content


@pytest.mark.parametrize("compressed", [True, False])
def test_mat_layout_and_label_ten_is_the_digit_zero(tmp_path: Path, compressed: bool) -> None:
    source = RANDOM.integers(0, 256, (32, 32, 3, 30), np.uint8)
    images, labels = readers.read_mat(write_mat(tmp_path / "a.mat", source, compressed=compressed))
    assert images.shape == (30, 3, 32, 32)
    assert images[7, 2, 5, 11] == source[5, 11, 2, 7]  # row 5, column 11 of the third channel of image 7
    assert labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 3


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 32, 32, 30), np.uint8), None, "expected uint8"),
        (np.zeros((32, 32, 3, 30)), None, "expected uint8"),
        (None, np.ones((29, 1), np.uint8), r"expected \(30, 1\)"),
        (None, np.zeros((30, 1), np.uint8), "expected 1 to 10"),
        (None, np.full((30, 1), 11, np.uint8), "expected 1 to 10"),
    ],
)
def test_mat_with_another_content_is_refused(
    tmp_path: Path, images: object, labels: object, message: str
) -> None:
    with pytest.raises(readers.ReaderError, match=message):
        readers.read_mat(write_mat(tmp_path / "a.mat", images, labels))


def test_mat_without_the_variables_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"Z": np.zeros(3)})
    with pytest.raises(readers.ReaderError, match="expected the variables X and y"):
        readers.read_mat(tmp_path / "a.mat")
    with pytest.raises(readers.ReaderError, match=r"missing\.mat"):
        readers.read_mat(tmp_path / "missing.mat")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), compressed=st.booleans())
def test_mat_cut_anywhere_is_refused(tmp_path: Path, share: float, compressed: bool) -> None:
    whole = write_mat(tmp_path / "whole.mat", compressed=compressed).read_bytes()
    (tmp_path / "cut.mat").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(readers.ReaderError, match=r"cut\.mat"):
        readers.read_mat(tmp_path / "cut.mat")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 500), value=st.integers(0, 255), compressed=st.booleans())
def test_mat_with_a_changed_byte_is_read_or_refused(
    tmp_path: Path, place: int, value: int, compressed: bool
) -> None:
    whole = bytearray(write_mat(tmp_path / "whole.mat", compressed=compressed).read_bytes())
    whole[place] = value
    (tmp_path / "bad.mat").write_bytes(whole)
    try:
        images, labels = readers.read_mat(tmp_path / "bad.mat")
    except readers.ReaderError:
        return
    assert images.shape == (30, 3, 32, 32)
    assert set(labels.tolist()) <= set(range(10))


@pytest.mark.parametrize("packed", [False, True])
def test_idx_plain_and_gzipped(tmp_path: Path, packed: bool) -> None:
    array = RANDOM.integers(0, 256, (7, 4, 5), np.uint8)
    content = write_idx(tmp_path / "images", array)
    if packed:
        (tmp_path / "images").unlink()
        (tmp_path / "images.gz").write_bytes(gzip.compress(content))
    assert (readers.read_idx(tmp_path / "images", 3) == array).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole[:-1], "139 found"),
        (lambda whole: whole + b"\0", "more found"),
        (lambda whole: whole[:9], "does not start"),
        (lambda whole: b"", "does not start"),
        (lambda whole: b"\0\0\x0d\x03" + whole[4:], "does not start"),
        (lambda whole: whole[:3] + b"\x01" + whole[4:], "does not start"),
        (lambda whole: whole[:4] + b"\xff\xff\xff\xff" + whole[8:], "more than"),
        (lambda whole: whole[:8] + b"\x7f\xff\xff\xff" + whole[12:], "more than"),
    ],
)
def test_idx_that_lies_is_refused(tmp_path: Path, change: object, message: str) -> None:
    whole = write_idx(tmp_path / "images", np.zeros((7, 4, 5), np.uint8))
    (tmp_path / "images").write_bytes(change(whole))
    with pytest.raises(readers.ReaderError, match=message):
        readers.read_idx(tmp_path / "images", 3)


def test_idx_gzip_that_is_cut_or_none_at_all_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(write_idx(tmp_path / "whole", np.zeros((7, 4, 5), np.uint8)))
    for bad in (content[:-12], b"no gzip", b""):
        (tmp_path / "images.gz").write_bytes(bad)
        with pytest.raises(readers.ReaderError, match="images"):
            readers.read_idx(tmp_path / "images", 3)
    with pytest.raises(readers.ReaderError, match="neither"):
        readers.read_idx(tmp_path / "nothing", 3)
