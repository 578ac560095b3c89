"""Readers of two published image formats, each refusing a file that is not what it claims to be.

- MAT ("format 2" of Street View House Numbers, 32x32 digits, http://ufldl.stanford.edu/housenumbers; the
  container is MathWorks' "MAT-File Format", level 5): X is 32x32x3xN uint8, y is Nx1 with labels 1 to 10,
  where 10 stands for the digit 0.
- IDX (MNIST, http://yann.lecun.com/exdb/mnist): a big-endian header (two zero bytes, type 8 = uint8, number
  of dimensions, each size), then the bytes; also gzipped.
"""

from __future__ import annotations

import gzip
import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MATRIX, COMPRESSED = 14, 15  # types of elements in a MAT file
NUMBER_TYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
MOST_IMAGES = 2_000_000  # refuse headers that claim more: SVHN's largest file has 531,131
MOST_BYTES = MOST_IMAGES * 3072


class ReaderError(Exception):
    """The file is missing, cut short, or not of this format."""


def read_mat(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images as N x 3 x 32 x 32 uint8 and digits 0..9 as int64.

    Own code for the one shape of file that is expected: general readers crash on some damaged files.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = dict(_read_arrays(file, content))
    except (OSError, ValueError, IndexError, struct.error, zlib.error) as error:
        raise ReaderError(f"{file} is cut short, broken, or no MAT file: {error}") from error
    if found.keys() != {"X", "y"}:
        raise ReaderError(f"{file} holds {sorted(found)}, expected the variables X and y")
    images, labels = found["X"], found["y"].reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise ReaderError(f"{file}: X is {images.dtype} {images.shape}, expected uint8 (32, 32, 3, N)")
    if found["y"].shape != (images.shape[3], 1):
        raise ReaderError(f"{file}: y is {found['y'].shape}, expected {(images.shape[3], 1)}")
    if labels.size and not 1 <= labels.min() <= labels.max() <= 10:
        raise ReaderError(
            f"{file}: labels from {labels.min()} to {labels.max()}, expected 1 to 10 (10 = digit 0)"
        )
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of a file with that many dimensions; `file` or `file`.gz."""
    packed = file.with_name(file.name + ".gz")
    if not file.is_file() and not packed.is_file():
        raise ReaderError(f"neither {file} nor {packed.name} is there")
    try:
        with file.open("rb") if file.is_file() else gzip.open(packed, "rb") as stream:
            shape = _read_idx_header(file, stream.read(4 + 4 * dimensions), dimensions)
            size = int(np.prod(shape, dtype=np.int64))
            content = stream.read(size + 1)  # one more byte than there should be shows a wrong header
    except (OSError, EOFError, zlib.error) as error:
        raise ReaderError(f"{file} cannot be read, it is cut short or broken: {error}") from error
    if len(content) != size:
        raise ReaderError(
            f"{file}: {'x'.join(map(str, shape))} bytes announced, {_count(content, size)} found"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_arrays(file: Path, content: mmap.mmap) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a little-endian MAT file of level 5, by name. A name may not come twice."""
    if content[124:128] != b"\x00\x01IM":
        raise ReaderError(f"{file} does not start as a MAT file of level 5")
    at, names = 128, set()
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        if at + 8 + size > len(content):
            raise ReaderError(f"{file} is cut short: {at + 8 + size} bytes announced, {len(content)} found")
        with memoryview(content)[at + 8 : at + 8 + size] as element:
            name, array = _parse_array(_inflate(element) if kind == COMPRESSED else bytes(element))
        if name in names:
            raise ReaderError(f"{file} holds {name!r} twice")
        names.add(name)
        yield name, array
        at += 8 + size


def _inflate(element: memoryview) -> bytes:
    """The content of the one array in a compressed element: no longer than its header says."""
    stream = zlib.decompressobj()
    head = stream.decompress(element, 8)
    kind, size = struct.unpack("<II", head)
    if kind != MATRIX or size > MOST_BYTES:
        raise ValueError(f"an element of type {kind} and {size} bytes, expected an array")
    # One byte more than announced, so that the end of the stream and its checksum are reached.
    body = stream.decompress(stream.unconsumed_tail, size + 1)
    if len(body) != size or not stream.eof:
        raise ValueError(f"an array of {size} bytes announced, another length found")
    return body


def _parse_array(body: bytes) -> tuple[str, np.ndarray]:
    """Four elements: flags, dimensions, name, values (in memory order of the first index)."""
    _, _, at = _element(body, 0)
    _, dimensions, at = _element(body, at)
    _, name, at = _element(body, at)
    kind, values, _ = _element(body, at)
    if kind not in NUMBER_TYPES:
        raise ValueError(f"values of type {kind}, expected whole numbers or floats")
    shape = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
    array = np.frombuffer(values, NUMBER_TYPES[kind])
    if min(shape, default=-1) < 0 or array.size != math.prod(shape):
        raise ValueError(f"{array.size} values for the dimensions {shape}")
    return bytes(name).decode("ascii"), array.reshape(shape, order="F")


def _element(body: bytes, at: int) -> tuple[int, memoryview, int]:
    """Type, data and the place of the next element; up to four bytes of data stand in the tag itself."""
    kind, size = struct.unpack_from("<II", body, at)
    start, following = at + 8, at + 8 + -(-size // 8) * 8
    if kind >> 16:
        kind, size, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    if start + size > len(body):
        raise ValueError(f"an element of {size} bytes in an array of {len(body)}")
    return kind, memoryview(body)[start : start + size], following


def _read_idx_header(file: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise ReaderError(f"{file} does not start as an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if shape[0] > MOST_IMAGES or any(side > 1024 for side in shape[1:]):
        raise ReaderError(f"{file} announces {'x'.join(map(str, shape))} values, more than an image set has")
    return shape


def _count(content: bytes, size: int) -> str:
    return "more" if len(content) > size else str(len(content))
