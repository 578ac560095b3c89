"""The data sets: split, label of the digit 0, limits, and which set `auto` takes."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import digits
import numpy as np
import pytest
import render
import scipy.io
import torch


def numbered_pair(count: int, *, first: int) -> digits.Pair:
    """`count` images that carry their own number in their first bytes."""
    images = np.zeros((count, 3, 32, 32), np.uint8)
    images[:, 0, 0, :4] = np.arange(first, first + count, dtype=">u4").view(np.uint8).reshape(count, 4)
    return images, np.arange(count, dtype=np.int64) % 10


def numbers(images: np.ndarray) -> set[int]:
    return set(np.ascontiguousarray(images[:, 0, 0, :4]).view(">u4").reshape(-1).tolist())


def test_validation_is_400_a_class_of_train_and_200_of_extra() -> None:
    """With files as large as the rule needs, the split has the sizes of the paper and nothing is in both."""
    train, extra = numbered_pair(40_100, first=0), numbered_pair(20_100, first=100_000)
    (kept, kept_labels), (val, val_labels) = digits.split(train, extra)
    assert np.bincount(val_labels).tolist() == [600] * 10
    of_train = {number for number in numbers(val) if number < 100_000}
    assert (len(of_train), len(numbers(val)) - len(of_train)) == (4000, 2000)
    assert numbers(kept).isdisjoint(numbers(val))
    assert numbers(kept) | numbers(val) == numbers(train[0]) | numbers(extra[0])
    for images, labels in ((kept, kept_labels), (val, val_labels)):
        own = np.ascontiguousarray(images[:, 0, 0, :4]).view(">u4").reshape(-1) % 10
        assert (own == labels).all()  # each image kept its label
    assert len(kept_labels) == 60_200 - 6000


def test_the_split_is_the_same_each_time_and_small_files_give_less() -> None:
    train = numbered_pair(2000, first=0)
    (_, _), (val, labels) = digits.split(train, None)
    assert np.bincount(labels).tolist() == [20] * 10
    assert numbers(digits.split(train, None)[1][0]) == numbers(val)


def test_a_class_too_small_is_refused() -> None:
    images, labels = numbered_pair(1000, first=0)
    labels[labels == 3] = 4
    with pytest.raises(digits.DataError, match="digit 3"):
        digits.split((images, labels), None)


def test_mean_image_and_normalised_batch() -> None:
    images = torch.randint(0, 256, (9000, 3, 32, 32), dtype=torch.uint8)
    mean = digits.mean_image(images)
    torch.testing.assert_close(mean, images.double().mean(0).float())
    batch = digits.normalise(images, mean)
    assert float(batch.mean(0).abs().max()) < 1e-4
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_rendered_sets_are_true_mat_files_with_test_in_unseen_typefaces(tmp_path: Path) -> None:
    data = digits.load("rendered", tmp_path, limit=900)
    assert "NOT SVHN" in data.about
    assert "(810 train, 90 validation, 225 test)" in data.about
    (folder,) = (tmp_path / "rendered").iterdir()
    content = scipy.io.loadmat(folder / "train_32x32.mat")
    assert (content["X"].shape, content["X"].dtype) == ((32, 32, 3, 600), np.uint8)
    assert (content["y"].shape, content["y"].dtype) == ((600, 1), np.uint8)
    assert set(content["y"].reshape(-1).tolist()) == set(range(1, 11))
    assert set(render.TEST_FONTS).isdisjoint(render.TRAIN_FONTS)
    assert len(render.TEST_FONTS) + len(render.TRAIN_FONTS) == len(render.FONTS)

    drawn = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = digits.load("rendered", tmp_path, limit=900)
    assert torch.equal(again.train.images, data.train.images)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == drawn  # not drawn again


def test_drawing_depends_on_the_seed_alone() -> None:
    one, two, other = (render.draw(300, render.TRAIN_FONTS, seed=seed) for seed in (1, 1, 2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
    assert (one[0] != other[0]).any()


def test_classes_are_as_uneven_as_in_svhn() -> None:
    _, labels = render.draw(4000, render.TRAIN_FONTS, seed=1)
    share = np.bincount(labels, minlength=10) / 4000
    assert sum(render.CLASS_COUNTS) == 73_257
    assert share == pytest.approx(np.array(render.CLASS_COUNTS) / 73_257, abs=0.03)


def test_harder_digits_are_noisier() -> None:
    """The knob: neighbouring pixels of hard digits differ more from a smoothed copy."""
    noise = []
    for hard in (0.0, 1.0, 2.0):
        images = render.draw(300, render.TRAIN_FONTS, seed=1, hard=hard)[0].astype(float)
        noise.append(np.abs(np.diff(images[:, :, :, :3], axis=3)).mean())
    assert noise[0] < noise[1] < noise[2]


def test_every_typeface_draws_ten_different_digits() -> None:
    atlas = render.draw_atlas()
    assert atlas.shape[:2] == (len(render.FONTS), 10)
    for font in atlas:
        differences = torch.cdist(font.flatten(1), font.flatten(1), p=1) + 1e9 * torch.eye(10)
        assert (
            differences.min() > 40
        )  # pixels of ink; a box for "no such character" would be the same ten times


def write_mnist(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())


def test_mnist_is_padded_and_given_three_channels(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", 1000)
    data = digits.load("mnist", tmp_path, limit=400)
    assert "(360 train, 40 validation, 100 test)" in data.about
    images = data.train.images
    assert images.shape == (360, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])
    assert not images[:, :, :2].any()
    assert images[:, :, 2:30, 2:30].float().mean() > 100


def test_mnist_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", 1000)
    file = tmp_path / "mnist" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(digits.DataError, match="train-images-idx3-ubyte"):
        digits.load("mnist", tmp_path)


def write_svhn(folder: Path, count: int = 300) -> None:
    for name in ("train", "extra", "test"):
        render.write_set(folder, name, count)


def test_svhn_files_are_read_through_a_cache_that_follows_them(tmp_path: Path) -> None:
    write_svhn(tmp_path / "svhn")
    first = digits.load("svhn", tmp_path)
    assert first.about.startswith("SVHN (")
    assert torch.equal(digits.load("svhn", tmp_path).train.images, first.train.images)
    for file in (tmp_path / "svhn").glob("*.npz"):
        assert file.stat().st_size > 300 * 3072
    images, labels = render.draw(300, render.TRAIN_FONTS, seed=99)
    changed = {
        "X": images.transpose(2, 3, 1, 0),
        "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8),
    }
    scipy.io.savemat(tmp_path / "svhn" / "train_32x32.mat", changed)
    assert not torch.equal(digits.load("svhn", tmp_path).train.images, first.train.images)


def test_auto_takes_svhn_when_it_is_there_and_says_why_when_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:  # bound and not listening: refuses
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SVHN_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert "NOT SVHN" in digits.load("auto", tmp_path, limit=900).about
        assert "SVHN cannot be had" in capsys.readouterr().out
        with pytest.raises(digits.DataError, match="cannot connect"):
            digits.load("svhn", tmp_path)
        write_svhn(tmp_path / "svhn")
        assert digits.load("auto", tmp_path).about.startswith("SVHN (")
