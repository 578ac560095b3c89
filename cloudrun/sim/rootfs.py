"""The root file system of a namespace machine, put together by its first process.

`/` is the machine's own disk. What a cloud's image would hold comes from this computer and is copied up
when it is written to: /usr, /etc, /var, /opt and the folders of this Python are overlays whose upper
layers lie on the disk, in /.layers. All else of this computer (homes, /root, /tmp, data) is not there.

So `findmnt -no SOURCE,FSTYPE /` names partition and file system as on a real machine, `lsblk -no PKNAME`
its device, and growpart with resize2fs or xfs_growfs make it bigger. /dev holds these two nodes, and those
of NVIDIA's GPUs. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

# <sys/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

IMAGE = ("/usr", "/etc", "/var", "/opt")  # of this computer: what stands for the cloud's image
LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # into /usr; folders of their own on old systems
FOLDERS = dict.fromkeys(("boot", "dev", "home", "media", "mnt", "proc", "run", "srv", "sys"), 0o755)
FOLDERS |= {"root": 0o700, "tmp": 0o1777}
PAST = ("/var/lib/cloud", "/var/tmp", "/var/log", "/var/mail")  # noqa: S108  # this computer's own
# Its repositories, proxies and hooks, out of reach from a machine, and the lists of what they have.
APT = ("/etc/apt/sources.list.d", "/etc/apt/apt.conf.d", "/etc/apt/preferences.d", "/var/lib/apt/lists")
EMPTIED = (*PAST, *APT)
NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}  # of major 1, devices.txt
LAYERS = ".layers"
SPECIAL, ESCAPED = r"([\\:,])", r"\\\1"  # in a path among overlayfs's options
BOOT_ID = "proc/sys/kernel/random/boot_id"  # programs tell a reboot by it


@dataclass(frozen=True, slots=True)
class Disk:
    """What `/` is: a partition and the device it is on, or (device "") a folder of this computer."""

    source: str
    device: str
    file_system: str
    options: str = ""
    grown: bool = False  # bigger than at the last boot


def enter(disk: Disk, at: Path, prefixes: tuple[str, ...]) -> bool:
    """Make that disk the root of this process, in a mount namespace of its own. Says whether it is new.

    at: an empty folder to put it together in. prefixes: folders of Python to have besides the image."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    if disk.device:
        mount(disk.source, str(at), disk.file_system, 0, disk.options)
    else:
        mount(disk.source, str(at), "", MS_BIND)
    fresh = not (at / LAYERS).exists()
    if fresh:
        _lay_out(at)
    for folder in (*_image(), *prefixes):
        _overlay(folder, at)
    _mount_system(at, disk)
    os.chdir(at)
    Path(".old").mkdir(exist_ok=True)
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    os.chdir("/")
    unmount("/.old", MNT_DETACH)
    Path("/.old").rmdir()
    return fresh


def outside_image(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the folders that the image does not hold, none within another."""
    held = [Path(folder) for folder in _image()]
    for folder in sorted({Path(folder) for folder in folders}):
        if folder.is_dir() and not any(folder.is_relative_to(other) for other in held):
            held.append(folder)
    return tuple(str(folder) for folder in held[len(_image()) :])


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError with the target."""
    words = (source.encode(), target.encode(), kind.encode() or None)
    if _libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source}: {os.strerror(number)}", target)


def unmount(target: str, flags: int = 0) -> None:
    if _libc.umount2(target.encode(), flags):
        number = ctypes.get_errno()
        raise OSError(number, f"umount: {os.strerror(number)}", target)


_libc = ctypes.CDLL(None, use_errno=True)


def _image() -> tuple[str, ...]:
    own = (f"/{name}" for name in LINKS if Path(f"/{name}").is_dir() and not Path(f"/{name}").is_symlink())
    return (*(folder for folder in IMAGE if Path(folder).is_dir()), *own)


