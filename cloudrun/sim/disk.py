"""The disk of a namespace machine: a sparse image with a partition table, attached as a loop device.

The device detaches itself when nobody holds it any more: neither this process (`attached.close()`, or its
end) nor the machine that has it mounted. So nothing can be left behind.

The file system is ext4, as in Ubuntu's images, or XFS, as in Amazon Linux's, where ext4 cannot be grown
while it is mounted: that takes CAP_SYS_RESOURCE, which root in a container often lacks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
SECTOR_BYTES = 512
FIRST_SECTOR = 2048
LINUX_ROOT = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"  # GPT's type for Linux data
# <linux/loop.h>
LOOP_SET_FD, LOOP_CLR_FD, LOOP_SET_STATUS64 = 0x4C00, 0x4C01, 0x4C04
LOOP_SET_CAPACITY, LOOP_CTL_GET_FREE = 0x4C07, 0x4C82
AUTOCLEAR, PARTSCAN = 4, 8
LOOP_INFO64 = "5Q4I64s64s32s2Q"
CAP_SYS_RESOURCE = 24
BLOCK = Path("/sys/block")
DETACH_WAIT_S = 5.0


@dataclass(slots=True)
class Attached:
    """An image as a block device, for as long as `fd` is open or its partition is mounted."""

    fd: int
    device: str  # /dev/loop7
    partition: str  # /dev/loop7p1
    image: Path

    def resized(self) -> None:
        """The image has another size now."""
        fcntl.ioctl(self.fd, LOOP_SET_CAPACITY)

    def close(self) -> None:
        """Let go of it. Blocks until the kernel has detached it, a moment after its last user. Idempotent."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        backing = BLOCK / Path(self.device).name / "loop" / "backing_file"
        deadline = time.monotonic() + DETACH_WAIT_S
        while _read(backing) == str(self.image) and time.monotonic() < deadline:
            time.sleep(0.002)


class Image:
    """One disk as a file. Sizes in GiB, as clouds mean them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def file_system(self) -> str:
        return "xfs" if self.path.suffix == ".xfs" else "ext4"

    @property
    def options(self) -> str:
        """How to mount it. No background writes into the sparse image, no flushes down to the real disk:
        what a crash of this computer would take is a rehearsal."""
        return (
            "noinit_itable,nobarrier" if self.file_system == "ext4" else "nouuid"
        )  # a copy has the same one

    def copy(self, to: Path) -> Image:
        """The same disk once more, its holes kept. Of one that is attached nowhere. Raises OSError."""
        draft = to.with_name(".draft" + to.suffix)
        _run("cp", "--sparse=always", "--reflink=auto", str(self.path), str(draft))
        draft.replace(to)
        return Image(to)

    def make(self, disk_gb: int) -> None:
        """An empty disk of that size: partition table, one partition, file system. Takes 0.1 s."""
        draft = self.path.with_name(".draft" + self.path.suffix)
        draft.unlink(missing_ok=True)
        with draft.open("wb") as file:
            file.truncate(disk_gb * GIB)
        table = f"label: gpt\nstart={FIRST_SECTOR}, type={LINUX_ROOT}\n"
        _run("sfdisk", "--quiet", str(draft), input=table)
        attached = attach(draft)
        try:
            if self.file_system == "xfs":
                _run("mkfs.xfs", "-q", "-K", "-f", attached.partition)
            else:
                lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
                _run("mkfs.ext4", "-q", "-m", "0", "-E", lazy, attached.partition)
        finally:
            attached.close()
        draft.replace(self.path)

    @property
    def size_gb(self) -> int:
        return self.path.stat().st_size // GIB

    def grow(self, disk_gb: int) -> bool:
        """Make the file bigger; False where it is no smaller already."""
        if disk_gb * GIB <= self.path.stat().st_size:
            return False
        os.truncate(self.path, disk_gb * GIB)
        return True


def copy_folder(source: Path, to: Path) -> None:
    """All of a folder, with owners and attributes where there is the right to them. Raises OSError."""
    draft = to.with_name(f".draft-{to.name}")
    _run("cp", "-a", str(source), str(draft))
    draft.replace(to)


def choose_file_system() -> str:
    """What fits here: "ext4" or "xfs"."""
    return "ext4" if _may_resize_ext4() or not shutil.which("mkfs.xfs", path=_path()) else "xfs"


def attach(image: Path) -> Attached:
    """Raises OSError where there are no loop devices, or no free one."""
    with image.open("r+b") as file:
        device, fd = _take_loop(file.fileno())
    try:
        name = os.fsencode(image)[:63]
        info = struct.pack(LOOP_INFO64, *[0] * 8, AUTOCLEAR | PARTSCAN, name, b"", b"", 0, 0)
        fcntl.ioctl(fd, LOOP_SET_STATUS64, info)
        _run("partx", "--update", device)  # for kernels that do not read this kind of table by themselves
        partition = f"{device}p1"
        _ensure_node(Path(partition))
    except BaseException:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, LOOP_CLR_FD)
        os.close(fd)
        raise
    return Attached(fd, device, partition, image)


def detach_all(folder: Path) -> None:
    """Let go of every loop device whose image lies in that folder: leftovers of a host that was killed."""
    for loop in BLOCK.glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if Path(loop.read_text().strip().removesuffix(" (deleted)")).is_relative_to(folder):
                fd = os.open(f"/dev/{loop.parts[3]}", os.O_RDWR | os.O_CLOEXEC)
                with os.fdopen(fd) as device:
                    fcntl.ioctl(device, LOOP_CLR_FD)


def _take_loop(backing: int) -> tuple[str, int]:
    """A loop device with that file behind it; another one may be faster to the free number."""
    while True:
        with Path("/dev/loop-control").open("rb") as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        device = Path(f"/dev/loop{number}")
        _ensure_node(device)
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, LOOP_SET_FD, backing)
            return str(device), fd
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EBUSY:
                raise


def _ensure_node(path: Path) -> None:
    """Where nothing makes the nodes of new devices, as in a container: by what the kernel says of it."""
    if path.exists():
        return
    found = next(BLOCK.glob(f"{path.name}/dev"), None) or next(BLOCK.glob(f"*/{path.name}/dev"))
    major, minor = map(int, found.read_text().split(":"))
    os.mknod(path, 0o060600, os.makedev(major, minor))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _may_resize_ext4() -> bool:
    status = Path("/proc/self/status").read_text()
    rights = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(rights, 16) >> CAP_SYS_RESOURCE & 1)


def _run(*argv: str, input: str = "") -> None:
    """Raises OSError with what the program said."""
    environment = {**os.environ, "PATH": _path()}
    answer = subprocess.run(argv, input=input, capture_output=True, text=True, env=environment, check=False)
    if answer.returncode:
        raise OSError(errno.EIO, f"{argv[0]}: {(answer.stderr or answer.stdout).strip()[-500:]}")


def _path() -> str:
    """Where the system's tools are, for a user's shell too."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
