"""With no client left, a rented machine stores its run's outputs itself; `attach` brings them home later."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from exhaustive import exhaustive
from rented_help import AZURE_TYPE, TYPE, RentedCloud, wait_for

from cloudrun.bucket import open_bucket
from cloudrun.client import Client
from cloudrun.errors import MachineError
from cloudrun.guard import policy
from cloudrun.models import Guard, LaunchOptions, Machine, Market, OnPreempt, Outcome, Run, RunState
from cloudrun.outputs import list_folder
from cloudrun.providers.base import Bucket, SelfRelease
from cloudrun.remote import agentlink

BUCKET = "no-client"
OFF = ("", "stopped", "shutting-down", "terminated", "deallocating", "deallocated")
SCRIPT = """
import json, os, pathlib, sys, time
out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
for step in range(1, 11):
    while step == 5 and "wait" in sys.argv and not pathlib.Path("~/go").expanduser().exists():
        time.sleep(0.05)
    print("step", step, flush=True)
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "score": step}) + chr(10))
    time.sleep(0.2)
(out / "sub").mkdir()
(out / "sub" / "large.bin").write_bytes(bytes(range(256)) * 4096)
sys.exit(3)
"""
JOB = """
name = "tiny"
command = ["python3", "job.py"]
stack = "none"
metric = { name = "score", direction = "max" }
"""
SAVES_WHEN_STOPPED = """
import os, pathlib, signal, sys, time
resume = os.environ.get("CLOUDRUN_RESUME_FROM")
if resume:
    print("goes on after", pathlib.Path(resume, "state").read_text())
    sys.exit()
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
checkpoint = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"], "checkpoint")
checkpoint.mkdir(parents=True)
(checkpoint / "state").write_text("its beginning")
print("begun", flush=True)
while not told:
    time.sleep(0.05)
