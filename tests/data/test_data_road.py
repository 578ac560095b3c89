"""Data on the whole road, on real local machines: --data, outputs as input, deletion while queued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from data_home import HORSES, write_tree

from cloudrun.client import Client
from cloudrun.errors import Ambiguous, NotFound, Refused
from cloudrun.models import Run, RunState

LISTS = """
    import json, os, pathlib
    data, out = (pathlib.Path(os.environ[f"CLOUDRUN_{name}_DIR"]) for name in ("DATA", "OUTPUT"))
    seen = {top.name: sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())
            for top in (data.iterdir() if data.is_dir() else [])}
    (out / "features").mkdir(parents=True)
    (out / "features" / "seen.json").write_text(json.dumps([os.environ.get("CLOUDRUN_DATA_NAMES"), seen]))
"""


def make_job(folder: Path, *, data: str = "") -> Path:
    lines = ['name = "tiny"', 'command = ["python3", "job.py"]', 'stack = "none"', data]
    text = "\n".join(line.removeprefix("    ") for line in LISTS.splitlines())
    return write_tree(folder, {"job.toml": "\n".join(lines).encode(), "job.py": text.encode()})


def seen_by(client: Client, run: Run) -> list[object]:
    found = json.loads((client.files(run.id).outputs / "features" / "seen.json").read_text())
    assert isinstance(found, list)
    return found


def test_a_run_reads_a_dataset_and_the_next_one_its_outputs(
    client: Client, horses: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job")
    write_tree(client.settings.datasets_dir, {"mnist/own": b"was there before"})
    made, _ = client.upload_data(horses, name="horses")
    first = client.submit(client.plan(job, data=["horses"]))
    assert first.state is RunState.SUCCEEDED
    assert seen_by(client, first) == ["horses", {"horses": sorted(HORSES), "mnist": ["own"]}]
    order = client.files(first.id).load_record()["order"]
    assert [(row["mount"], row["digest"], row["version"]) for row in order["data"]] == [
        ("horses", made.digest, "v1")
    ]
    second = client.submit(client.plan(job, data=[f"{first.id[:5]}:features", "horses:v1:old", "last:/"]))
    assert seen_by(client, second) == [
        f"features:old:{first.id}",
        {
            "features": ["seen.json"],
            "old": sorted(HORSES),
            first.id: ["features/seen.json"],
            "mnist": ["own"],
        },
    ]
    assert client.datasets() == [(made, sorted([first.id, second.id]))]
    assert client.files(first.id).outputs.joinpath("features", "seen.json").stat().st_nlink == 1


def test_on_a_machine_that_stays_a_dataset_travels_once_and_an_upload_can_bring_it(
    client: Client, horses: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job")
    client.launch(name="bench", stack="none")
    client.upload_data(horses, name="horses", to="bench")
    assert client.push_data("horses", "bench") == 0
    with ThreadPoolExecutor(2) as pool:  # two submits at once
        runs = list(
            pool.map(lambda _: client.submit(client.plan(job, data=["horses"], on="bench")), range(2))
        )
    for run in runs:
        assert run.state is RunState.SUCCEEDED, run.message
        assert seen_by(client, run)[0] == "horses"
    client.terminate("bench")


def test_a_dataset_counts_as_the_data_that_a_job_needs(client: Client, horses: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", data="[data.digits]\nrequired = true")
    client.upload_data(horses, name="horses")
    with pytest.raises(Refused, match="needs data"):
        client.plan(job, data=["horses"])
    plan = client.plan(job, data=["horses:digits"])
    assert [(each.mount, each.files) for each in plan.data] == [("digits", 5)]


def test_what_cannot_be_meant_is_refused_in_the_plan(client: Client, horses: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    client.upload_data(horses, name="horses")
    run = client.submit(client.plan(job))
    for word in ("ponies", "horses:v7", f"{run.id}:nothing", f"{run.id}:features/seen.json"):
        with pytest.raises(NotFound):
            client.plan(job, data=[word])
    for words in (["horses", "horses:v1"], ["horses:a/b"], [f"{run.id}:../.."], ["horses:v1:a:b"]):
        with pytest.raises(Refused):
            client.plan(job, data=words)
    client.upload_data(horses, name="last")
    with pytest.raises(Ambiguous) as error:
        client.plan(job, data=["last:features"])
    assert "last:v1" in error.value.hint
    assert client.plan(job, data=["last:v1"]).data[0].name == "last"
    assert client.plan(job, data=["last:/features"]).data[0].run == run.id


def test_a_dataset_of_an_unfinished_run_is_not_deleted_and_one_that_is_gone_is_told(
    client: Client, horses: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job")
    made, _ = client.upload_data(horses, name="horses")
    plan = client.plan(job, data=["horses"])
    run = client.submit(plan)
    client.store.update_run(run.id, state=RunState.QUEUED)
    with pytest.raises(Refused, match=f"in use by {run.id}"):
        client.delete_data(client.find_data("horses"))
    client.store.update_run(run.id, state=RunState.SUCCEEDED)
    assert client.delete_data(client.find_data("horses")) > 0
    count = len(client.runs())
    with pytest.raises(NotFound, match=made.digest[:12]):
        client.submit(plan)
    assert len(client.runs()) == count
    assert client.machines() == []


def test_outputs_become_a_dataset(client: Client, tmp_path: Path) -> None:
    run = client.submit(client.plan(make_job(tmp_path / "job")))
    made = client.add_outputs("features", run.id, "features")
    assert (made.label, made.source, made.files) == ("features:v1", f"{run.id}:features", 1)
    with pytest.raises(NotFound):
        client.add_outputs("features", run.id, "nothing")


KILLED = """
import os, signal, sys
from pathlib import Path
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.remote import transfer
real = transfer._blocks
def blocks(wanted, *more):
    for block in real(wanted, *more):
        yield block
        if any(file.path == "big" for file, _ in wanted):
            os.kill(os.getpid(), signal.SIGKILL)
transfer._blocks = blocks
client = Client(Settings(home=Path(sys.argv[1]), poll_s=0.2))
client.submit(client.plan(sys.argv[2], data=["horses"]))
"""


def test_a_submit_killed_during_the_push_goes_on_with_attach(
    client: Client, horses: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job")
    (horses / "big").write_bytes(os.urandom(3_000_000))
    client.upload_data(horses, name="horses")
    done = subprocess.run([sys.executable, "-c", KILLED, client.settings.home, job], timeout=60)
    assert done.returncode == -signal.SIGKILL
    run = client.attach("last")
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen_by(client, run) == ["horses", {"horses": sorted([*HORSES, "big"])}]


def test_a_folder_is_tied_to_a_name(client: Client, horses: Path) -> None:
    with pytest.raises(Refused, match="belongs to no dataset"):
        client.upload_data(horses)
    client.init_data("horses", horses)
    assert client.upload_data(horses)[0].label == "horses:v1"
    assert ".cloudrun-data" not in {file.path for file in client.dataset_files("horses")}
