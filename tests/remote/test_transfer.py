"""A run's whole way over every shell and server: push, start, follow, pull, and a line that is cut."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from pathlib import Path

import pytest
from servers import EmbeddedServer, OpenSshServer

from cloudrun.errors import ConnectionLost
from cloudrun.manifest import digest_files
from cloudrun.models import Bundle, BundleFile
from cloudrun.remote import process, transfer
from cloudrun.remote.process import LogChunk, ProcessState, StateChange
from cloudrun.remote.shell import Shell

AnyServer = EmbeddedServer | OpenSshServer

SCRIPT = b"""echo hello
head -c 3000000 /dev/urandom > "$CLOUDRUN_OUTPUT_DIR/big"
echo '{"epoch": 1}' > "$CLOUDRUN_OUTPUT_DIR/metrics.jsonl"
echo "$WORD" | wc -c
exit 3
"""


@pytest.fixture
def key() -> str:
    return f"{uuid.uuid4().hex[:8]}.1"


def start(shell: Shell, key: str, script: bytes) -> process.ProcessStatus:
    contents = {"job.sh": script, "data": os.urandom(1_000_000)}
    files = tuple(
        BundleFile(name, len(data), 0o644, hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    )
    by_hash = {file.sha256: contents[file.path] for file in files}
    bundle = Bundle(digest_files(files), files)
    result = transfer.push_bundle(shell, bundle, lambda sha256: io.BytesIO(by_hash[sha256]))
    assert result.bytes_sent >= 1_000_000
    assert transfer.push_bundle(shell, bundle, lambda _: pytest.fail("sent again")).bytes_sent == 0
    spec = process.ProcessSpec(
        key=key, bundle=bundle.digest, command=("/bin/sh", "job.sh"), env={"WORD": "sesame"}, max_seconds=60
    )
    return process.start(shell, spec)


def test_a_run_from_push_to_pull(shell: Shell, key: str, tmp_path: Path) -> None:
    start(shell, key, SCRIPT)
    items = list(process.follow(shell, key, log_offset=0))
    assert b"".join(item.data for item in items if isinstance(item, LogChunk)) == b"hello\n7\n"
    assert isinstance(items[-1], StateChange)
    assert (items[-1].status.state, items[-1].status.exit_code) == (ProcessState.ENDED, 3)
    result = transfer.pull_outputs(shell, key, tmp_path / "to")
    assert (result.files, result.bytes) == (2, 3_000_013)
    assert transfer.pull_outputs(shell, key, tmp_path / "to").bytes_received == 0
    assert process.probe(shell, ("no-such-framework",))["no-such-framework"] == ""


def test_cancel_over_the_wire(shell: Shell, key: str) -> None:
    start(shell, key, b'trap "exit 75" TERM; echo up; while :; do sleep 0.05; done')
    for item in process.follow(shell, key, log_offset=0):
        if isinstance(item, LogChunk) and item.offset == 0:
            process.signal(shell, key)
    assert isinstance(item, StateChange)
    assert (item.status.exit_code, item.status.reason) == (75, "cancelled")


def test_a_cut_line_is_no_end_of_the_run(own_server: AnyServer, own_shell: Shell, key: str) -> None:
    start(own_shell, key, b"echo up; until [ -e go ]; do sleep 0.05; done; echo went")
    items = process.follow(own_shell, key, log_offset=0)
    assert next(item for item in items if isinstance(item, LogChunk)) == LogChunk(0, b"up\n")
    own_server.cut()
    with pytest.raises(ConnectionLost):
        list(items)
    own_server.restart()
    own_shell.run(f"touch $HOME/.cloudrun/runs/{key}/code/go")
    log = [item.data for item in process.follow(own_shell, key, log_offset=3) if isinstance(item, LogChunk)]
    assert b"".join(log) == b"went\n"
