"""Which files look like secrets, and which only look alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloudrun.leaks import looks_secret

NAMES = [
    ".env", "a/.env", ".env.local", "prod.env", "id_rsa", "id_ed25519", "keys/server.key", "x.p12", ".netrc",
    ".pypirc", ".git-credentials", ".aws/credentials", "x/.kube/config", ".ENV",
]  # fmt: skip
PLAIN_NAMES = [
    "env.py", ".env.example", ".env.sample", "id_rsa.pub", "keys.py", "config", "credentials.py",
    "monkey.txt", ".environment", "key",
]  # fmt: skip
AWS = "AKIA" + "Q3EGUHZ7NOPLWT5B"
CONTENT = [
    "-----BEGIN RSA PRIVATE KEY-----\nMII", "text\n-----BEGIN PRIVATE KEY-----\n", f"key = {AWS}\n",
    "aws_secret_access_key = " + "a1B/" * 10, "export AWS_SECRET_ACCESS_KEY=" + "a1B+" * 10,
    '{"private_key": "-----BEGIN PRIVATE KEY-----"}', "ghp_" + "a1" * 18,
]  # fmt: skip
PLAIN_CONTENT = [
    "print('-----BEGIN RSA PRIVATE KEY-----')", "-----BEGIN CERTIFICATE-----\n", "AKIAIOSFODNN7EXAMPLE",
    "AKIA", "aws_secret_access_key = os.environ['X']", "ssh-ed25519 AAAAC3 user", "",
]  # fmt: skip


@pytest.mark.parametrize("path", NAMES)
def test_by_name(path: str) -> None:
    assert looks_secret(path, 1, b"")


@pytest.mark.parametrize("path", PLAIN_NAMES)
def test_names_that_only_look_alike(path: str) -> None:
    assert not looks_secret(path, 1, b"")


@pytest.mark.parametrize("text", CONTENT)
def test_by_content(text: str) -> None:
    assert looks_secret("notes", len(text), text.encode())


@pytest.mark.parametrize("text", PLAIN_CONTENT)
def test_content_that_only_looks_alike(text: str) -> None:
    assert not looks_secret("notes", len(text), text.encode())


def test_a_real_key_under_any_name(tmp_path: Path) -> None:
    for kind in ("ed25519", "ecdsa"):
        file = tmp_path / f"harmless-{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file)], check=True)
        assert looks_secret(file.name, file.stat().st_size, file.read_bytes())
        assert not looks_secret(f"{file.name}.pub", 100, Path(f"{file}.pub").read_bytes())


def test_big_files_are_data_that_may_hold_anything() -> None:
    assert not looks_secret("weights.bin", 10**8, AWS.encode())
