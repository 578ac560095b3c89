"""`cloudrun audit` as it is typed, in an account with things of ours, and of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clean"))  # for its homes
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "providers"))  # for its accounts

from aws_account import use_keys
from aws_help import QUICK
from clean_home import Home
from waiting import until

from cloudrun.cli import run as command
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import specifications
from cloudrun.sim.aws import AwsDouble

Call = Callable[..., tuple[int, str, str]]
REGION = "us-west-2"
OURS = {"cloudrun": "1", "cloudrun-name": "k80", "cloudrun-run": "aaaa", "Name": "k80"}
LONG = "a-disk-with-a-name-that-is-longer-than-any-table-of-eighty-columns-has-room-for"


@pytest.fixture(scope="module")
def double() -> Iterator[AwsDouble]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        with AwsDouble(delay_s=QUICK) as started:
            yield started


@pytest.fixture
def ec2(double: AwsDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    use_keys(monkeypatch, tmp_path, AWS_ENDPOINT_URL=double.url)
    monkeypatch.setattr(Session, "regions", lambda _session: [REGION])  # of 17
    client = boto3.client("ec2", region_name=REGION)
    for image in client.describe_images()["Images"]:  # whose snapshots would be this account's
        client.deregister_image(ImageId=image["ImageId"])
    for each in client.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
        client.delete_snapshot(SnapshotId=each["SnapshotId"])
    yield client
    for each in client.describe_volumes()["Volumes"]:
        client.delete_volume(VolumeId=each["VolumeId"])


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    home = Home(tmp_path / "home")
    home.add("aaaa")
    home.store.close()
    monkeypatch.setenv("CLOUDRUN_HOME", str(home.settings.home))

    def call(*words: str, columns: int = 120) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        code = command(("audit", "--provider", "aws", *words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def disk(ec2: Any, size_gb: int, tags: dict[str, str]) -> str:
    made = ec2.create_volume(
        AvailabilityZone=f"{REGION}a",
        Size=size_gb,
        VolumeType="gp3",
        TagSpecifications=specifications({"team": "x", **tags}, "volume"),
    )
    return str(made["VolumeId"])


def disks(ec2: Any) -> set[str]:
    return {each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]}


def test_ours_and_what_others_have(ec2: Any, cli: Call) -> None:
    ours, theirs = disk(ec2, 100, OURS), disk(ec2, 50, {"Name": "theirs"})
    code, out, err = cli("--json")
    assert code == 4
    [found] = json.loads(out)
    assert isinstance(found.pop("since"), str)
    assert found == {
        "provider": "aws",
        "region": REGION,
        "kind": "disk",
        "name": "k80",
        "id": ours,
        "state": "",
        "price_per_month_usd": 8.0,
        "used_by": "k80",
        "run": "aaaa",
        "foreign": False,
        "remark": "",
        "problem": "nothing needs it",
        "fix": "free",
    }
    assert err.startswith("1 thing, 8.00 USD a month; 1 of them wrong\n")
    code, out, err = cli("--all", "--json")
    [other] = [item for item in json.loads(out) if item["foreign"]]
    assert (other["id"], other["price_per_month_usd"], other["remark"]) == (theirs, 4.0, "not ours")
    assert (other["problem"], other["fix"]) == ("", "")
    assert "1 of them wrong; 1 thing of others, 4.00 USD a month\n" in err


def test_what_others_have_is_never_wrong(ec2: Any, cli: Call) -> None:
    disk(ec2, 50, {"Name": "theirs"})
    assert cli()[0] == 0
    code, out, err = cli("--all")
    assert (code, err) == (
        0,
        "nothing is rented, and nothing is left over; 1 thing of others, 4.00 USD a month\n",
    )
    assert out.splitlines()[0].split() == [
        "KIND",
        "NAME",
        "PROVIDER",
        "REGION",
        "STATE",
        "AGE",
        "USD/MONTH",
        "REMARK",
    ]


def test_the_plan_comes_first_and_only_ours_goes(ec2: Any, cli: Call) -> None:
    disk(ec2, 100, OURS)
    theirs = disk(ec2, 50, {})
    before = disks(ec2)
    code, out, err = cli("--fix", "--all", "--dry-run")
    assert (code, disks(ec2)) == (4, before)
    plan = err[err.index("WHAT TO DO") :].splitlines()
    assert plan[0].split() == ["WHAT", "TO", "DO", "KIND", "NAME", "REGION", "USD/MONTH", "BECAUSE"]
    assert plan[1].split() == ["free", "disk", "k80", REGION, "8.00", "nothing", "needs", "it"]
    assert plan[2] == "that ends 8.00 USD a month"
    assert "WHAT TO DO" not in out
    assert cli("--fix")[0] == 2  # nobody there to ask
    assert disks(ec2) == before
    assert cli("--fix", "--all", "-y")[0] == 0
    assert disks(ec2) == {theirs}
    assert cli("--fix", "-y")[0] == 0


@pytest.mark.parametrize(("tags", "remark"), [({}, "only you end it"), ({"cloudrun-idle-minutes": "30"}, "")])
@pytest.mark.usefixtures("ec2")
def test_a_machine_without_a_guard_is_named(
    cli: Call, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], remark: str
) -> None:
    elsewhere = "eu-west-1"  # where there are images
    monkeypatch.setattr(Session, "regions", lambda _session: [elsewhere])
    ec2 = boto3.client("ec2", region_name=elsewhere)
    told = specifications({**OURS, "cloudrun-token": "t", **tags}, "instance")
    made = ec2.run_instances(
        ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        InstanceType="g4dn.xlarge",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=told,
    )
    machine = made["Instances"][0]["InstanceId"]
    found = until(
        lambda: next(each for each in json.loads(cli("--json")[1]) if each["kind"] == "machine"),
        lambda each: each["state"] == "running",
    )
    assert (found["id"], found["remark"], found["fix"]) == (machine, remark, "adopt")
    ec2.terminate_instances(InstanceIds=[machine])
    until(lambda: json.loads(cli("--json")[1]), lambda left: not left)


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_screen(ec2: Any, cli: Call, columns: int) -> None:
    disk(ec2, 100, {**OURS, "Name": LONG})
    disk(ec2, 50, {"Name": LONG})
    _, out, err = cli("--all", "--fix", "--dry-run", columns=columns)
    assert all(len(line) <= columns for line in (out + err).splitlines())
    assert "nothing needs it" in out
    assert "not ours" in out
