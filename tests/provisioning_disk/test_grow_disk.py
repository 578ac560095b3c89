"""10-grow-disk.sh on real disks: partition tables, file systems and volumes, mounted as /."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from small_kernel import MIB, Done, Kernel, kernel_for, make_disk, need_programs

SMALL_MIB, BIG_MIB = 320, 900  # mkfs.xfs makes none below 300 MiB
ONE = "label: gpt\nstart=2048\n"
MAKES = {
    "ext4": "mkfs.ext4 -q $part && become_root $part",
    "xfs": "mkfs.xfs -q -K -f $part && become_root $part",
    "btrfs": "mkfs.btrfs -q -f $part && become_root $part",
    "f2fs": "mkfs.f2fs -q -f $part && become_root $part",
    "lvm": "pvcreate -q $part && vgcreate -q vg $part && lvcreate -q -l 100%FREE -n root vg"
    " && mkfs.ext4 -q /dev/mapper/vg-root && become_root /dev/mapper/vg-root",
}
PROGRAMS = {
    "ext4": ("mkfs.ext4", "resize2fs"),
    "xfs": ("mkfs.xfs", "xfs_growfs"),
    "btrfs": ("mkfs.btrfs",),
    "f2fs": ("mkfs.f2fs",),
    "lvm": ("pvcreate", "mkfs.ext4", "resize2fs"),
}


def kernel_of(layout: str, tmp_path: Path) -> Kernel:
    need_programs("sfdisk", "growpart", *PROGRAMS[layout])
    return kernel_for(layout, tmp_path)


def grow(layout: str, tmp_path: Path, commands: str, table: str = ONE, *, big: int = BIG_MIB) -> Done:
    """Make that layout on a disk that was made bigger, and run the commands with it as /."""
    kernel = kernel_of(layout, tmp_path)
    image = make_disk(tmp_path / "disk.img", table, mib=SMALL_MIB, grown_to_mib=big)
    return kernel.run(image, f"{MAKES[layout]} || exit 1\n{commands}")


def partition_mib(tmp_path: Path) -> int:
    """Of the first one."""
    done = subprocess.run(["sfdisk", "--json", tmp_path / "disk.img"], capture_output=True, check=True)
    return int(json.loads(done.stdout)["partitiontable"]["partitions"][0]["size"]) * 512 // MIB


@pytest.mark.parametrize("layout", ["ext4", "xfs", "btrfs", "lvm"])
def test_it_takes_in_the_whole_disk_while_mounted_and_the_second_time_does_nothing(
    layout: str, tmp_path: Path
) -> None:
    done = grow(layout, tmp_path, "size\nstep check\nstep apply\nsize\nfreeze\nstep apply\nsize\n")
    assert (done.codes("check"), done.codes("apply")) == ([1], [0, 0]), done.words
    before, grown, after = done.sizes_mib()
    assert before < SMALL_MIB
    assert BIG_MIB * 0.9 < grown == after <= BIG_MIB


@pytest.mark.parametrize("layout", ["xfs", "btrfs"])
def test_a_disk_with_no_room_is_left_alone(layout: str, tmp_path: Path) -> None:
    done = grow(layout, tmp_path, "freeze\nstep check\nstep apply\n", big=SMALL_MIB)
    assert (done.codes("check"), done.codes("apply")) == ([0], [0]), done.words


def test_what_was_cut_off_after_the_partition_is_completed(tmp_path: Path) -> None:
    done = grow("xfs", tmp_path, "growpart $disk 1\nstep check\nstep apply\nstep check\nsize\n")
    assert (done.codes("check"), done.codes("apply")) == ([1, 0], [0]), done.words
    assert done.sizes_mib()[0] > BIG_MIB * 0.9


def test_a_file_system_on_the_whole_disk(tmp_path: Path) -> None:
    kernel = kernel_of("xfs", tmp_path)
    image = make_disk(tmp_path / "disk.img", ONE, mib=SMALL_MIB, grown_to_mib=BIG_MIB)
    making = (
        f"partx --delete $disk; mkfs.xfs -q -K -f -d size={SMALL_MIB}m $disk && become_root $disk || exit 1"
    )
    done = kernel.run(image, f"{making}\nstep check\nstep apply\nstep check\nsize\n")
    assert (done.codes("check"), done.codes("apply")) == ([1, 0], [0]), done.words
    assert done.sizes_mib()[0] > BIG_MIB * 0.85  # but for the log


def test_the_first_partition_may_lie_behind_others_as_in_ubuntus_images(tmp_path: Path) -> None:
    table = "label: gpt\nstart=34816\nstart=2048, size=8192\nstart=10240, size=24576\n"
    done = grow("btrfs", tmp_path, "step check\nstep apply\nstep check\nsize\n", table)
    assert (done.codes("check"), done.codes("apply")) == ([1, 0], [0]), done.words
    assert done.sizes_mib()[0] > BIG_MIB * 0.9


def test_a_partition_that_is_not_the_last_is_refused_with_words(tmp_path: Path) -> None:
    table = "label: gpt\nstart=2048, size=616448\nstart=618496\n"  # 301 MiB, the rest
    done = grow("xfs", tmp_path, "size\nstep check\nstep apply\nsize\n", table)
    assert (done.codes("check"), done.codes("apply")) == ([1], [1]), done.words
    refusal = dict(done.said)["apply"]
    assert "is not its last: the room behind" in refusal
    assert len(set(done.sizes_mib())) == 1
    assert partition_mib(tmp_path) == 301


def test_a_partition_before_another_is_no_fault_where_no_room_is_left(tmp_path: Path) -> None:
    table = "label: gpt\nstart=2048, size=616448\nstart=618496\n"
    done = grow("xfs", tmp_path, "freeze\nstep check\nstep apply\n", table, big=SMALL_MIB)
    assert (done.codes("check"), done.codes("apply")) == ([0], [0]), done.words


def test_an_unknown_file_system_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    done = grow("f2fs", tmp_path, "step check\nstep apply\n")
    assert (done.codes("check"), done.codes("apply")) == ([1], [1]), done.words
    assert "kind f2fs is not known to this step" in dict(done.said)["apply"]
    assert partition_mib(tmp_path) < SMALL_MIB
