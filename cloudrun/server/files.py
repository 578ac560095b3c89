"""SFTP and scp, kept within the machine's home. Paths are the real ones, as its shell shows them."""

from __future__ import annotations

import os

import asyncssh

# ruff: noqa: PTH118  # paths are bytes here, as SFTP sends them, and pathlib knows only text


class HomeFiles(asyncssh.SFTPServer):
    """Relative paths start at home; a path that leads out of it is refused."""

    def __init__(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(chan)
        self._home = os.path.realpath(os.environb[b"HOME"])

    def map_path(self, path: bytes) -> bytes:
        """The local path. Its last part is not resolved: links can be listed and removed."""
        whole = os.path.normpath(os.path.join(self._home, path))
        if whole == self._home or path == os.path.join(self._home, b".."):
            return self._home  # home's "..", which every listing asks for, is home, as at the root of a disk
        parent, name = os.path.split(whole)
        inside = os.path.join(os.path.realpath(parent), name)
        self._check(inside)
        return inside

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Open a file; a link that leads out of home is not followed."""
        self._check(os.path.realpath(self.map_path(path)))
        return super().open(path, pflags, attrs)

    def exit(self) -> None:
        """scp takes a session that ends without an exit status for a failure."""
        self.channel.exit(0)

    def _check(self, path: bytes) -> None:
        if path != self._home and not path.startswith(self._home + b"/"):
            raise asyncssh.SFTPPermissionDenied("outside this machine's home folder")
