"""The outbox: what a machine stores when no client comes, at addresses that were signed ahead, and how it is
taken in. The agent's part runs as it is, in a home of its own, against both rehearsal clouds."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clean"))  # for its homes

from bucket_cases import Case
from clean_home import Home
from exhaustive import exhaustive
from localmachine import LocalShell, pids_of, start_script, wait_for
from resuming import boot, go, log_of, power_off, start_job

from cloudrun import carry, outbox
from cloudrun.attempts import Order
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.errors import TransferFailed
from cloudrun.events import Event, Note
from cloudrun.guard import policy
from cloudrun.models import Guard
from cloudrun.outputs import list_folder
from cloudrun.remote import agentlink, process
from cloudrun.runfiles import RunFiles
from cloudrun.stacks import load_stack

RUN = "aaaa2222"
KEY = f"{RUN}.1"
PART_BYTES = 32 << 10
# What the machine alone decides is said at one kind of bucket.
one_bucket = pytest.mark.parametrize("case", ["s3", *exhaustive("az")], indirect=True)
SCRIPT = """
mkdir -p outputs/checkpoint outputs/sub
head -c 100000 /dev/urandom > outputs/checkpoint/last.bin
printf caf > "outputs/$(printf 'caf\\351')"
echo 42 > outputs/sub/result.txt
chmod 755 outputs/sub/result.txt
ln -s sub/result.txt outputs/link
echo mine > outputs/log
echo said
exit 3
"""


def now() -> datetime:
    return datetime.now(UTC)


def leave(
    machine: LocalShell, case: Case, *, wait_s: float = 0.0, parts: int = 16, lives_s: float = 600
) -> None:
    path = os.environ.get("SSL_CERT_FILE", "")
    authority = Path(path).read_text().partition("-----END CERTIFICATE-----\n") if path else ("", "")
    outbox.leave(
        machine,
        KEY,
        case.bucket,
        lives_s=lives_s,
        wait_s=wait_s,
        authority="".join(authority[:2]),
        part_bytes=PART_BYTES,
        parts=parts,
    )


def keys(case: Case) -> list[str]:
    return [each.key for each in case.bucket.list()]


def is_sent(case: Case) -> bool:
    return f"{RUN}/.cloudrun/outbox-1.json" in keys(case)


def fetch(case: Case, to: Path) -> outbox.Letter | None:
    to.mkdir(exist_ok=True)
    return outbox.fetch(
        case.bucket, KEY, outputs=to / "outputs", log=to / "attempt-1.log", progress=lambda *_: None
    )


def contents(folder: Path) -> dict[bytes, tuple[int, bytes]]:
    return {
        os.fsencode(file.path): (
            file.mode,
            os.fsencode(file.link) if file.link else (folder / file.path).read_bytes(),
        )
        for file in list_folder(folder)
    }


def watchers(machine: LocalShell) -> list[int]:
    """The process that keeps watch and the one that does the work, the older one first."""
    return sorted(pid for pid in pids_of(machine.home) if b"outbox" in command_of(pid))


def command_of(pid: int) -> bytes:
    """A process's command line; nothing where it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def logged(machine: LocalShell) -> str:
    return (machine.run_dir(KEY) / "outbox.log").read_text()


