"""Datasets in a bucket: stored once, fetched by a machine at signed addresses, and taken away."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from bucket_cases import Case
from click.testing import CliRunner
from localmachine import LocalShell

from cloudrun import datasets, datasets_bucket, datasets_remote, keptdata
from cloudrun.cli import app
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.datasets_bucket import PACKS, read_pieces
from cloudrun.errors import ConnectionLost, NotFound, ProviderError, TransferFailed
from cloudrun.models import Bundle
from cloudrun.remote import datalink

SMALL = {f"{n % 7}/{n}": b"%d" % n * 20 for n in range(500)} | {"empty": b"", "twin": b"0" * 20}


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets_bucket, "PACK_BYTES", 8000)


def kept(settings: Settings, tmp_path: Path, files: dict[str, bytes], name: str = "d") -> Bundle:
    folder = tmp_path / name
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return datasets.add_folder(settings, name, folder)[1]


def store(case: Case, settings: Settings, tree: Bundle) -> int:
    return datasets_bucket.store(
        case.bucket, tree, keptdata.objects_dir(settings), progress=lambda done, total: None
    )


def authority() -> str:
    path = os.environ.get("SSL_CERT_FILE", "")
    return Path(path).read_text() if path else ""


def gather(case: Case, settings: Settings, machine: LocalShell, tree: Bundle) -> None:
    datasets_remote.gather(settings, machine, tree.digest, case.bucket, authority=authority())


def seen(machine: LocalShell, tree: Bundle) -> dict[str, bytes]:
    root = Path(datalink.place(machine, "run.1", [("d", tree.digest)])) / "d"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def packs(case: Case) -> dict[str, int]:
    return {each.key: each.size for each in case.bucket.list(PACKS)}


def test_a_dataset_is_stored_once_and_a_machine_fetches_it_without_us(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    files = {**SMALL, "large": os.urandom(600_000)}
    tree = kept(settings, tmp_path, files)
    size = sum(map(len, {*files.values()}))
    assert store(case, settings, tree) == size
    assert sum(packs(case).values()) == size
    assert len(packs(case)) < 10
    assert store(case, settings, tree) == 0
    gather(case, settings, machine, tree)
    assert seen(machine, tree) == files
    assert machine.sent < size / 2
    before = machine.sent
    gather(case, settings, machine, tree)
    assert machine.sent - before < 300


def test_only_what_a_new_version_adds_is_stored_and_fetched(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    first = kept(settings, tmp_path, SMALL)
    store(case, settings, first)
    gather(case, settings, machine, first)
    asked = []
    second = kept(settings, tmp_path, {"more": b"more"})
    assert store(case, settings, second) == 4
    datasets_remote.gather(
        settings,
        machine,
        second.digest,
        case.bucket,
        authority=authority(),
        progress=lambda *amounts: asked.append(amounts),
    )
    assert asked[-1] == (4, 4)
    assert seen(machine, second) == {**SMALL, "more": b"more"}


def test_a_cut_upload_goes_on_where_it_stopped(
    case: Case, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = kept(settings, tmp_path, {str(n): os.urandom(3000) for n in range(20)})
    real, lock, left = case.bucket.put, threading.Lock(), [4]

    def put(key: str, path: Path, sha256: str) -> None:
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise ConnectionLost("cut by the test")
        real(key, path, sha256)

    with monkeypatch.context() as cut:
        cut.setattr(case.bucket, "put", put)
        with pytest.raises(ConnectionLost):
            store(case, settings, tree)
    assert read_pieces(case.bucket, tree.digest) is None
    assert len(packs(case)) == 4
    assert store(case, settings, tree) == 60_000 - 4 * 6000
    assert store(case, settings, tree) == 0


def test_what_was_lost_in_the_bucket_is_stored_again(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    tree = kept(settings, tmp_path, SMALL)
    size = store(case, settings, tree)
    lost = next(iter(packs(case)))
    lost_size = packs(case)[lost]
    case.bucket.delete([lost])
    with pytest.raises(TransferFailed, match="404"):
        gather(case, settings, machine, tree)
    assert store(case, settings, tree) == lost_size < size
    gather(case, settings, machine, tree)
    assert seen(machine, tree) == SMALL


def test_a_machine_takes_nothing_that_is_damaged_and_tells_no_address(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    tree = kept(settings, tmp_path, SMALL)
    store(case, settings, tree)
    for key, size in packs(case).items():
        case.bucket.put(key, *_object(tmp_path, b"x" * size))
    with pytest.raises(TransferFailed, match="arrived wrong") as error:
        gather(case, settings, machine, tree)
    assert "ignature" not in error.value.message
    with pytest.raises(TransferFailed, match="not on this machine"):
        seen(machine, tree)


def test_an_address_that_ran_out_is_told_without_it(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = kept(settings, tmp_path, SMALL)
    store(case, settings, tree)
    monkeypatch.setattr(datasets_remote, "SIGNED_S", -60)
    with pytest.raises(TransferFailed, match="403") as error:
        gather(case, settings, machine, tree)
    assert "http" not in error.value.message


def test_a_cut_fetch_goes_on_where_it_stopped(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    """What was written of a large file stays, as .part, and only the rest is asked for."""
    content = os.urandom(50_000)
    tree = kept(settings, tmp_path, {"large": content, "small": b"small"})
    store(case, settings, tree)
    sha256 = hashlib.sha256(content).hexdigest()
    part = machine.base / "objects" / sha256[:2] / f"{sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:20_000])
    told = []
    datasets_remote.gather(
        settings,
        machine,
        tree.digest,
        case.bucket,
        authority=authority(),
        progress=lambda *amounts: told.append(amounts),
    )
    assert seen(machine, tree) == {"large": content, "small": b"small"}
    assert told[-1] == (30_005, 30_005)


def test_what_is_not_stored_is_said(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell
) -> None:
    tree = kept(settings, tmp_path, SMALL)
    with pytest.raises(NotFound, match="does not hold"):
        gather(case, settings, machine, tree)


def test_deleting_takes_what_no_other_dataset_needs(
    case: Case, settings: Settings, tmp_path: Path, machine: LocalShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(settings, tmp_path, {str(n): b"%d" % n * 3000 for n in range(1, 6)})
    second = kept(settings, tmp_path, {"5": b"5" * 3000, "own": b"own" * 3000}, name="other")
    size = store(case, settings, first)
    store(case, settings, second)
    case.bucket.put(f"{PACKS}{'0' * 64}", *_object(tmp_path, b"of an upload that goes on"))
    shared = read_pieces(case.bucket, second.digest)[hashlib.sha256(b"5" * 3000).hexdigest()].pack
    shared_size = packs(case)[f"{PACKS}{shared}"]
    assert datasets_bucket.delete(case.bucket, first.digest) == size - shared_size
    assert datasets_bucket.delete(case.bucket, first.digest) == 0
    gather(case, settings, machine, second)
    assert seen(machine, second) == {"5": b"5" * 3000, "own": b"own" * 3000}
    assert f"{PACKS}{'0' * 64}" in packs(case)
    monkeypatch.setattr(datasets_bucket, "GRACE", timedelta(seconds=-5))
    datasets_bucket.delete(case.bucket, second.digest)
    assert packs(case) == {}


def _object(tmp_path: Path, content: bytes) -> tuple[Path, str]:
    (tmp_path / "object").write_bytes(content)
    return tmp_path / "object", hashlib.sha256(content).hexdigest()


def test_damage_at_home_is_not_stored(case: Case, settings: Settings, tmp_path: Path) -> None:
    tree = kept(settings, tmp_path, SMALL)
    sha256 = hashlib.sha256(SMALL["1/1"]).hexdigest()
    (keptdata.objects_dir(settings) / sha256[:2] / sha256).write_bytes(b"x" * 20)
    with pytest.raises(TransferFailed, match="damaged"):
        store(case, settings, tree)
    assert read_pieces(case.bucket, tree.digest) is None


# --- by command --------------------------------------------------------------------------------


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("CLOUDRUN_HOME", str(settings.home))
    return Client(settings)


def places(client: Client) -> list[list[str]]:
    listed = CliRunner().invoke(app, ["data", "list", "--json"])
    return [each["places"] for each in json.loads(listed.stdout)]


def test_upload_says_where_it_is_and_delete_takes_it_from_there(
    client: Client, case: Case, tmp_path: Path
) -> None:
    kept(client.settings, tmp_path, SMALL)
    (tmp_path / "d" / "more").write_bytes(b"of the second version")
    upload = ["data", "upload", str(tmp_path / "d"), "--name", "d", "--to", case.address]
    done = CliRunner().invoke(app, upload)
    assert done.exit_code == 0, done.output
    assert f"it is in {case.address}" in done.stderr
    assert places(client) == [[], [case.address]]
    assert CliRunner().invoke(app, ["data", "delete", "d:v1", "-y"]).exit_code == 0
    assert packs(case)
    assert CliRunner().invoke(app, ["data", "delete", "d", "-y"]).exit_code == 0
    assert list(case.bucket.list()) == []
    assert places(client) == []


def test_what_another_name_still_means_stays_in_the_bucket(
    client: Client, case: Case, tmp_path: Path
) -> None:
    tree = kept(client.settings, tmp_path, SMALL)
    kept(client.settings, tmp_path, SMALL, name="same")
    assert client.push_data("d", case.address) > 0
    assert client.push_data("same", case.address) == 0
    client.delete_data(client.find_data("d"))
    assert read_pieces(case.bucket, tree.digest)
    assert places(client) == [[case.address]]


def test_a_bucket_that_cannot_be_asked_keeps_the_version(
    client: Client, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(client.settings, tmp_path, SMALL)
    client.push_data("d", case.address)

    def refuse(bucket: object, digest: str) -> int:
        raise ProviderError("nobody answers", hint="try again")

    with monkeypatch.context() as cut:
        cut.setattr(datasets_bucket, "delete", refuse)
        with pytest.raises(ProviderError):
            client.delete_data(client.find_data("d"))
    assert places(client) == [[case.address]]
    client.delete_data(client.find_data("d"))
    assert places(client) == []


def test_a_bucket_that_is_gone_keeps_nothing_back(client: Client, case: Case, tmp_path: Path) -> None:
    tree = kept(client.settings, tmp_path, SMALL)
    keptdata.add_place(client.settings, tree.digest, case.absent)
    client.delete_data(client.find_data("d"))
    assert places(client) == []
    with pytest.raises(NotFound):
        client.find_data("d")


def test_a_bucket_that_is_not_there_is_said(client: Client, case: Case, tmp_path: Path) -> None:
    kept(client.settings, tmp_path, SMALL)
    with pytest.raises(NotFound, match="nobody-made-this"):
        client.push_data("d", case.absent)
    assert places(client) == [[]]
