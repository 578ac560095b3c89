"""The apt repositories and the package index that a rehearsal's machines reach: what the shipped stacks pin,
and a newer version of each, as stubs named and versioned like the real ones.

Flat repositories as NVIDIA's, and one for the system's own, each with the InRelease file of apt-secure(8),
signed with a throwaway key. The index is PEP 503's. It all lives as long as its server. PyTorch, TensorFlow
and numpy are not in the index: a rehearsal's machine runs this computer's own, and a stub in their place
would only look like them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from urllib.parse import urlsplit

from cloudrun import assets
from cloudrun.catalog import find_type
from cloudrun.sim.packages_files import control_of, make_deb, make_wheel
from cloudrun.sim.spec import PACKAGES_ADDRESS, Answer

NEVER_STUBS = ("torch", "torchvision", "torchaudio", "tensorflow", "numpy")
APT = re.compile(r"/(?:ubuntu|compute/(?:cuda|machine-learning)/repos/[a-z0-9]+/x86_64)/([^/]+)")
PIP = re.compile(r"/simple/([^/]+)/([^/]*)")
DRIVER = re.compile(r"nvidia-(?:driver-)?\d+")
SMI = "/usr/bin/nvidia-smi"
Pin = tuple[str, str]
Gpg = Callable[..., str]

# Answers as the machine type's GPU, which the package server knows; what else is asked of it is done.
SMI_PROGRAM = """\
#!/bin/sh
kept=/run/rehearsal-gpu # until the next boot, once root has asked
card=$(cat $kept 2>/dev/null) || card=$(python3 -I -S -c 'from http.client import *
line = HTTPConnection("{address}")
line.request("GET", "/gpu")
print(line.getresponse().read().decode())')
[ -n "$card" ] || {{ echo "No devices were found" >&2; exit 6; }}
[ -e $kept ] || ! [ -w /run ] || echo "$card" >$kept
case "$*" in
  *--query-gpu=name,driver_version,memory.total*) echo "$card" | sed 's/, /, {driver}, /' ;;
  *--query-gpu=index*) echo "$card" | awk '{{ print NR - 1 }}' ;;
  *--query-gpu=*) echo "$card" | sed 's/, .*//' ;;
  *-ac* | *--auto-boost*) echo "Setting is not supported for this GPU" >&2; exit 3 ;;
  *-pm*) ;;
  *) echo "NVIDIA-SMI {driver}   Driver Version: {driver}"; echo "$card" ;;