def test_what_nobody_fetched_comes_home_through_the_bucket(
    machine: LocalShell, case: Case, tmp_path: Path
) -> None:
    leave(machine, case)
    start_script(machine, SCRIPT, key=KEY)
    wait_for(lambda: is_sent(case))
    assert len(keys(case)) == 1 + -(-len(bytes(100_000 + 8 * 1024)) // PART_BYTES)
    letter = fetch(case, tmp_path / "home")
    assert letter
    assert (letter.status.state, letter.status.exit_code) == (process.ProcessState.ENDED, 3)
    assert letter.skipped == ()
    outputs = machine.run_dir(KEY) / "code" / "outputs"
    found, made = contents(tmp_path / "home" / "outputs"), contents(outputs)
    assert {path: content for path, (_, content) in found.items()} == {
        path: content for path, (_, content) in made.items()
    }
    assert found[b"sub/result.txt"][0] == 0o755
    assert (tmp_path / "home" / "attempt-1.log").read_bytes() == b"said\n"
    names = names_in_tar(case, tmp_path / "part")
    assert names[:2] == ["log", "outputs/checkpoint/last.bin"]
    assert set(names) >= {"outputs/log", "outputs/sub/result.txt", "outputs/link"}
    wait_for(lambda: watchers(machine) == [])
    assert not (machine.run_dir(KEY) / "outbox").exists()
    outbox.sweep(case.bucket, RUN)
    assert keys(case) == []


def names_in_tar(case: Case, part: Path) -> list[str]:
    """As anybody may read the parts, without cloudrun."""
    whole = b""
    for key in keys(case):
        if not key.endswith(".json"):
            case.bucket.get(key, part)
            whole += part.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        return tar.getnames()


def test_no_address_is_seen_and_none_is_left(machine: LocalShell, case: Case) -> None:
    leave(machine, case, wait_s=60)
    start_script(machine, "sleep 60", key=KEY)
    box = machine.run_dir(KEY) / "outbox"
    assert box.stat().st_mode & 0o777 == 0o600
    secret = json.loads(box.read_text())["letter"].rpartition("=")[2].encode()
    assert len(secret) > 20
    told = b"".join(map(command_of, pids_of(machine.home)))
    assert secret not in told
    outbox.drop(machine, KEY)
    wait_for(lambda: watchers(machine) == [])
    for path in machine.home.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path
    process.signal(machine, KEY, grace_s=0.1)


@one_bucket
def test_a_client_that_comes_in_time_is_waited_for(machine: LocalShell, case: Case) -> None:
    leave(machine, case, wait_s=600)
    start_script(machine, SCRIPT, key=KEY)
    wait_for(lambda: process.status(machine, KEY).state is process.ProcessState.ENDED)
    time.sleep(1.2)  # two looks
    assert len(watchers(machine)) == 2
    assert keys(case) == []
    outbox.drop(machine, KEY)
    wait_for(lambda: watchers(machine) == [])
    assert keys(case) == []


@one_bucket
@pytest.mark.parametrize("why", ["preempted", "deadline", "shutdown", "short"])
def test_nobody_is_waited_for_where_the_machine_goes(machine: LocalShell, case: Case, why: str) -> None:
    if why == "short":
        guard = Guard(issued_at=now(), deadline_at=now() + timedelta(seconds=500), idle_minutes=None)
        agentlink.call(machine, "guard", {"policy": policy(guard, ("true",))})
    leave(machine, case, wait_s=600)
    start_script(machine, f"{SCRIPT.replace('exit 3', '')}\nsleep 60", key=KEY)
    wait_for(lambda: process.status(machine, KEY).state is process.ProcessState.RUNNING)
    wait_for(lambda: (machine.run_dir(KEY) / "log").read_bytes())
    process.signal(machine, KEY, grace_s=0.1, reason=why if why in ("preempted", "deadline") else "cancelled")
    if why == "shutdown":
        wait_for(lambda: process.status(machine, KEY).state is process.ProcessState.ENDED)
        for pid in watchers(machine):
            os.kill(pid, signal.SIGTERM)
    wait_for(lambda: is_sent(case))


@one_bucket
def test_a_machine_that_stores_is_not_idle(machine: LocalShell, case: Case) -> None:
    guard = Guard(issued_at=now(), deadline_at=None, idle_minutes=10)
    agentlink.call(machine, "guard", {"policy": policy(guard, ("true",))})
    before = json.loads((machine.base / "guard.json").read_text())
    leave(machine, case)
    start_script(machine, SCRIPT, key=KEY)
    wait_for(lambda: is_sent(case))
    after = json.loads((machine.base / "guard.json").read_text())
    assert after["armed"][1] > before["armed"][1]
    assert after["policy"] == before["policy"]


@one_bucket
def test_a_killed_watcher_is_replaced_and_nothing_half_sent_counts(
    machine: LocalShell, case: Case, tmp_path: Path
) -> None:
    """SIGKILL in the middle of the parts: without the letter nothing was sent; the next one sends it all."""
    leave(machine, case, parts=40)
    start_script(machine, SCRIPT.replace("100000", "1000000"), key=KEY)
    wait_for(lambda: any(key.endswith(".002") for key in keys(case)))
    with contextlib.suppress(IndexError, ProcessLookupError):  # it was done already
        os.kill(watchers(machine)[-1], signal.SIGKILL)
    if not is_sent(case):
        assert fetch(case, tmp_path / "home") is None
    wait_for(lambda: is_sent(case))
    letter = fetch(case, tmp_path / "home")
    assert letter
    outputs = machine.run_dir(KEY) / "code" / "outputs"
    assert contents(tmp_path / "home" / "outputs").keys() == contents(outputs).keys()


@one_bucket
def test_both_killed_the_next_client_leaves_another(machine: LocalShell, case: Case) -> None:
    leave(machine, case, wait_s=600)
    start_script(machine, SCRIPT, key=KEY)
    for pid in watchers(machine):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: watchers(machine) == [])
    leave(machine, case)
    wait_for(lambda: is_sent(case))


