"""CIFAR-10 from small files in the published format (Python 2's pickles, tar.gz, HTTP), and hostile ones."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import cifar, fetch, imagesets, readers

RANDOM = np.random.default_rng(0)
GIVEN = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def python2_pickle(
    rows: np.ndarray, labels: list[int], *, kind: bytes = b"u1", shape: object = None
) -> bytes:
    """What Python 2 wrote with protocol 2: a dict with text as byte strings and an array of numpy 1."""
    count, width = shape or rows.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01" + integer(count) + integer(width) + b"\x86"
        + b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", rows.size) + rows.tobytes() + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}(" + text("batch_label") + text("training batch 1 of 5") + text("labels") + numbers
        + text("data") + array + text("filenames") + b"](" + text("a.png") + b"e" + b"u."
    )  # fmt: skip


def text(words: str) -> bytes:
    return b"U" + bytes([len(words)]) + words.encode()


def integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def write_batch(file: Path, count: int = 12) -> tuple[np.ndarray, list[int]]:
    rows, labels = RANDOM.integers(0, 256, (count, 3072), np.uint8), [n % 10 for n in range(count)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(python2_pickle(rows, labels))
    return rows, labels


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the archive, and the checksums of its small files. One in it is none of ours."""
    source, folder = tmp_path / "source", tmp_path / "made" / cifar.FOLDER
    source.mkdir()
    for name in cifar.FILE_MD5:
        write_batch(folder / name)
        monkeypatch.setitem(cifar.FILE_MD5, name, md5(folder / name))
    (folder / "readme.html").write_text("none of ours")
    with tarfile.open(source / cifar.ARCHIVE, "w:gz") as archive:
        archive.add(folder, cifar.FOLDER)
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", md5(source / cifar.ARCHIVE))
    return source


@pytest.fixture
def served(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(published)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("CIFAR10_URL", f"http://127.0.0.1:{server.server_address[1]}/")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def test_the_published_format_is_read_channel_by_channel(tmp_path: Path) -> None:
    rows, labels = write_batch(tmp_path / "data_batch_1")
    images, found = cifar.read_batch(tmp_path / "data_batch_1")
    assert (images.shape, images.dtype, found.tolist()) == ((12, 3, 32, 32), np.uint8, labels)
    assert images[7, 2, 5, 11] == rows[7, 2 * 1024 + 5 * 32 + 11]  # blue, row 5, column 11


def test_a_pickle_of_todays_numpy_is_read_too(tmp_path: Path) -> None:
    rows = RANDOM.integers(0, 256, (4, 3072), np.uint8)
    (tmp_path / "a").write_bytes(pickle.dumps({"data": rows, "labels": [1, 2, 3, 4]}, protocol=4))
    images, labels = cifar.read_batch(tmp_path / "a")
    assert np.array_equal(images.reshape(4, 3072), rows)
    assert labels.tolist() == [1, 2, 3, 4]


def test_all_six_files_make_the_two_sets_in_either_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / "a" / "cifar10", tmp_path / "b" / "cifar10" / cifar.FOLDER):
        first, _ = write_batch(folder / "data_batch_1")
        for name in cifar.FILE_MD5:
            if name != "data_batch_1":
                write_batch(folder / name)
        train, test = cifar.read_set(folder.parent if folder.name == "cifar10" else folder.parents[1])
        assert (train[0].shape, test[0].shape) == ((60, 3, 32, 32), (12, 3, 32, 32))
        assert np.array_equal(train[0][:12].reshape(12, 3072), first)


def test_the_archive_is_fetched_checked_and_unpacked_once(served: None, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for _ in range(2):
        sets = imagesets.load("cifar10", "real", data)
        assert sets.about == "CIFAR-10 (60 training, 12 test images)"
        assert sets.train[0].shape == (60, 32, 32, 3)
    assert sorted(file.name for file in (data / "cifar10").iterdir()) == sorted(
        [*cifar.FILE_MD5, cifar.ARCHIVE]
    )


def test_an_archive_with_another_content_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cifar.FILE_MD5, "data_batch_3", "0" * 32)
    with pytest.raises(fetch.FetchError, match="data_batch_3: checksum"):
        cifar.unpack(published / cifar.ARCHIVE, tmp_path)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes((published / cifar.ARCHIVE).read_bytes()[:-2000])
    with pytest.raises(fetch.FetchError, match="cut short or broken"):
        cifar.unpack(cut, tmp_path)
    assert not (tmp_path / "data_batch_3").exists()