esac
"""


class PackageServer:
    """Answers HTTP for machines, from any thread. `apt` and `pip` are (name, version) pairs, `wheels` URLs of
    files that no index has."""

    def __init__(self, apt: Iterable[Pin], pip: Iterable[Pin], wheels: Iterable[str] = ()) -> None:
        self._debs = {f"{name}_{version}_all.deb": (name, version) for name, version in apt}
        self._wheels = [(name.lower().replace("_", "-"), *make_wheel(name, version)) for name, version in pip]
        paths = [urlsplit(url).path for url in wheels]
        self._files = {path: make_wheel(*path.rpartition("/")[2].split("-")[:2])[1] for path in paths}
        self._lock = threading.Lock()
        self._extra: dict[str, bytes] = {}
        self.fingerprint = self._key = self._secret = self._signed = ""
        self.rotate_key()

    @classmethod
    def of_stacks(cls) -> PackageServer:
        """What the shipped stacks pin, and a newer version of each."""
        apt, pip, wheels = set[Pin](), set[Pin](), set[str]()
        for path in assets.images_dir().glob("*.toml"):
            stack = tomllib.loads(path.read_text(encoding="utf-8"))
            apt |= set(stack.get("packages", {}).items())
            pip |= {pin for table in ("frameworks", "pip") for pin in stack.get(table, {}).items() if pin[1]}
            wheels |= set(stack.get("wheels", {}).values())
        pip = {(name, version) for name, version in pip if name.lower() not in NEVER_STUBS}
        return cls(
            apt | {(name, newer(version)) for name, version in apt},
            pip | {(name, newer(version)) for name, version in pip},
            wheels,
        )

    def add_deb(self, name: str, version: str, *, postinst: str = "") -> None:
        """One package more, which may do something when it is installed. Signed anew."""
        with self._lock:
            file = f"{name}_{version}_all.deb"
            self._debs[file] = (name, version)
            self._extra[file] = make_deb(name, version, {}, postinst=postinst)
        self._sign()

    def rotate_key(self) -> None:
        """Another key from now on; the old one signs nothing any more."""
        with self._lock, _gnupg() as gpg:
            gpg("--quick-generate-key", "cloudrun rehearsal", "ed25519", "sign", "never")
            told = gpg("--list-keys", "--with-colons")
            self.fingerprint = next(line.split(":")[9] for line in told.splitlines() if line[:4] == "fpr:")
            self._key = gpg("--armor", "--export", self.fingerprint)
            self._secret = gpg("--armor", "--export-secret-keys", self.fingerprint)
        self._sign()

    def environment(self) -> dict[str, str]:
        """What a client needs so that the machines ask here."""
        url = f"http://{PACKAGES_ADDRESS}"
        return {
            "CLOUDRUN_NVIDIA_REPOSITORY_URL": f"{url}#{self.fingerprint}",
            "CLOUDRUN_PIP_INDEX_URL": f"{url}/simple",
            "CLOUDRUN_WHEELS_URL": url,
        }

    def respond(self, path: str, gpu: str) -> Answer:
        """What a machine gets. gpu: what its nvidia-smi shall say of it."""
        if path == "/gpu":
            return 200, gpu.encode()
        if found := APT.fullmatch(path):
            return self._apt(found[1].replace("%2b", "+").replace("%7e", "~"))
        if found := PIP.fullmatch(path):
            return self._pip(found[1], found[2])
        return (200, self._files[path]) if path in self._files else (404, b"")

    def _apt(self, file: str) -> tuple[int, bytes]:
        if file == f"{self.fingerprint[-8:].lower()}.pub":
            return 200, self._key.encode()
        if file == "InRelease":
            return 200, self._signed.encode()
        if file == "Packages":
            return 200, self._index()
        return (200, self._deb(file)) if file in self._debs else (404, b"")

    def _pip(self, name: str, file: str) -> Answer:
        ours = {wheel: content for each, wheel, content in self._wheels if each == name}
        if file:
            return (200, ours[file]) if file in ours else (404, b"")
        page = "".join(f'<a href="{wheel}">{wheel}</a>\n' for wheel in ours)
        return (200, page.encode(), {"Content-Type": "text/html"}) if ours else (404, b"")

    def _deb(self, file: str) -> bytes:
        if file in self._extra:
            return self._extra[file]
        name, version = self._debs[file]
        files = {f"/usr/share/doc/{name}/rehearsal": f"{name} {version}\n"}
        if DRIVER.fullmatch(name):
            files[SMI] = SMI_PROGRAM.format(address=PACKAGES_ADDRESS, driver=version.partition("-")[0])
        return make_deb(name, version, files)

    def _index(self) -> bytes:
        stanzas = []
        for file, (name, version) in sorted(self._debs.items()):
            content = self._deb(file)
            digest = hashlib.sha256(content).hexdigest()
            place = f"Filename: {file}\nSize: {len(content)}\nSHA256: {digest}\n"
            stanzas.append(control_of(name, version) + place)
        return "\n".join(stanzas).encode()

    def _sign(self) -> None:
        with self._lock, _gnupg() as gpg:
            gpg("--import", given=self._secret)
            index = self._index()
            release = (
                "Origin: cloudrun rehearsal\nLabel: cloudrun rehearsal\nArchitectures: amd64 all\n"
                f"Date: {formatdate(usegmt=True)}\n"
                f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
            )
            self._signed = gpg("--digest-algo", "SHA512", "--clearsign", given=release)


@contextmanager
def _gnupg() -> Iterator[Gpg]:
    """gpg with a home of its own for a moment. Its agent, which would outlive us, ends with that moment."""
    with tempfile.TemporaryDirectory(prefix="cloudrun-gpg-") as home:
        quiet = ("--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")

        def gpg(*words: str, given: str = "") -> str:
            argv = ["gpg", "--homedir", home, *quiet, *words]
            return subprocess.run(argv, input=given, capture_output=True, text=True, check=True).stdout

        try:
            yield gpg
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def cards(provider: str, type: str) -> str:
    """What nvidia-smi says of the GPUs of that machine type, as MachineSpec.gpu has it."""
    found = find_type(provider, type)
    if found is None or not found.gpu:
        return ""
    card = f"{found.gpu}, {found.gpu_memory_gib * 1024:.0f}"
    return "\n".join([card] * found.gpu_count)


def missing() -> str:
    """Why there can be no package server here; "" where there can."""
    lacking = [program for program in ("gpg", "gpgconf", "gpg-agent") if not shutil.which(program)]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def newer(version: str) -> str:
    """A version that is newer, of the same form: its first number is 90 higher."""
    return re.sub(r"\d+", lambda found: str(int(found[0]) + 90), version, count=1)