@one_bucket
def test_the_watcher_comes_back_with_the_machine(machine: LocalShell, case: Case, tmp_path: Path) -> None:
    boot(machine)
    leave(machine, case)
    start_job(machine)
    power_off(machine)
    boot(machine)
    wait_for(lambda: log_of(machine) == b"start 1\nstart 2\n")
    go(machine)
    wait_for(lambda: is_sent(case))
    letter = fetch(case, tmp_path / "home")
    assert letter
    assert letter.status.exit_code == 0
    assert letter.status.ended_at is not None
    assert abs(letter.status.ended_at - now()) < timedelta(minutes=5)
    assert (tmp_path / "home" / "attempt-1.log").read_bytes() == b"start 1\nstart 2\ndone\n"


@one_bucket
def test_a_broken_part_is_noticed(machine: LocalShell, case: Case, tmp_path: Path) -> None:
    leave(machine, case)
    start_script(machine, SCRIPT, key=KEY)
    wait_for(lambda: is_sent(case))
    case.corrupt(f"{RUN}/.cloudrun/outbox-1.001")
    with pytest.raises(TransferFailed, match=r"outbox-1\.001 is not what the machine stored"):
        fetch(case, tmp_path / "home")
    assert b"checkpoint/last.bin" not in contents(tmp_path / "home" / "outputs")


@one_bucket
def test_a_hostile_letter_writes_nowhere(machine: LocalShell, case: Case, tmp_path: Path) -> None:
    leave(machine, case)
    start_script(machine, SCRIPT, key=KEY)
    wait_for(lambda: is_sent(case))
    name = f"{RUN}/.cloudrun/outbox-1.json"
    case.bucket.get(name, tmp_path / "letter")
    letter = json.loads((tmp_path / "letter").read_text())
    letter["files"][0][0] = "../escape"
    (tmp_path / "letter").write_text(json.dumps(letter))
    case.bucket.put(name, tmp_path / "letter", hashlib.sha256((tmp_path / "letter").read_bytes()).hexdigest())
    with pytest.raises(TransferFailed):
        fetch(case, tmp_path / "home")
    assert not (tmp_path / "home" / "outputs").exists()


@one_bucket
def test_what_has_no_room_is_named(machine: LocalShell, case: Case, tmp_path: Path) -> None:
    """The checkpoint goes first, then what is small."""
    leave(machine, case, parts=8)
    bigger = SCRIPT.replace("exit 3", "head -c 300000 /dev/zero > outputs/a-big-one")
    start_script(machine, bigger, key=KEY)
    wait_for(lambda: is_sent(case))
    letter = fetch(case, tmp_path / "home")
    assert letter
    assert letter.skipped == ("a-big-one",)
    assert b"checkpoint/last.bin" in contents(tmp_path / "home" / "outputs")


@one_bucket
def test_home_says_until_when_a_machine_could_store(case: Case, settings: Settings) -> None:
    home = Home(settings.home)
    run = home.add("aaaa")
    order = Order(load_stack("none"), (), outputs_to=case.address)
    attempt = replace(home.store.list_attempts("aaaa")[0], started_at=now())
    said: list[Event] = []
    context = Client(settings).context(on_event=said.append)
    for until in (now() + timedelta(hours=1), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)):
        RunFiles(settings, "aaaa").note_outbox(1, until)
        assert carry.take_outbox(context, run, attempt, order) is None
    [note] = [each.message for each in said if isinstance(each, Note)]
    assert note.endswith(
        f"left nothing in {case.address}: its addresses there lived until 2026-01-02 03:04 UTC"
    )
    home.store.close()


def test_addresses_that_have_run_out_are_given_up(machine: LocalShell, case: Case) -> None:
    leave(machine, case, lives_s=-60)
    start_script(machine, SCRIPT, key=KEY)
    wait_for(lambda: "given up: status 403; the addresses lived until 20" in logged(machine))
    wait_for(lambda: watchers(machine) == [])
    assert not (machine.run_dir(KEY) / "outbox").exists()
    assert keys(case) == []
