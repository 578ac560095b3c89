"""User data as cloud-init reads it: what is understood, and that nothing in it is ever an error."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.sim.cloudconfig import CloudConfig, File, parse


def config(text: str) -> CloudConfig:
    return parse(f"#cloud-config\n{text}".encode())


def only_file(text: str) -> File:
    found = config(f"write_files:\n- {{path: /x, {text}}}\n")
    assert found.notes == ()
    return found.files[0]


def test_all_keys_together() -> None:
    found = config(
        """
ssh_keys: {ed25519_private: "private\\n", ed25519_public: public}
ssh_authorized_keys: [" one ", two]
disable_root: false
bootcmd: ["a && b", [echo, "two words", 3]]
runcmd: [[touch, /x]]
write_files:
- {path: /x, content: text, permissions: '0755', owner: 'a:b', append: true, defer: true}
"""
    )
    assert found == CloudConfig(
        bootcmd=("a && b", "echo 'two words' 3"),
        files=(File("/x", base64.b64encode(b"text").decode(), 0o755, "a:b", append=True, deferred=True),),
        host_keys={"ed25519_private": "private\n", "ed25519_public": "public"},
        authorized_keys=("one", "two"),
        disable_root=False,
        runcmd=("touch /x",),
    )


@pytest.mark.parametrize(
    ("permissions", "mode"),
    [("'0600'", 0o600), ("0600", 0o600), ("'600'", 0o600), ("0o600", 0o600), ("384", 0o600)],
)
def test_permissions_are_octal_text_or_yamls_number(permissions: str, mode: int) -> None:
    assert only_file(f"permissions: {permissions}").mode == mode


@pytest.mark.parametrize("encoding", ["b64", "base64", "gz+b64", "gzip+base64", "GZ+B64"])
@given(content=st.binary(max_size=500))
def test_content_is_decoded(encoding: str, content: bytes) -> None:
    packed = gzip.compress(content) if "g" in encoding.lower() else content
    text = base64.b64encode(packed).decode()
    found = only_file(f"encoding: {encoding}, content: {text!r}")
    assert base64.b64decode(found.content_b64) == content


def test_binary_content() -> None:
    assert only_file("content: !!binary aGVsbG8=").content_b64 == "aGVsbG8="


@pytest.mark.parametrize(
    ("user_data", "note"),
    [
        (b"hello", "neither #cloud-config nor a script"),
        (b"\xff\xfe", "utf-8"),
        (b"\x1f\x8bnot gzip", "user data:"),
        (gzip.compress(b"#cloud-config\n" + b"\n" * 5_000_000), "unpacked"),
        (b"#cloud-config\n{", "cloud-config:"),
        (b"#cloud-config\n- list", "not a mapping"),
        (b"#cloud-config\nruncmd: text", "runcmd is no list"),
        (b"#cloud-config\nruncmd: [1]", "neither text nor a list"),
        (b"#cloud-config\nssh_keys: text", "ssh_keys is no mapping"),
        (b"#cloud-config\nhostname: x", "'hostname' is not known here"),
        (b"#cloud-config\nwrite_files: [text]", "has no path"),
        (b"#cloud-config\nwrite_files: [{path: /x, encoding: rot13}]", "'rot13'"),
        (b"#cloud-config\nwrite_files: [{path: /x, encoding: b64, content: a}]", "/x"),
        (b"#cloud-config\nwrite_files: [{path: /x, permissions: rwx}]", "/x"),
        (b"#cloud-config\nwrite_files: [{path: /x, source: y}]", "'source' is not known here"),
    ],
)
def test_what_cannot_be_used_is_noted(user_data: bytes, note: str) -> None:
    found = parse(user_data)
    assert len(found.notes) == 1
    assert note in found.notes[0]


def test_what_is_wrong_spoils_nothing_else() -> None:
    found = config("runcmd: text\nbootcmd: [echo]\nwrite_files: [text, {path: /x}]")
    assert (found.bootcmd, [file.path for file in found.files], len(found.notes)) == (("echo",), ["/x"], 2)


def test_nothing_and_scripts() -> None:
    assert parse(b"") == parse(b" \n") == config("") == CloudConfig()
    assert parse(gzip.compress(b"#!/bin/sh\ntrue\n")) == CloudConfig(script="#!/bin/sh\ntrue\n")


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"#cloud-config\n{text}".encode()))
def test_nothing_raises(user_data: bytes) -> None:
    parse(user_data)


def test_it_travels_as_json() -> None:
    found = config("runcmd: [a]\nwrite_files: [{path: /x}]\nssh_keys: {a_private: b}\nc: d")
    assert CloudConfig.from_dict(json.loads(json.dumps(asdict(found)))) == found
