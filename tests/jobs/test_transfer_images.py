"""Folders of images: classes, tables, splits, and files that are not what they claim to be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transfer_help import job, write_classes, write_image, write_table

SplitBy, read_folder = job.folder.SplitBy, job.folder.read_folder


def names_of(images: job.folder.ImageSet, part: str) -> set[int]:
    return set(images.parts[part].tolist())


def test_class_folders_are_split_the_same_way_each_time(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photos", 60)
    images = read_folder(folder, tmp_path / "cache")
    assert images.classes == ("blue", "red")
    assert [sum(len(part) for part in images.parts.values()), len(images.targets)] == [120, 120]
    assert len(set.union(*(names_of(images, part) for part in images.parts))) == 120
    assert 65 < len(images.parts["train"]) < 100
    again = read_folder(folder, tmp_path / "cache")
    assert all((again.parts[part] == images.parts[part]).all() for part in images.parts)
    pixels = images.read(20)
    assert (pixels.shape, pixels.dtype) == ((120, 3, 20, 20), np.uint8)
    red = images.targets == images.classes.index("red")
    assert pixels[red][:, 0].mean() > 150 > 100 > pixels[red][:, 2].mean()
    assert "2 classes" in images.described()


def test_given_train_and_test_folders_are_kept(tmp_path: Path) -> None:
    write_classes(tmp_path / "set" / "train", 30)
    write_classes(tmp_path / "set" / "test", 5)
    images = read_folder(tmp_path / "set", tmp_path / "cache")
    assert len(images.parts["test"]) == 10
    assert len(images.parts["train"]) + len(images.parts["val"]) == 60
    assert names_of(images, "train").isdisjoint(names_of(images, "val"))


def test_a_table_of_scores_is_split_by_year_with_the_big_races_for_test(tmp_path: Path) -> None:
    lines = ["file,target,year,big"]
    for number in range(24):
        write_image(tmp_path / "horses" / f"{number}.png", (number * 10, 0, 0))
        lines.append(f"{number}.png,{number / 23:.3f},{2014 + number % 4},{number % 8 == 3:d}")
    images = read_folder(
        write_table(tmp_path / "horses", lines), tmp_path, split_by=SplitBy("year", "2017", "big")
    )
    assert images.classes == ()
    assert images.targets.dtype == np.float32
    assert images.parts["test"].tolist() == [3, 11, 19]
    assert images.parts["val"].tolist() == [7, 15, 23]
    assert len(images.parts["train"]) == 18


def test_a_group_stays_on_one_side_of_the_split(tmp_path: Path) -> None:
    lines = ["file,target,group"]
    for number in range(90):
        write_image(tmp_path / "t" / f"{number}.png", (0, 0, 0))
        lines.append(f"{number}.png,{'abc'[number % 3]},person{number // 3}")
    images = read_folder(write_table(tmp_path / "t", lines), tmp_path / "cache")
    assert images.classes == ("a", "b", "c")
    people = [{number // 3 for number in names_of(images, part)} for part in ("train", "val", "test")]
    assert sum(map(len, people)) == len(set.union(*people)) == 30


def test_transparent_images_lie_on_white_and_others_are_cropped_in_the_middle(tmp_path: Path) -> None:
    write_image(tmp_path / "s" / "a" / "clear.png", (255, 0, 0, 0))
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (0, 255, 0)
    (tmp_path / "s" / "b").mkdir()
    Image.fromarray(wide).save(tmp_path / "s" / "b" / "wide.png")
    decode = job.folder._decode_one
    assert (decode(tmp_path / "s" / "a" / "clear.png", 16) == 255).all()
    middle = decode(tmp_path / "s" / "b" / "wide.png", 10)
    assert middle[1].min() > 200
    assert middle[0].max() < 60


def test_decoded_images_are_kept_and_follow_their_files(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photos", 20)
    images = read_folder(folder, tmp_path / "cache")
    images.read(16)
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_size > 40 * 16 * 16 * 3
    write_image(folder / "red" / "r000.png", (0, 255, 0), side=30)
    changed = read_folder(folder, tmp_path / "cache").read(16)
    assert changed[20:, 1].max() == 255


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["file,target", "../secret.png,1"], "row 2.*not the name of a file in that folder"),
        (["file,target", "/etc/hostname,1"], "row 2.*not the name of a file in that folder"),
        (["file,target", "gone.png,1"], "row 2.*is not there"),
        (["picture,target", "a.png,1"], "has no column file"),
        (["file,target"], "or no row"),
        (["file,target", "a.png,nan"], "not a finite number"),
        (["file,target", "a.png,"], "has no target"),
    ],
)
def test_bad_tables_are_refused_by_row(lines: list[str], complaint: str, tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png", (0, 0, 0))
    write_image(tmp_path / "t" / "a.png", (0, 0, 0))
    with pytest.raises(job.folder.DataError, match=complaint):
        read_folder(write_table(tmp_path / "t", lines), tmp_path / "cache")


def test_folders_without_classes_and_broken_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(job.folder.DataError, match="is not a folder"):
        read_folder(tmp_path / "nowhere", tmp_path)
    (tmp_path / "one" / "only").mkdir(parents=True)
    with pytest.raises(job.folder.DataError, match="fewer than two folders"):
        read_folder(tmp_path / "one", tmp_path)
    folder = write_classes(tmp_path / "photos", 20)
    cut = folder / "red" / "r003.png"
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(job.folder.DataError, match=r"r003\.png cannot be decoded"):
        read_folder(folder, tmp_path / "cache").read(16)


def test_drawn_shapes_are_the_same_each_time_and_say_what_they_are(tmp_path: Path) -> None:
    first, second = (job.drawn.write_shapes(tmp_path / name, 12) for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.glob("*/*.png"))
    assert len(files) == 12
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_sizes_are_a_table_split_by_year_whose_score_is_the_size(tmp_path: Path) -> None:
    sources = [(f"g{n // 2}", write_image(tmp_path / "src" / f"{n}.png", (0, 0, 0))) for n in range(120)]
    folder = job.drawn.write_sizes(tmp_path, sources, name="test")
    images = read_folder(folder, tmp_path / "cache", split_by=SplitBy("year", "2017", "big"))
    dark = (images.read(64).mean(1) < 75).sum((1, 2))
    side = 64 * (job.drawn.LEAST + (job.drawn.MOST - job.drawn.LEAST) * images.targets)
    assert np.corrcoef(np.sqrt(dark), side)[0, 1] > 0.999
    groups = [{number // 2 for number in names_of(images, part)} for part in ("train", "val", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 60


def test_the_real_emoji_are_nine_classes_without_a_leak() -> None:
    script = Path(__file__).with_name("fetch_emoji.sh")
    fetched = subprocess.run([script], capture_output=True, text=True, timeout=150)
    if fetched.returncode == 3:
        pytest.skip(f"the emoji are missing: {fetched.stderr.strip()}")
    assert fetched.returncode == 0, fetched.stderr
    images = job.sets.load("emoji", Path(fetched.stdout.strip()))
    assert len(images.classes) == 9
    assert len(images.targets) == 2 * 1906
    rows = job.sets.list_emoji(Path(fetched.stdout.strip()))
    codes = [{rows[number][2] for number in names_of(images, part)} for part in ("train", "val", "test")]
    assert sum(map(len, codes)) == len(set.union(*codes)) == 1906
