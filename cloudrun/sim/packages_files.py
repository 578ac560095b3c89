"""Stub packages of the rehearsal, made on the fly: a .deb as deb(5) says, a wheel as PEP 427 says."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

AR_MAGIC = b"!<arch>\n"
PROGRAM = 0o755


def make_deb(name: str, version: str, files: Mapping[str, str], *, postinst: str = "") -> bytes:
    """A package without dependencies. `files` maps absolute paths to the text of programs."""
    control = {"./control": (control_of(name, version).encode(), 0o644)}
    if postinst:
        control["./postinst"] = (postinst.encode(), PROGRAM)
    data = {f".{path}": (text.encode(), PROGRAM) for path, text in files.items()}
    members = {"debian-binary": b"2.0\n", "control.tar.gz": _tar(control), "data.tar.gz": _tar(data)}
    return AR_MAGIC + b"".join(_ar_member(each, content) for each, content in members.items())


def control_of(name: str, version: str) -> str:
    """Its fields, as in the package and in the repository's index."""
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: cloudrun rehearsal\n"
        f"Description: stands for {name} in a rehearsal\n"
    )


def make_wheel(name: str, version: str) -> tuple[str, bytes]:
    """Its file name and content: a module that knows its version and nothing else."""
    module = name.lower().replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(zipfile.ZipInfo(path), text)
    return f"{module}-{version}-py3-none-any.whl", out.getvalue()


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        made = {"."}
        for path, (content, mode) in files.items():
            parts = path.split("/")
            for folder in ("/".join(parts[:end]) for end in range(2, len(parts))):
                if folder not in made:
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
                    made.add(folder)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(out.getvalue(), 1, mtime=0)


def _ar_member(name: str, content: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
