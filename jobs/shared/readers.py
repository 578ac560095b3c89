"""Readers of two published image formats, each refusing a file that is not what it claims to be.

- MAT ("format 2" of Street View House Numbers, 32x32 digits): X is 32x32x3xN uint8, y is Nx1 with labels
  1 to 10, where 10 stands for the digit 0.
- IDX (MNIST): a big-endian header (two zero bytes, type 8 = uint8, number of dimensions, each size), then the
  bytes; also gzipped.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

MOST_IMAGES = 2_000_000  # refuse headers that claim more: SVHN's largest file has 531,131


class ReaderError(Exception):
    """The file is missing, cut short, or not of this format."""


def read_mat(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images as N x 3 x 32 x 32 uint8 and digits 0..9 as int64."""
    import scipy.io  # a quarter of a second that MNIST does not need

    try:
        found = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(file)}  # reads headers only
        _check_mat_header(file, found)
        content = scipy.io.loadmat(file, variable_names=["X", "y"])
    except ReaderError:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, NotImplementedError,
            struct.error, zlib.error, scipy.io.matlab.MatReadError) as error:  # fmt: skip
        raise ReaderError(f"{file} is cut short, broken, or no MAT file: {error}") from error
    images, labels = content["X"], content["y"].reshape(-1)
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


def _check_mat_header(file: Path, found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    if "X" not in found or "y" not in found:
        raise ReaderError(f"{file} holds {sorted(found)}, expected the variables X and y")
    (x_shape, x_kind), (y_shape, _) = found["X"], found["y"]
    if x_kind != "uint8" or len(x_shape) != 4 or x_shape[:3] != (32, 32, 3):
        raise ReaderError(f"{file}: X is {x_kind} {x_shape}, expected uint8 (32, 32, 3, N)")
    if y_shape != (x_shape[3], 1):
        raise ReaderError(f"{file}: y is {y_shape}, expected ({x_shape[3]}, 1)")
    if x_shape[3] > MOST_IMAGES:
        raise ReaderError(f"{file} announces {x_shape[3]} images, more than {MOST_IMAGES}")


def _read_idx_header(file: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise ReaderError(f"{file} does not start as an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if shape[0] > MOST_IMAGES or any(side > 1024 for side in shape[1:]):
        raise ReaderError(f"{file} announces {'x'.join(map(str, shape))} values, more than an image set has")
    return shape


def _count(content: bytes, size: int) -> str:
    return "more" if len(content) > size else str(len(content))
