"""A shell as root on a disk of its own, with that disk's file system as /.

Two ways to have it: this computer's kernel, with a loop device in a mount namespace, and a kernel in user
mode (Debian's user-mode-linux), which has every right and driver that a container lacks, and takes seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudrun.assets import provisioning_dir
from cloudrun.sim import disk

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
STEP = provisioning_dir() / "steps" / "10-grow-disk.sh"
TIMEOUT_S = 120
MIB = 1024 * 1024
# Without a udev at work LVM makes its nodes itself.
LVM = """\
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
devices { use_devicesfile = 0 scan = [ "/dev" ] }
"""
# Of the new kernel's process 1, or of a process in a mount namespace of its own.
SCRIPT = """\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin LVM_SYSTEM_DIR={home}/lvm
export PATH LVM_SYSTEM_DIR
disk={device} part={device}{separator}1 root={home}/root
say() {{ echo; echo "@@ $*"; }}
become_root() {{ # device: its file system becomes /, with the programs of this computer
    mount "$1" "$root" || exit 1
    cd "$root" || exit 1
    for each in usr bin sbin lib lib64 etc proc sys dev {home}; do
        [ -d "/$each" ] || continue
        mkdir -p "./$each"
        mount --rbind "/$each" "./$each"
    done
    mkdir -p tmp run before
    pivot_root . before && cd / && umount -l /before
    echo precious >/kept
}}
step() {{
    said=$(sh {home}/step.sh "$1" 2>&1 </dev/null); code=$?
    say "$1 $code" $said
}}
# What would change a disk fails from here on.
freeze() {{
    mkdir -p /tmp/frozen
    for each in growpart resize2fs xfs_growfs pvresize lvextend; do
        printf '#!/bin/sh\necho "$0 was called" >&2; exit 9\n' >/tmp/frozen/$each
        chmod +x /tmp/frozen/$each
    done
    PATH=/tmp/frozen:$PATH
}}
size() {{ say "size $(df --block-size=1M --output=size / | tail -n 1)"; }}
if [ $$ -eq 1 ]; then
    mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
    modprobe --all --dirname {home}/modules dm-mod f2fs || say "modprobe failed"
else
    mount --make-rprivate /
fi
{{ {commands}
}} 2>&1
say "end $(cat /kept)"
[ $$ -ne 1 ] || {{ sync; echo o >/proc/sysrq-trigger; sleep 60; }}
"""


@dataclass(frozen=True)
class Done:
    """What `step check`, `step apply` and `size` said, in their order: ("check", "1"), ("size", "58")."""

    said: list[tuple[str, str]]
    words: str

    def codes(self, verb: str) -> list[int]:
        return [int(rest.split()[0]) for what, rest in self.said if what == verb]

    def sizes_mib(self) -> list[int]:
        return self.codes("size")


@dataclass(frozen=True)
class Kernel:
    """`name`: "user mode" or "loop"."""

    name: str
    home: Path

    def run(self, image: Path, commands: str) -> Done:
        """Run shell text as root, with the functions of SCRIPT, $disk and $part."""
        self._prepare(commands)
        return self._user_mode(image) if self.name == "user mode" else self._loop(image)

    def _prepare(self, commands: str) -> None:
        for folder in ("root", "lvm", "modules/lib"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "lvm" / "lvm.conf").write_text(LVM)
        link = self.home / "modules" / "lib" / "modules"
        if not link.is_symlink():
            link.symlink_to(MODULES)
        (self.home / "step.sh").write_bytes(STEP.read_bytes())
        (self.home / "commands").write_text(commands)

    def _script(self, device: str, separator: str) -> Path:
        file = self.home / "script.sh"
        commands = (self.home / "commands").read_text()
        file.write_text(SCRIPT.format(home=self.home, device=device, separator=separator, commands=commands))
        file.chmod(0o755)
        return file

    def _user_mode(self, image: Path) -> Done:
        script = self._script("/dev/ubda", "")
        words = [KERNEL, "mem=256M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "con=null"]
        words += ["con0=null,fd:1", f"ubd0={image}", f"init={script}", f"uml_dir={self.home}"]
        return self._answer(words)

    def _loop(self, image: Path) -> Done:
        attached = disk.attach(image)
        try:
            script = self._script(attached.device, "p")
            return self._answer(["unshare", "--mount", "sh", str(script)])
        finally:
            attached.close()

    def _answer(self, words: list[str]) -> Done:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        text = (done.stdout + done.stderr).decode("utf-8", "replace").replace("\r", "")
        lines = [line[3:].partition(" ") for line in text.splitlines() if line.startswith("@@ ")]
        said = [(what, rest.strip()) for what, _, rest in lines]
        assert ("end", "precious") in said, text
        return Done(said, text)


def make_disk(path: Path, table: str, *, mib: int, grown_to_mib: int) -> Path:
    """A disk with that partition table (sfdisk's), which was made bigger since."""
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    if table:
        subprocess.run(["sfdisk", "--quiet", str(path)], input=table.encode(), check=True)
    with path.open("ab") as file:
        file.truncate(grown_to_mib * MIB)
    return path


def kernel_for(layout: str, home: Path) -> Kernel:
    """The quicker one that can have such a file system as /; skips, with what is missing, where none can."""
    no_loop, no_user_mode = _no_loop(layout), _no_user_mode()
    if no_loop and no_user_mode:
        pytest.skip(f"{layout}: this kernel: {no_loop}; one in user mode: {no_user_mode}")
    return Kernel("user mode" if no_loop else "loop", home)


def need_programs(*names: str) -> None:
    if lacking := _lacking(*names):
        pytest.skip(lacking)


def _no_loop(layout: str) -> str:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return "loop devices take root, and a system that has them"
    if layout == "lvm":
        return "its volumes would be this computer's own"
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    if layout not in known:
        return f"it has no {layout}"
    if layout == "ext4" and disk.choose_file_system() != "ext4":
        return "growing a mounted ext4 takes CAP_SYS_RESOURCE"
    return ""


def _no_user_mode() -> str:
    return _lacking(KERNEL, "modprobe") or ("" if MODULES.is_dir() else f"there is no {MODULES}")


def _lacking(*names: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [name for name in names if not shutil.which(name, path=path)]
    return f"not installed: {', '.join(lacking)}" if lacking else ""
