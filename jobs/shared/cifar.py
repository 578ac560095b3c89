"""CIFAR-10 as published: the archive of Python pickles, fetched, unpacked and read without running any of it.

A pickle is a program for a small machine that can call any function it names. The one here knows three names,
those of an array, and what they stand for is our own: a note of shape, type and bytes, checked before numpy
sees it. Format: https://www.cs.toronto.edu/~kriz/cifar.html; CIFAR10_URL names another source.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from shared import fetch, readers

Pair = tuple[np.ndarray, np.ndarray]  # images N x 3 x 32 x 32 uint8, labels N int64
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
URLS = ("https://www.cs.toronto.edu/~kriz",)
ARCHIVE, ARCHIVE_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"  # inside the archive
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
FILE_MD5 = {  # as published with torchvision's CIFAR10
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
MOST_BYTES = 64 << 20  # of a file: the published ones have 31 MB
ROW = 3 * 32 * 32
REFUSED = frozenset(  # instructions that no image set needs: calls by other ways, memory without bytes for it
    code[0]
    for code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.BINPERSID,
                 pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER)
)  # fmt: skip


def fetch_set(data: Path) -> None:
    """Make data/cifar10 hold the six published files (170 MB to fetch). Files that are there are taken.

    They may also lie in data/cifar10/cifar-10-batches-py, as the archive unpacks. Raises fetch.FetchError.
    """
    folder = data / "cifar10"
    if _find(folder):
        return
    print(f"fetching CIFAR-10: {ARCHIVE}, 170 MB", flush=True)
    urls = [f"{base}/{ARCHIVE}" for base in fetch.sources("CIFAR10_URL", URLS)]
    unpack(fetch.fetch(urls, folder / ARCHIVE, ARCHIVE_MD5), folder)


def unpack(archive: Path, folder: Path) -> None:
    """Take the six files out of the archive, each checked and renamed into place; nothing else of it."""
    try:
        with tarfile.open(archive, "r:gz") as content:
            for name in FILE_MD5:
                member = content.extractfile(f"{FOLDER}/{name}")
                if member is None:
                    raise fetch.FetchError(f"{archive}: {name} is no ordinary file")
                _put(folder / name, member.read(MOST_BYTES))
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
        raise fetch.FetchError(f"{archive} is cut short or broken: {error}") from error


def read_set(data: Path) -> tuple[Pair, Pair]:
    """The 50,000 training and the 10,000 test images. Raises readers.ReaderError."""
    folder = _find(data / "cifar10") or data / "cifar10"
    parts = [read_batch(folder / name) for name in TRAIN_FILES]
    train = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return train, read_batch(folder / "test_batch")


def read_batch(file: Path) -> Pair:
    """One of the files: a dict of `data` (N x 3072 bytes: red, green, blue, each row by row) and `labels`."""
    try:
        with file.open("rb") as stream:
            content = _Unpickler(io.BytesIO(stream.read(MOST_BYTES)), encoding="bytes").load()
    except Exception as error:  # a hostile program can make the unpickler raise anything
        raise readers.ReaderError(f"{file} cannot be read as a file of CIFAR-10: {error}") from error
    if not isinstance(content, dict):
        raise readers.ReaderError(f"{file} holds a {type(content).__name__}, expected a dict")
    named = {_text(name): value for name, value in content.items()}
    images, labels = _images(file, named.get("data")), named.get("labels")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise readers.ReaderError(f"{file}: the labels are not a list of numbers from 0 to 9")
    if len(labels) != len(images):
        raise readers.ReaderError(f"{file}: {len(labels)} labels for {len(images)} images")
    return images, np.array(labels, np.int64)


class _Array:
    """What an array's pickle says, as notes. Nothing is computed from it before `_images` looks at it."""

    shape: Any = None
    kind: Any = None
    content: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.kind, in_columns, self.content = state
        if in_columns:
            raise ValueError("an array in the order of columns")


class _Kind:
    """An array's type. Its state says how bytes are ordered, which single bytes are not."""

    def __init__(self, *words: Any) -> None:
        self.name = _text(words[0]) if words else ""

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle._Unpickler):
    """The one that is written in Python: the other takes gigabytes for a short program that asks for them."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: step for code, step in pickle._Unpickler.dispatch.items() if code not in REFUSED
    }

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Array if name == "ndarray" else _Kind
        raise pickle.UnpicklingError(f"it names {module}.{name}, which an image set has no use for")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _images(file: Path, array: Any) -> np.ndarray:
    if not isinstance(array, _Array) or not isinstance(array.kind, _Kind) or array.kind.name != "u1":
        raise readers.ReaderError(f"{file}: its data is not an array of bytes")
    shape, content = array.shape, array.content
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] != ROW or not isinstance(content, bytes):
        raise readers.ReaderError(f"{file}: its data has the shape {shape}, expected N x {ROW}")
    if not content or len(content) != shape[0] * ROW:
        raise readers.ReaderError(f"{file}: {len(content)} bytes for {shape[0]} images")
    return np.frombuffer(content, np.uint8).reshape(-1, 3, 32, 32)


def _find(folder: Path) -> Path | None:
    """Where the six files are: in the folder, or in the archive's folder in it."""
    places = (folder, folder / FOLDER)
    return next((at for at in places if all((at / name).is_file() for name in FILE_MD5)), None)


def _put(file: Path, content: bytes) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != FILE_MD5[file.name]:
        raise fetch.FetchError(f"{file.name}: checksum {found}, expected {FILE_MD5[file.name]}")
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(content)
    partial.replace(file)


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)
