"""Data for runs on rented machines: both clouds, machines that are taken, clients that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from exhaustive import exhaustive
from held_run import walked
from rented_help import AZURE_TYPE, ONE_TIME, TYPE, RentedCloud, wait_for

from cloudrun.bucket import open_bucket
from cloudrun.bundle import object_path
from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.datasets_bucket import PACKS
from cloudrun.errors import Refused
from cloudrun.events import Event, Note, Progress
from cloudrun.keptdata import objects_dir
from cloudrun.models import Market, Outcome, Plan, Run, RunState

BUCKET = "kept-data"
HORSES = {"brown/a.png": b"brown horse", "white/ü.png": b"white horse", "empty": b""}
SEEN = {f"horses/{path}": hashlib.sha256(content).hexdigest() for path, content in HORSES.items()}

# Tells what it sees, in each attempt; the first one waits to be stopped where it is told so.
SCRIPT = """\
import hashlib, json, os, pathlib, signal, sys
data, out = (pathlib.Path(os.environ["CLOUDRUN_%s_DIR" % name]) for name in ("DATA", "OUTPUT"))
resume_from = os.environ.get("CLOUDRUN_RESUME_FROM")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
seen = json.loads(pathlib.Path(resume_from, "seen.json").read_text()) if resume_from else []
seen.append({"%s/%s" % (top.name, path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
             for top in data.iterdir() for path in top.rglob("*") if path.is_file()})
(out / "checkpoint").mkdir(parents=True)
for place in (out, out / "checkpoint"):
    (place / "seen.json").write_text(json.dumps(seen))
print("read", flush=True)
if sys.argv[1:] and not resume_from:
    signal.sigwait({signal.SIGTERM})
    sys.exit(75)
"""
KILLED = """
import os, signal, sys
from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.errors import Refused
def die(event):
    if getattr(event, "what", "") == "push" and event.done_bytes:
        os.kill(os.getpid(), signal.SIGKILL)
Client(load_settings()).push_data("big", sys.argv[1], on_event=die)
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "reader"
    folder.mkdir()
    lines = ['name = "reader"', 'command = ["python3", "job.py"]', 'stack = "none"', "resume = true"]
    (folder / "job.toml").write_text("\n".join(lines))
    (folder / "job.py").write_text(SCRIPT)
    return folder


@pytest.fixture
def horses(tmp_path: Path, client: Client) -> str:
    for path, content in HORSES.items():
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).write_bytes(content)
    return client.upload_data(tmp_path / "images", name="horses")[0].label


def seen_by(client: Client, run: Run) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((client.files(run.id).outputs / "seen.json").read_text())
    return found


def waits(client: Client, job: Path) -> Plan:
    """On a spot machine of its own the run reads its data and waits to be stopped."""
    return client.plan(job, type=TYPE, market=Market.SPOT, options=ONE_TIME, args=["--wait"], data=["horses"])


def has_read(client: Client) -> bool:
    return b"read" in b"".join(client.logs("last"))


def pushed(sent: dict[str, int]) -> Callable[[Event], None]:
    """Counts what travels, by what it is."""

    def watch(event: Event) -> None:
        if isinstance(event, Progress):
            sent[event.what] = max(sent.get(event.what, 0), event.done_bytes)

    return watch


@pytest.mark.parametrize("type", [TYPE, *exhaustive(AZURE_TYPE)])
def test_a_rented_machine_is_given_its_data(
    client: Client, cloud: RentedCloud, job: Path, horses: str, type: str
) -> None:
    run = client.submit(client.plan(job, type=type, market=Market.SPOT, data=[horses]))
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen_by(client, run) == [SEEN]
    wait_for(lambda: cloud.live() == [])


def test_after_a_preemption_the_next_machine_gets_the_same_version(
    client: Client, cloud: RentedCloud, job: Path, horses: str, tmp_path: Path
) -> None:
    with walked(client, waits(client, job), lambda: has_read(client)) as begun:
        (tmp_path / "images" / "new").write_bytes(b"of a version that this run was not given")
        client.upload_data(tmp_path / "images", name="horses")
        cloud.preempt(client.machine(begun.run.machine).id, notice_s=30)
        run = begun.ended()
    assert run.state is RunState.SUCCEEDED, run.message
    first, second = client.attempts(run.id)
    assert (first.outcome, second.outcome) == (Outcome.PREEMPTED, Outcome.SUCCEEDED)
    assert seen_by(client, run) == [SEEN, SEEN]


