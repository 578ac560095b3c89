"""What goes wrong with data as people meet it: said in words, with what to do, and nothing half done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from data_home import HORSES, write_tree
from faults import agent_base, call_cli, may_mount, small_disk

from cloudrun import keptdata
from cloudrun.cli import app
from cloudrun.client import Client
from cloudrun.errors import Refused, UsageError
from cloudrun.models import RunState

JOB = 'name = "tiny"\ncommand = ["true"]\nstack = "none"\n'
SHA256 = "ab" * 32

small = pytest.mark.skipif(not may_mount(), reason="mounts small disks, as root only")

SAID = {
    "files ponies": ("there is no dataset 'ponies'", "known: horses"),
    "files horsse": ("there is no dataset 'horsse'", "did you mean horses?"),
    "get horses:v9 --to new": ("horses has no version 'v9'", "cloudrun data list horses"),
    "get horses white/none --to new": ("horses:v1 has no 'white/none'", "cloudrun data files horses:v1"),
    "get horses --to images": ("images is not empty", "does not exist yet"),
    "upload nowhere --name x": ("nowhere is not a folder", "holds the files"),
    "upload images": ("images belongs to no dataset yet", "--name NAME"),
    "upload images --name v1": ("'v1' cannot name a dataset", "letters, digits"),
    "upload images --name x --to bench": ("no machine is called 'bench'", "cloudrun launch"),
    "upload images --name x --to ftp://x/y": ("'ftp://x/y' is no place in a bucket", "s3://bucket"),
    "init horses nowhere": ("No such file", "may write to"),
    "add x": ("name either a run or an address", "--url URL"),
    "add x last:a": ("no run is recorded here", "submit one"),
    "add x --url http://x/y --sha256 12": ("'12' is no sha256", "64 hexadecimal digits"),
    f"add x --url file:///x --sha256 {SHA256}": ("is no address to fetch from", "https://"),
    "files svhn": ("svhn:v1 is not kept on this computer", "https://example.org/a.tar"),
    "delete": ("name a dataset", "cloudrun data list"),
    "delete horses --on bench": ("no machine is called 'bench'", "cloudrun launch"),
}


@pytest.mark.parametrize("words", SAID)
def test_it_is_said_and_nothing_is_made(
    client: Client, horses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    client.upload_data(horses, name="horses")
    client.add_url("svhn", "https://example.org/a.tar", sha256=SHA256)
    before = client.datasets()
    monkeypatch.setenv("CLOUDRUN_HOME", str(client.settings.home))
    done = CliRunner().invoke(app, ["data", *words.split()])
    message, hint = SAID[words]
    assert isinstance(done.exception, UsageError)
    assert done.stdout == ""
    assert message in done.exception.message
    assert hint in done.exception.hint
    assert client.datasets() == before
    assert not (tmp_path / "new").exists()


@small
def test_no_room_at_home(client: Client, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "big", {"a": b"a", "big": os.urandom(3_000_000)})
    with small_disk(client.settings.kept_datasets_dir) as make_big:
        code, _, err = call_cli(client, "data", "upload", str(folder), "--name", "big")
        assert (code, "No space left" in err, "CLOUDRUN_HOME" in err) == (1, True, True)
        assert client.datasets() == []
        make_big()
        assert client.upload_data(folder, name="big")[0].label == "big:v1"
        assert len(list(keptdata.objects_dir(client.settings).glob("*/*"))) == 2


@small
def test_no_room_where_it_is_wanted(client: Client, tmp_path: Path) -> None:
    client.upload_data(write_tree(tmp_path / "big", {"big": os.urandom(3_000_000)}), name="big")
    with small_disk(tmp_path / "small"):
        code, _, err = call_cli(client, "data", "get", "big", "--to", str(tmp_path / "small" / "new"))
    assert (code, "No space left" in err) == (5, True)


@small
def test_no_room_on_the_machine(client: Client, horses: Path, tmp_path: Path) -> None:
    """The run ends, and what arrived stays there: once there is room, it goes on."""
    job = write_tree(tmp_path / "job", {"job.toml": JOB.encode()})
    client.launch(name="m", stack="none")
    (horses / "big").write_bytes(os.urandom(3_000_000))
    client.upload_data(horses, name="horses")
    with small_disk(agent_base(client, "m") / "objects") as make_big:
        with pytest.raises(Refused, match="No space left") as caught:
            client.submit(client.plan(job, on="m", data=["horses"]))
        assert "free space on the machine" in caught.value.hint
        run = client.run("last")
        assert (run.state, "No space left" in run.message) == (RunState.FAILED, True)
        make_big()
        assert client.restart(run.id).state is RunState.SUCCEEDED
        freed, used = client.discard_data("m", client.find_data("horses"))
        assert (freed, used) == (3_000_000 + sum(map(len, {*HORSES.values()})), [])
        assert client.push_data("horses", "m") == freed