def _lay_out(root: Path) -> None:
    (root / LAYERS).mkdir(mode=0o700)
    for name, mode in FOLDERS.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    for name in LINKS:
        if Path(f"/{name}").is_symlink():
            (root / name).symlink_to(Path(f"/{name}").readlink())


def _overlay(folder: str, root: Path) -> None:
    """This computer's folder at the same path of the machine, changes on the machine's disk."""
    layers, inside = root / LAYERS / folder[1:].replace("/", "%"), root / folder[1:]
    upper, work = layers / "upper", layers / "work"
    if not layers.exists():
        upper.mkdir(parents=True)
        work.mkdir()
        _copy_mode(Path(folder), upper)
        for path in EMPTIED:
            if Path(path).is_relative_to(folder):
                _hide(Path(path).relative_to(folder), Path(folder), upper)
    _make_way(root, Path(folder))
    layered = zip(("lowerdir", "upperdir", "workdir"), (folder, upper, work), strict=True)
    options = ",".join(f"{name}={re.sub(SPECIAL, ESCAPED, str(path))}" for name, path in layered)
    mount("overlay", str(inside), "overlay", 0, options)


def _hide(path: Path, lower: Path, upper: Path) -> None:
    """That folder is there, but empty whatever lies below it: an opaque one of overlayfs."""
    for part in reversed((path, *path.parents[:-1])):
        if not (upper / part).exists():
            (upper / part).mkdir()
            _copy_mode(lower / part, upper / part)
    os.setxattr(upper / path, "trusted.overlay.opaque", b"y")


def _copy_mode(source: Path, target: Path) -> None:
    """Whatever it is here, everybody can look into it there: this Python may lie in a closed home."""
    if source.is_dir():
        shutil.copystat(source, target)
        target.chmod(stat.S_IMODE(target.stat().st_mode) | 0o055)


def _make_way(root: Path, folder: Path) -> None:
    """Every folder on the way there, which everybody may walk but not look around on."""
    for path in reversed((folder, *folder.parents[:-1])):
        inside = root / str(path)[1:]
        if not inside.exists():
            inside.mkdir()
            inside.chmod(0o711)
        inside.chmod(stat.S_IMODE(inside.stat().st_mode) | 0o011)


def _mount_system(root: Path, disk: Disk) -> None:
    mount("proc", str(root / "proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in filter(Path.exists, (root / "proc/sys", root / "proc/sysrq-trigger")):
        inside = str(path)  # the kernel is this computer's: its settings are not the machine's to change
        mount(inside, inside, "", MS_BIND)
        mount(inside, inside, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", str(root / "sys"), "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", str(root / "run"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for name in ("lock", "sshd"):
        (root / "run" / name).mkdir()
    (root / "run" / "utmp").touch()
    (root / "run" / "boot_id").write_text(f"{uuid.uuid4()}\n")
    mount(str(root / "run/boot_id"), str(root / BOOT_ID), "", MS_BIND)
    mount("tmpfs", str(root / "dev"), "tmpfs", MS_NOSUID, "mode=755")
    _make_nodes(root / "dev", disk)


def _make_nodes(dev: Path, disk: Disk) -> None:
    for name, minor in NODES.items():
        _node(dev / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    _node(dev / "tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
    for name, target in (("fd", "/proc/self/fd"), ("ptmx", "pts/ptmx")):
        (dev / name).symlink_to(target)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")
    (dev / "pts").mkdir()
    mount(
        "devpts",
        str(dev / "pts"),
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    (dev / "shm").mkdir()
    mount("tmpfs", str(dev / "shm"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for path in (disk.source, disk.device) if disk.device else ():
        _node(dev / Path(path).name, stat.S_IFBLK | 0o600, Path(path).stat().st_rdev)
    for gpu in Path("/dev").glob("nvidia*"):
        if gpu.is_char_device():
            _node(dev / gpu.name, stat.S_IFCHR | 0o666, gpu.stat().st_rdev)


def _node(path: Path, mode: int, device: int) -> None:
    os.mknod(path, mode, device)
    path.chmod(stat.S_IMODE(mode))