def test_to_a_machine_that_stays_nothing_travels_twice_and_a_killed_upload_goes_on(
    client: Client, job: Path, horses: str, tmp_path: Path
) -> None:
    client.launch(type=TYPE, market=Market.SPOT, name="k80", stack="none")
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "big").write_bytes(os.urandom(6_000_000))
    client.upload_data(tmp_path / "big", name="big")
    done = subprocess.run([sys.executable, "-c", KILLED, "k80"], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert 0 < client.push_data("big", "k80") < 6_000_000
    assert client.push_data("big", "k80") == 0
    counts: list[dict[str, int]] = [{}, {}]
    for sent in counts:
        plan = client.plan(job, on="k80", data=["horses", "big"])
        assert client.submit(plan, on_event=pushed(sent)).state is RunState.SUCCEEDED
    assert counts[0]["horses:v1"] == sum(map(len, HORSES.values()))
    assert "big:v1" not in counts[0]
    assert not {"horses:v1", "big:v1"} & counts[1].keys()


def test_a_run_whose_store_is_lost_keeps_its_data(
    client: Client, cloud: RentedCloud, job: Path, horses: str
) -> None:
    run = client.submit(waits(client, job), detach=True)
    wait_for(lambda: has_read(client))
    run = client.run(run.id)
    assert run.supervisor_pid is not None
    os.kill(run.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: not client.files(run.id).walked())
    for path in client.settings.home.glob(f"{client.settings.store_path.name}*"):
        path.unlink()
    again = Client(load_settings())
    again.adopt()
    charged = again.store.list_charges(machine=run.machine, open_only=True)
    assert [charge.run for charge in charged if charge.what == "compute"] == [run.id]
    assert [users for _, users in again.datasets("horses")] == [[run.id]]
    cloud.preempt(again.machine(run.machine).id, notice_s=30)
    found = again.attach(run.id)
    assert found.state is RunState.SUCCEEDED, found.message
    assert seen_by(again, found) == [SEEN, SEEN]


SERVE = "cd /tmp && printf horses > horses.bin && setsid python3 -m http.server 8123 --bind 127.0.0.1"
UP = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123))' 2> /dev/null"


def test_a_machine_fetches_an_address_itself_and_where_it_gives_other_content_the_run_ends(
    client: Client, cloud: RentedCloud, job: Path
) -> None:
    client.launch(type=TYPE, market=Market.SPOT, name="k80", stack="none")
    client.shell("k80").run(f"({SERVE} > /dev/null 2>&1 &); until {UP}; do sleep 0.05; done")
    url, sha256 = "http://127.0.0.1:8123/horses.bin", hashlib.sha256(b"horses").hexdigest()
    client.add_url("right", url, sha256=sha256)
    client.add_url("wrong", url, sha256="ab" * 32)
    run = client.submit(client.plan(job, on="k80", data=["right"]))
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen_by(client, run) == [{"right/horses.bin": sha256}]
    with pytest.raises(Refused, match=f"gives other content: sha256 {sha256}") as refusal:
        client.submit(client.plan(job, on="k80", data=["wrong"]))
    assert "take the checksum" in refusal.value.hint
    assert client.run("last").state is RunState.FAILED
    assert refusal.value.message in client.run("last").message
    assert [machine.name for machine in client.machines()] == ["k80"]


def test_a_machine_whose_data_cannot_be_sent_is_let_go(
    client: Client, cloud: RentedCloud, job: Path, horses: str
) -> None:
    plan = client.plan(job, type=TYPE, market=Market.SPOT, data=[horses])
    kept = object_path(objects_dir(client.settings), hashlib.sha256(b"white horse").hexdigest())
    kept.write_bytes(b"cut")
    with pytest.raises(Refused, match="shorter than its manifest says"):
        client.submit(plan)
    assert client.run("last").state is RunState.FAILED
    wait_for(lambda: cloud.live() == [])
    assert client.store.list_charges(open_only=True) == []


@pytest.fixture(params=["aws", "azure"])
def place(request: pytest.FixtureRequest, cloud: RentedCloud) -> tuple[str, str]:
    """A type of machine, and the address of an empty place in a bucket of its cloud."""
    below = f"{os.getpid()}-{request.node.name[:12]}"
    if request.param == "aws":
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        return TYPE, f"s3://{BUCKET}/{below}"
    account = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    with BlobServiceClient.from_connection_string(account) as service, suppress(ResourceExistsError):
        service.create_container(BUCKET)
    return AZURE_TYPE, f"az://{BUCKET}/{below}"


def test_a_rented_machine_fetches_from_a_bucket_without_this_computer(
    client: Client, place: tuple[str, str], job: Path, horses: str
) -> None:
    kind, address = place
    client.push_data(horses, address)
    plan = client.plan(job, type=kind, market=Market.SPOT, data=[horses])
    shutil.rmtree(objects_dir(client.settings))
    run = client.submit(plan)
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen_by(client, run) == [SEEN]


@pytest.mark.parametrize("place", ["aws"], indirect=True)
def test_what_a_bucket_does_not_give_is_sent_from_here(
    client: Client, place: tuple[str, str], job: Path, horses: str
) -> None:
    kind, address = place
    client.push_data(horses, address)
    bucket = open_bucket(address, client.settings)
    bucket.delete([each.key for each in bucket.list(PACKS)])
    notes: list[str] = []

    def watch(event: Event) -> None:
        notes.extend([event.message] if isinstance(event, Note) else [])

    plan = client.plan(job, type=kind, market=Market.SPOT, data=[horses])
    run = client.submit(plan, on_event=watch)
    assert seen_by(client, run) == [SEEN]
    (told,) = [note for note in notes if address in note]
    assert "sent from here" in told
    assert "404" in told
