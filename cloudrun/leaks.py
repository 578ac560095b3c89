"""Files that look like keys or passwords, which a bundle must not carry by accident."""

from __future__ import annotations

import re

HEAD_BYTES = 4096  # a key or a token stands at the head of its file
SMALL_BYTES = 64 * 1024  # larger files are data that may hold anything by chance

_NAMES = re.compile(
    r"""
    \.env | \.env\.(?!(?:example|sample|template|dist)$).+ | .+\.env
    | id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)? | .+\.(?:key|p12|pfx|ppk|jks|keystore)
    | \.netrc | _netrc | \.pgpass | \.pypirc | \.git-credentials | \.htpasswd | \.dockercfg
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PATHS = re.compile(r"(?:.*/)?(?:\.aws/credentials|\.kube/config|\.docker/config\.json)")
_CONTENT = re.compile(
    rb"""
    ^-----BEGIN\ (?:[A-Z0-9]+\ )*PRIVATE\ KEY(?:\ BLOCK)?-----
    | ^PuTTY-User-Key-File-\d
    | ^\s*(?:export\s+)?aws_secret_access_key\s*[=:]\s*["']?[A-Za-z0-9/+]{40}
    | \b(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z0-9]{16}\b
    | "private_key"\s*:\s*"-----BEGIN
    | \bgh[pousr]_[A-Za-z0-9]{36} | \bhf_[A-Za-z0-9]{34}\b
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)


# Every secret of _CONTENT holds one of these: looking for them first makes a scan of thousands of small
# files several times faster. Short ones are found faster by a pattern that begins with a letter.
_MARKS = (b"private key", b"putty-user-key-file-", b"aws_secret_access_key", b'"private_key"')
_SHORT_MARKS = tuple(re.compile(mark).search for mark in (rb"a[ks]ia", rb"gh[pousr]_", rb"hf_"))


def looks_secret(path: str, size: int, head: bytes) -> bool:
    """Whether a file looks like a secret, by its name or by how its content starts."""
    name = path.rpartition("/")[2]
    if _NAMES.fullmatch(name) or _PATHS.fullmatch(path):
        return True
    if size > SMALL_BYTES:
        return False
    lowered = head.lower()
    marked = any(mark in lowered for mark in _MARKS) or any(find(lowered) for find in _SHORT_MARKS)
    return marked and _CONTENT.search(head) is not None
