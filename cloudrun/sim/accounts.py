"""The login user, its keys and the SSH server's keys of a namespace machine, as cloud-init leaves them.

Runs inside, as root, at the first boot. Standard library only.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloudrun.sim.cloudconfig import CloudConfig

FIRST_ID, LAST_ID = 1000, 59999  # of people's accounts in Debian, adduser.conf(5)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT_REFUSED = (  # cloud-init's disable_root_opts
    'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="'
    'echo \'Please login as the user \\"{user}\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142"'
)
SSHD_CONFIG = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""
SUDOERS = f"""\
Defaults env_reset
Defaults secure_path="{SYSTEM_PATH}"
root ALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
"""


def make_user(name: str, environ: Mapping[str, str]) -> None:
    """Who logs in there, as on a cloud's image: no password, every right by sudo. Keeps one that exists.

    sudo hands `environ` on, and so does a login by su.
    """
    sudoers = Path("/etc/sudoers.d")
    shutil.rmtree(sudoers, ignore_errors=True)
    sudoers.mkdir()
    kept = "".join(f"Defaults env_keep += {name}\n" for name in environ)
    Path("/etc/sudoers").write_text(kept + SUDOERS)
    with Path("/etc/environment").open("a") as out:
        out.writelines(f"{name}={value}\n" for name, value in environ.items())
    (sudoers / "90-cloud-init-users").write_text(f"{name} ALL=(ALL) NOPASSWD:ALL\n")
    for path in (Path("/etc/sudoers"), sudoers / "90-cloud-init-users"):
        path.chmod(0o440)
    if name not in {entry.pw_name for entry in pwd.getpwall()}:
        _add_user(name)


def install_keys(config: CloudConfig, user: str, environ: Mapping[str, str]) -> None:
    """sshd's own keys, those of the user data or fresh ones, the keys that open it, and what sessions see."""
    ssh = Path("/etc/ssh")
    for old in ssh.glob("ssh_host_*"):  # this computer's: never another machine's too
        old.unlink()
    shutil.rmtree(ssh / "sshd_config.d", ignore_errors=True)
    ssh.mkdir(exist_ok=True)
    set_env = " ".join(f"{name}={value}" for name, value in {"PATH": SYSTEM_PATH, **environ}.items())
    (ssh / "sshd_config").write_text(f"{SSHD_CONFIG}SetEnv {set_env}\n")  # of several lines the first counts
    for name, text in config.host_keys.items():
        kind, _, half = name.rpartition("_")
        path = ssh / (f"ssh_host_{kind}_key" + (".pub" if half == "public" else ""))
        _write(path, text if text.endswith("\n") else text + "\n", 0o644 if half == "public" else 0o600)
    if not config.host_keys:
        subprocess.run(["ssh-keygen", "-A"], stdout=subprocess.DEVNULL, check=True)
    _authorize(user, config.authorized_keys, prefix="")
    refusal = ROOT_REFUSED.format(user=user) + " " if config.disable_root else ""
    _authorize("root", config.authorized_keys, prefix=refusal)


def _add_user(name: str) -> None:
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    number = next(number for number in range(FIRST_ID, LAST_ID) if number not in taken)
    home = Path("/home") / name
    for file, line in (
        ("/etc/group", f"{name}:x:{number}:"),
        ("/etc/shadow", f"{name}:*:19000:0:99999:7:::"),  # `*`: no password fits, but keys do
        ("/etc/passwd", f"{name}:x:{number}:{number}:{name}:{home}:/bin/bash"),
    ):
        with Path(file).open("a") as out:
            out.write(line + "\n")
    if home.exists():  # written to before the user was there: as with useradd, it stays root's
        return
    skeleton = Path("/etc/skel")
    shutil.copytree(skeleton, home) if skeleton.is_dir() else home.mkdir()
    home.chmod(0o750)
    for path in (home, *home.rglob("*")):
        os.chown(path, number, number, follow_symlinks=False)


def _authorize(user: str, lines: Iterable[str], *, prefix: str) -> None:
    account = pwd.getpwnam(user)
    folder = Path(account.pw_dir) / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / "authorized_keys", "".join(f"{prefix}{line}\n" for line in lines), 0o600)
    for path in (folder, folder / "authorized_keys"):
        os.chown(path, account.pw_uid, account.pw_gid)


def _write(path: Path, text: str, mode: int) -> None:
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(text)
