"""User data as cloud-init reads it: cloud-config with the few keys that payloads of ours use, or a script.

What is not understood is never an error, on a real machine neither: it is noted in the machine's boot log.
https://docs.cloud-init.io/en/latest/explanation/format.html and .../reference/modules.html, read 2026-11.
"""

from __future__ import annotations

import base64
import binascii
import shlex
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MOST_BYTES = 4 * 1024 * 1024  # of user data once unpacked
ENCODINGS = {  # of write_files: is it base64, is it gzip below that
    "": (False, False),
    "text/plain": (False, False),
    "b64": (True, False),
    "base64": (True, False),
    "gz": (False, True),
    "gzip": (False, True),
    "gz+b64": (True, True),
    "gz+base64": (True, True),
    "gzip+b64": (True, True),
    "gzip+base64": (True, True),
}


@dataclass(frozen=True, slots=True)
class File:
    """One entry of write_files. `deferred` ones are written when users exist."""

    path: str
    content_b64: str
    mode: int = 0o644
    owner: str = "root:root"
    append: bool = False
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """User data, understood. Commands are lines for /bin/sh."""

    bootcmd: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    host_keys: Mapping[str, str] = field(default_factory=dict)  # "ed25519_private" -> text
    authorized_keys: tuple[str, ...] = ()
    disable_root: bool = True
    runcmd: tuple[str, ...] = ()
    script: str = ""  # user data that is no cloud-config but a program, starting with "#!"
    notes: tuple[str, ...] = ()  # for the boot log

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> CloudConfig:
        """Out of what dataclasses.asdict and JSON made of one."""
        lists = {name: tuple(value) for name, value in stored.items() if isinstance(value, list | tuple)}
        files = tuple(File(**file) for file in stored["files"])
        return cls(**{**stored, **lists, "files": files})


def parse(user_data: bytes) -> CloudConfig:
    """Never raises: what cannot be used is a note."""
    try:
        text = _unpack(user_data).decode()
    except (zlib.error, ValueError) as error:
        return _unusable(f"user data: {error}")
    if not text.strip():
        return CloudConfig()
    if text.startswith("#!"):
        return CloudConfig(script=text)
    if text.splitlines()[0].strip() != "#cloud-config":
        return _unusable(f"user data starts with {text[:40]!r}: neither #cloud-config nor a script")
    import yaml  # type: ignore[import-untyped]  # here alone: the records above are read inside machines too, by the standard library

    try:
        stored = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        return _unusable(f"cloud-config: {error}")
    if not isinstance(stored, Mapping):
        return _unusable("cloud-config: not a mapping")
    return _Reader(stored).read()


def _unpack(user_data: bytes) -> bytes:
    if not user_data.startswith(b"\x1f\x8b"):
        return user_data
    unpacker = zlib.decompressobj(wbits=31)
    plain = unpacker.decompress(user_data, MOST_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"more than {MOST_BYTES} bytes unpacked")
    return plain


def _unusable(note: str) -> CloudConfig:
    return CloudConfig(notes=(note,))


class _Reader:
    """One cloud-config; each key is taken once, what is left over is noted."""

    def __init__(self, stored: Mapping[object, object]) -> None:
        self._rest = {str(key): value for key, value in stored.items()}
        self._notes: list[str] = []

    def read(self) -> CloudConfig:
        config = CloudConfig(
            bootcmd=self._commands("bootcmd"),
            files=tuple(filter(None, map(self._file, self._list("write_files")))),
            host_keys=self._host_keys(),
            authorized_keys=tuple(str(line).strip() for line in self._list("ssh_authorized_keys")),
            disable_root=bool(self._rest.pop("disable_root", True)),
            runcmd=self._commands("runcmd"),
        )
        self._notes += [f"cloud-config: key {key!r} is not known here" for key in self._rest]
        return replace(config, notes=tuple(self._notes))

    def _list(self, key: str) -> list[Any]:
        value = self._rest.pop(key, None)
        if value is None:
            return []
        if not isinstance(value, list):
            self._notes.append(f"cloud-config: {key} is no list")
            return []
        return value

    def _commands(self, key: str) -> tuple[str, ...]:
        """A list is one program and its arguments, text is a line for the shell."""
        lines = []
        for entry in self._list(key):
            if isinstance(entry, list):
                lines.append(shlex.join(str(word) for word in entry))
            elif isinstance(entry, str):
                lines.append(entry)
            else:
                self._notes.append(f"cloud-config: {key}: {entry!r} is neither text nor a list")
        return tuple(lines)

    def _host_keys(self) -> dict[str, str]:
        value = self._rest.pop("ssh_keys", None)
        if value is not None and not isinstance(value, Mapping):
            self._notes.append("cloud-config: ssh_keys is no mapping")
        return {str(name): str(text) for name, text in value.items()} if isinstance(value, Mapping) else {}

    def _file(self, entry: object) -> File | None:
        if not isinstance(entry, Mapping) or not entry.get("path"):
            self._notes.append(f"cloud-config: write_files: {entry!r} has no path")
            return None
        encoding = str(entry.get("encoding") or "").lower()
        if encoding not in ENCODINGS:
            self._notes.append(f"cloud-config: write_files: encoding {encoding!r} is taken for text")
        unknown = set(entry) - {"path", "content", "encoding", "permissions", "owner", "append", "defer"}
        self._notes += [f"cloud-config: write_files: {key!r} is not known here" for key in sorted(unknown)]
        try:
            content = _decoded(entry.get("content") or "", *ENCODINGS.get(encoding, (False, False)))
            mode = _mode(entry.get("permissions", 0o644))
        except (zlib.error, binascii.Error, ValueError) as error:
            self._notes.append(f"cloud-config: write_files: {entry['path']}: {error}")
            return None
        return File(
            path=str(entry["path"]),
            content_b64=base64.b64encode(content).decode(),
            mode=mode,
            owner=str(entry.get("owner") or "root:root"),
            append=bool(entry.get("append")),
            deferred=bool(entry.get("defer")),
        )


def _decoded(content: str | bytes, is_base64: bool, is_gzip: bool) -> bytes:
    raw = content.encode() if isinstance(content, str) else content  # bytes: YAML's !!binary
    if is_base64:
        raw = base64.b64decode(raw)
    return _unpack(raw) if is_gzip else raw


def _mode(permissions: object) -> int:
    """Text is octal; a number is what YAML made of it."""
    return permissions if isinstance(permissions, int) else int(str(permissions), 8)