def test_an_archive_that_holds_links_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "links.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        link = tarfile.TarInfo(f"{cifar.FOLDER}/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(fetch.FetchError, match="broken"):
        cifar.unpack(file, tmp_path)


def test_without_the_files_a_stand_in_is_named_as_one(
    served: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CIFAR10_URL", "FASHION_URL", "MNIST_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/nobody-listens")
    for name, title in (("cifar10", "CIFAR-10"), ("fashion", "Fashion-MNIST"), ("mnist", "MNIST")):
        sets = imagesets.load(name, "auto", tmp_path, limit=20)
        assert f"NOT {title} (20 training, 20 test images)" in sets.about
        assert f"{title} cannot be had" in capsys.readouterr().out
        with pytest.raises(imagesets.DataError, match="cannot fetch"):
            imagesets.load(name, "real", tmp_path)


class Runs:
    """Pickles as a call of os.system, or of anything else."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_pickle_runs_code(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trap"
    for function, arguments in (
        (os.system, (f"touch {trap}",)),
        (eval, (f"open({str(trap)!r}, 'w')",)),
        (getattr, (trap, "touch")),
        (np.load, (str(trap),)),
        (np.zeros, ((1 << 40,),)),
    ):
        content = pickle.dumps({"data": Runs(function, *arguments), "labels": []}, protocol=protocol)
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(readers.ReaderError, match="it names"):
            cifar.read_batch(tmp_path / "a")
    assert not trap.exists()


ROWS = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle(ROWS, [1, 2], kind=b"O8"), "not an array of bytes"),
        (python2_pickle(ROWS, [1, 2], kind=b"f4"), "not an array of bytes"),
        (python2_pickle(ROWS, [1, 2], shape=(1 << 30, 3072)), "6144 bytes for 1073741824 images"),
        (python2_pickle(ROWS, [1, 2], shape=(-2, 3072)), "bytes for -2 images"),
        (python2_pickle(ROWS, [1, 2], shape=(4, 1536)), "expected N x 3072"),
        (python2_pickle(ROWS, [1, 2, 3]), "3 labels for 2 images"),
        (python2_pickle(ROWS, [1, 11]), "numbers from 0 to 9"),
        (pickle.dumps([1, 2]), "expected a dict"),
        (pickle.dumps({"data": 7, "labels": []}), "not an array of bytes"),
        (python2_pickle(ROWS, [1, 2])[:-20], "cannot be read"),
        (b"", "cannot be read"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "its data is not an array"),  # a memo of 2,147,483,648 places
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", "cannot be read"),  # a terabyte of zeros
    ],
)
def test_another_content_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(readers.ReaderError, match=message):
        cifar.read_batch(tmp_path / "a")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(readers.ReaderError, match="cannot be read"):
        cifar.read_set(tmp_path)


@GIVEN
@given(st.integers(0, 460), st.integers(0, 255), st.booleans())
def test_damaged_programs_end_in_one_error_or_in_images(
    tmp_path: Path, at: int, byte: int, tail: bool
) -> None:
    """A byte changed in the program around the pixels, before or behind them."""
    content = bytearray(python2_pickle(ROWS, [1, 2]))
    at = len(content) - 1 - at % 60 if tail else at % (len(content) - ROWS.size)
    content[at] = byte
    (tmp_path / "a").write_bytes(content)
    try:
        images, labels = cifar.read_batch(tmp_path / "a")
    except readers.ReaderError:
        return
    assert images.shape == (len(labels), 3, 32, 32)
    assert set(labels.tolist()) <= set(range(10))


def test_the_writer_of_these_tests_writes_what_python_reads() -> None:
    """So that the files above are in the true format: Python's own unpickler sees the array."""
    content = pickle.load(io.BytesIO(python2_pickle(ROWS, [1, 2])), encoding="bytes")
    assert np.array_equal(content[b"data"], ROWS)
    assert content[b"labels"] == [1, 2]
