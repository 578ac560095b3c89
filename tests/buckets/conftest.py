"""Buckets under contract: S3 and Blob on the rehearsal clouds, each with how to look behind its interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agent"))  # for its machine without a network

import quick_boto  # noqa: F401  # for what it does
from aws_keys import use_aws
from bucket_cases import CONTAINER, BlobCase, Case, S3Case
from localmachine import LocalShell, local_machine

from cloudrun.config import Settings
from cloudrun.sim.aws import AwsDouble
from cloudrun.sim.azure import AzureDouble


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsDouble]:
    double = AwsDouble()
    double.start()
    yield double
    double.stop()


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureDouble]:
    with AzureDouble(folder=tmp_path_factory.mktemp("azure")) as double:
        yield double


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LocalShell]:
    with local_machine(tmp_path) as shell:
        yield shell


@pytest.fixture(params=["s3", "az"])
def case(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Case:
    """An empty bucket of each kind."""
    if request.param == "s3":
        aws: AwsDouble = request.getfixturevalue("aws")
        aws.clear_faults()
        use_aws(monkeypatch, tmp_path, aws.url)
        return S3Case(aws, settings)
    azure: AzureDouble = request.getfixturevalue("azure")
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    azure.storage.reset()
    azure.storage.add_container(CONTAINER)
    return BlobCase(azure, settings)