(checkpoint / "state").write_text("its last second")
sys.exit(75)
"""


@pytest.fixture(params=["aws", "azure"])
def place(request: pytest.FixtureRequest, cloud: RentedCloud) -> Iterator[tuple[str, str]]:
    """A type of machine, and the address of an empty bucket in the same cloud."""
    if request.param == "aws":
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        yield TYPE, f"s3://{BUCKET}/deep/place"
        for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            s3.delete_object(Bucket=BUCKET, Key=each["Key"])
        s3.delete_bucket(Bucket=BUCKET)
        return
    service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    with service:
        container = service.get_container_client(BUCKET)
        with contextlib.suppress(ResourceExistsError):
            container.create_container()
        yield AZURE_TYPE, f"az://{BUCKET}/{os.getpid()}-{request.node.name[:12]}"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "job.py").write_text(SCRIPT)
    (folder / "job.toml").write_text(JOB)
    return folder


def abandon(client: Client, run: Run) -> None:
    """Its supervisor is killed, and nobody takes its place."""
    os.kill(client.store.find_run(run.id).supervisor_pid, signal.SIGKILL)
    wait_for(lambda: not client.files(run.id).walked())


def hang_up(machine: Machine) -> None:
    """End the connections to it that outlive their clients for a while."""
    assert machine.address
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if words[0].endswith(b"ssh") and machine.address.host.encode() in words:
                os.kill(int(entry.parent.name), signal.SIGTERM)


def end_when_idle(client: Client, run: Run) -> Machine:
    """Its machine's own guard ends it some seconds after the run, which may now go on; and its deadline is so
    near that nobody is waited for. Nobody is connected any more. Returns the machine."""
    machine = client.machine(client.store.find_run(run.id).machine)
    provider = client.provider(machine.provider)
    assert isinstance(provider, SelfRelease)
    now = datetime.now(UTC)
    guard = Guard(issued_at=now, deadline_at=now + timedelta(minutes=5), idle_minutes=0.1)
    with closing(client.shell(machine.name)) as shell:
        told = policy(guard, provider.release_command(machine), notices=provider.notices(machine))
        agentlink.call(shell, "guard", {"policy": told})
        shell.run("touch go")
    hang_up(machine)
    return machine


def stored(bucket: Bucket) -> list[str]:
    return [each.key for each in bucket.list()]


def letter(run: Run, number: int = 1) -> str:
    return f"{run.id}/.cloudrun/outbox-{number}.json"


def logged(client: Client, run: Run) -> bytes:
    return b"".join(client.logs(run.id))


def begun(client: Client, job: Path, type: str, address: str) -> Run:
    plan = client.plan(job, type=type, market=Market.ON_DEMAND, outputs_to=address, args=("wait",))
    run = client.submit(plan, detach=True)
    wait_for(lambda: b"step 3" in logged(client, run))
    return run


def begun_on_spot(client: Client, job: Path, type: str, address: str, on_preempt: OnPreempt) -> Run:
    """A run that saves when it is told to stop, and ends when it goes on after that."""
    (job / "job.py").write_text(SAVES_WHEN_STOPPED)
    (job / "job.toml").write_text(f"{JOB}resume = true")
    options = LaunchOptions(on_preempt=on_preempt)
    plan = client.plan(job, type=type, market=Market.SPOT, options=options, outputs_to=address)
    run = client.submit(plan, detach=True)
    wait_for(lambda: logged(client, run) == b"begun\n")
    return run


@pytest.mark.parametrize("place", ["aws", *exhaustive("azure")], indirect=True)
def test_a_run_that_nobody_watched_ends_as_it_really_did(
    client: Client, cloud: RentedCloud, place: tuple[str, str], job: Path
) -> None:
    kind, address = place
    bucket = open_bucket(address, client.settings)
    run = begun(client, job, kind, address)
    abandon(client, run)
    assert not list(client.files(run.id).outputs.rglob("large.bin"))
    machine = end_when_idle(client, run)
    wait_for(lambda: letter(run) in stored(bucket))
    wait_for(lambda: cloud.state(machine.id) in OFF)
    takes_nothing_damaged(client, run, bucket)
    run = client.attach(run.id)
    assert (run.state, run.exit_code, run.message) == (RunState.FAILED, 3, "exit code 3")
    assert [attempt.outcome for attempt in client.attempts(run.id)] == [Outcome.FAILED]
    outputs = client.files(run.id).outputs
    assert [file.path for file in list_folder(outputs)] == ["metrics.jsonl", "sub/large.bin"]
    content = (outputs / "sub" / "large.bin").read_bytes()
    assert hashlib.sha256(content).digest() == hashlib.sha256(bytes(range(256)) * 4096).digest()
    assert logged(client, run) == b"".join(b"step %d\n" % step for step in range(1, 11))
    assert run.metric_value == 10
    wait_for(lambda: cloud.live() == [])  # Azure deletes while one waits
    assert client.store.list_charges(open_only=True) == []
    assert [file.path for file in client.bucket_outputs(run.id)] == ["metrics.jsonl", "sub/large.bin"]
    assert not [key for key in stored(bucket) if "outbox" in key]
    record = client.files(run.id).record.read_text()
    assert "Signature" not in record
    assert "sig=" not in record


def takes_nothing_damaged(client: Client, run: Run, bucket: Bucket) -> None:
    """A copy of home that finds another part there says so, and the run is lost. The part is put back."""
    copy = Client(replace(client.settings, home=client.settings.home.with_name("copy")))
    shutil.copytree(client.settings.home, copy.settings.home, symlinks=True, ignore=only_files)
    part = letter(run).replace(".json", ".000")
    kept, other = copy.settings.home / "kept", copy.settings.home / "other"
    sha256 = bucket.get(part, kept)
    other.write_bytes(b"other")
    bucket.put(part, other, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(MachineError, match="is not what the machine stored there"):
        copy.attach(run.id)
    lost = copy.run(run.id)
    assert lost.state is RunState.LOST
    assert "is not what the machine stored there" in lost.message
    bucket.put(part, kept, sha256)


def only_files(folder: str, names: list[str]) -> list[str]:
    """Sockets of connections are no part of a copy."""
    return [name for name in names if Path(folder, name).is_socket()]


@pytest.mark.parametrize("place", ["aws", *exhaustive("azure")], indirect=True)
def test_what_a_preempted_run_saved_in_its_last_seconds_is_not_lost(
    client: Client, cloud: RentedCloud, place: tuple[str, str], job: Path
) -> None:
    kind, address = place
    if kind == AZURE_TYPE and cloud.record.kind == "embedded":
        pytest.skip("embedded machines of Azure have no notices: they cannot write /var/lib; root has others")
    bucket = open_bucket(address, client.settings)
    run = begun_on_spot(client, job, kind, address, OnPreempt.TERMINATE)
    abandon(client, run)
    machine = client.machine(client.store.find_run(run.id).machine)
    hang_up(machine)
    cloud.preempt(machine.id, notice_s=8)
    wait_for(lambda: letter(run) in stored(bucket))
    wait_for(lambda: machine.id not in cloud.live())
    run = client.attach(run.id)
    assert run.state is RunState.SUCCEEDED
    assert [attempt.outcome for attempt in client.attempts(run.id)] == [Outcome.PREEMPTED, Outcome.SUCCEEDED]
    assert logged(client, run) == b"begun\ngoes on after its last second\n"
    assert not [key for key in stored(bucket) if "outbox" in key]
    wait_for(lambda: cloud.live() == [])  # Azure deletes while one waits


@pytest.mark.parametrize("place", ["aws"], indirect=True)
def test_the_end_of_a_run_that_came_back_with_its_machine_is_stored(
    client: Client, cloud: RentedCloud, place: tuple[str, str], job: Path
) -> None:
    kind, address = place
    bucket = open_bucket(address, client.settings)
    run = begun_on_spot(client, job, kind, address, OnPreempt.STOP)
    abandon(client, run)
    machine = end_when_idle(client, run)
    cloud.preempt(machine.id, notice_s=3)
    # An embedded machine begins no new boot: without the notice it would hold the run back for two minutes.
    wait_for(lambda: letter(run) in stored(bucket), within_s=240)
    wait_for(lambda: cloud.state(machine.id) in OFF)
    run = client.attach(run.id)
    assert (run.state, len(client.attempts(run.id))) == (RunState.SUCCEEDED, 1)
    assert logged(client, run) == b"begun\ngoes on after its last second\n"


@pytest.mark.parametrize("place", exhaustive("azure"), indirect=True)
def test_a_client_that_stays_fetches_itself_and_leaves_no_parts(
    client: Client, cloud: RentedCloud, place: tuple[str, str], job: Path
) -> None:
    kind, address = place
    plan = client.plan(job, type=kind, market=Market.ON_DEMAND, outputs_to=address)
    run = client.submit(plan)
    assert (run.state, run.exit_code) == (RunState.FAILED, 3)
    assert not [key for key in stored(open_bucket(address, client.settings)) if "outbox" in key]
    wait_for(lambda: cloud.live() == [])  # Azure deletes while one waits
