"""Every kind of bucket does the same: what is stored comes back, whole and checked, in few calls."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest
from aws_keys import use_aws
from azure.storage.blob import BlobServiceClient, UserDelegationKey
from bucket_cases import CONTAINER, Case, S3Case

from cloudrun.bucket import open_bucket, parse_place
from cloudrun.config import Settings
from cloudrun.errors import Credentials, NotFound, ProviderError, Refused, TransferFailed
from cloudrun.sim.aws import AwsDouble
from cloudrun.sim.azure import AzureDouble
from cloudrun.sim.azure.blob_calls import KEY

NAMES = ("plain.txt", "with space.txt", "ümläut/日本.bin", "a+b&c=d?e#f%41.txt", "deep/er/one")


def put(case: Case, folder: Path, key: str, content: bytes) -> str:
    source = folder / "source"
    source.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    case.bucket.put(key, source, sha256)
    return sha256


@pytest.mark.parametrize("content", [b"", b"some content", bytes(range(256)) * 20_000])
def test_content_comes_back(case: Case, tmp_path: Path, content: bytes) -> None:
    sha256 = put(case, tmp_path, "a/file", content)
    target = tmp_path / "new" / "folder" / "file"
    assert case.bucket.get("a/file", target) == sha256
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_names_are_kept(case: Case, tmp_path: Path) -> None:
    for name in NAMES:
        put(case, tmp_path, name, name.encode())
    listed = list(case.bucket.list())
    assert sorted(each.key for each in listed) == sorted(NAMES)
    assert all(each.size == len(each.key.encode()) for each in listed)
    assert all(abs(each.modified_at - datetime.now(UTC)) < timedelta(minutes=1) for each in listed)
    for name in NAMES:
        case.bucket.get(name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == name.encode()
    case.bucket.delete(NAMES)
    assert list(case.bucket.list()) == []


def test_what_arrives_changed_is_refused(case: Case, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"not what was hashed")
    with pytest.raises((ProviderError, TransferFailed)):
        case.bucket.put("file", tmp_path / "source", hashlib.sha256(b"other").hexdigest())
    assert list(case.bucket.list()) == []


def test_damage_in_the_bucket_is_noticed(case: Case, tmp_path: Path) -> None:
    put(case, tmp_path, "file", b"precious")
    case.corrupt("file")
    with pytest.raises(TransferFailed, match="not what was stored"):
        case.bucket.get("file", tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("source", "home")] == []


def test_long_listings_come_page_by_page(case: Case) -> None:
    wanted = [f"run/{number:04}" for number in range(5200)]
    case.fill([*wanted, "running/other"])
    assert [each.key for each in case.bucket.list("run/")] == wanted


def test_folders_are_told_without_what_is_in_them(case: Case) -> None:
    case.fill(["file", *(f"run{number:04}/deep/{part}" for number in range(1200) for part in "abc")])
    assert list(case.bucket.folders()) == [f"run{number:04}" for number in range(1200)]


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_deleting_takes_few_calls(case: Case, count: int) -> None:
    keys = [f"run/{number:04}" for number in range(count)]
    case.fill([*keys, "stays"])
    assert case.bucket.delete(keys) == case.delete_calls() == -(-count // case.batch)
    assert [each.key for each in case.bucket.list()] == ["stays"]
    case.bucket.delete(keys)  # again: what is gone is gone


def test_a_signed_address_is_for_one_object(case: Case, tmp_path: Path) -> None:
    url = case.bucket.sign("signed", "PUT", 60)
    headers = {**case.bucket.put_headers, "Content-Type": "application/octet-stream"}
    with urlopen(Request(url, data=b"from afar", method="PUT", headers=headers), timeout=10, context=tls()):
        pass
    case.bucket.get("signed", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"from afar"
    with urlopen(case.bucket.sign("signed", "GET", 60), timeout=10, context=tls()) as answer:
        assert answer.read() == b"from afar"


def test_no_such_bucket(case: Case, settings: Settings, tmp_path: Path) -> None:
    absent = open_bucket(case.absent, settings)
    (tmp_path / "source").write_bytes(b"")
    with pytest.raises(NotFound, match="nobody-made-this") as caught:
        absent.put("file", tmp_path / "source", hashlib.sha256(b"").hexdigest())
    assert caught.value.hint
    with pytest.raises(NotFound, match="nobody-made-this"):
        list(absent.list())


def test_one_object_is_looked_at_without_its_content(case: Case, tmp_path: Path) -> None:
    sha256 = put(case, tmp_path, "a/file", b"content")
    found = case.bucket.look("a/file")
    assert found
    assert (found.key, found.size, found.sha256) == ("a/file", 7, sha256)
    assert case.bucket.look("a/fil") is None


def test_no_such_object(case: Case, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such object"):
        case.bucket.get("never", tmp_path / "back")


def test_nobody_answers(case: Case, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudrun.providers.azure.blob.RETRIES", 0)
    monkeypatch.setattr("cloudrun.providers.aws.bucket.READ_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        "AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;",
    )
    unreachable = open_bucket(case.address, settings)
    with pytest.raises(ProviderError, match="cannot be reached"):
        list(unreachable.list())


def test_rights_that_are_missing(case: Case, tmp_path: Path) -> None:
    case.forbid_storing()
    with pytest.raises(Credentials, match="store file") as caught:
        put(case, tmp_path, "file", b"content")
    assert "grant" in caught.value.hint
    assert list(case.bucket.list()) == []


def test_no_credentials(case: Case, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Credentials) as caught:
        open_bucket(case.address, settings)
    assert caught.value.hint


def test_large_files_go_in_parts(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(case, S3Case):
        monkeypatch.setattr("cloudrun.providers.aws.bucket.PART_BYTES", 5 << 20)
    content = bytes(range(256)) * 50_000
    put(case, tmp_path, "large", content)
    case.bucket.get("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize(
    "address", ["", "s3://", "s3://a", "ftp://bucket/x", "s3://bucket/a//b", "az://c/.."]
)
def test_no_address(address: str) -> None:
    with pytest.raises(Refused, match="no place"):
        parse_place(address)


def tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # SSL_CERT_FILE names the rehearsal's authority


def test_a_signature_runs_out(case: Case) -> None:
    url = case.bucket.sign("signed", "GET", -60)
    with pytest.raises(HTTPError, match="403"):
        urlopen(url, timeout=10, context=tls())


def test_what_arrives_changed_at_a_signed_address_is_refused(case: Case) -> None:
    url = case.bucket.sign("signed", "PUT", 60)
    told = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    headers = {**case.bucket.put_headers, "Content-MD5": told}
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(url, data=b"from afar", method="PUT", headers=headers), timeout=10, context=tls())
    assert list(case.bucket.list()) == []


def test_a_signed_address_is_not_for_headers_that_it_does_not_name(
    aws: AwsDouble, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_aws(monkeypatch, tmp_path, aws.url)
    url = S3Case(aws, settings).bucket.sign("signed", "PUT", 60)
    headers = {"x-amz-meta-other": "1"}
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(url, data=b"from afar", method="PUT", headers=headers), timeout=10)


@pytest.mark.parametrize(
    ("method", "was", "now"),
    [("GET", "sig=", "sig=AA"), ("GET", "/signed?", "/plain?"), ("GET", "sp=r", "sp=rw"), ("PUT", "", "")],
)
def test_azure_believes_no_address_that_was_changed_or_is_for_something_else(
    azure: AzureDouble, settings: Settings, monkeypatch: pytest.MonkeyPatch, method: str, was: str, now: str
) -> None:
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    azure.storage.reset()
    azure.storage.add_container(CONTAINER)
    azure.storage.put(CONTAINER, "signed", b"content")
    azure.storage.put(CONTAINER, "plain", b"content")
    url = open_bucket(f"az://{CONTAINER}", settings).sign("signed", method, 60)
    with pytest.raises(HTTPError, match="403"):
        urlopen(url.replace(was, now, 1) if was else url, timeout=10, context=tls())


def test_a_wrong_key_of_azure_is_said(
    azure: AzureDouble, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    azure.storage.add_container(CONTAINER)
    told = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    other = base64.b64encode(b"another key").decode()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told.replace(KEY, other))
    with pytest.raises(Credentials, match="may not do that") as caught:
        list(open_bucket(f"az://{CONTAINER}", settings).list())
    assert "AZURE_STORAGE_KEY" in caught.value.hint


def test_an_address_of_s3_is_signed_for_the_buckets_own_region(
    aws: AwsDouble, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_aws(monkeypatch, tmp_path, aws.url)
    where: Any = {"LocationConstraint": "eu-west-1"}
    boto3.client("s3").create_bucket(Bucket="far-away", CreateBucketConfiguration=where)
    bucket = open_bucket("s3://far-away/place", settings)
    aws.forget_calls()
    urls = [bucket.sign(f"key{number}", "PUT", 60) for number in range(3)]
    assert all("%2Feu-west-1%2Fs3%2F" in url for url in urls)
    assert bucket.region == "eu-west-1"
    assert len(aws.calls()) <= 1  # the region, once


def test_credentials_of_a_session_limit_what_they_sign(
    aws: AwsDouble, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_aws(monkeypatch, tmp_path, aws.url)
    assert open_bucket("s3://some-bucket", settings).signing_limit == ""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-session")
    assert "session" in open_bucket("s3://some-bucket", settings).signing_limit


def test_a_login_of_azure_asks_for_one_key_however_many_addresses_it_signs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only Microsoft gives such keys: what the account would answer is put in its place."""
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_KEY", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "results")
    given = UserDelegationKey()
    given.signed_oid = given.signed_tid = "00000000-0000-0000-0000-000000000000"
    given.signed_service, given.signed_version, given.value = "b", "2020-12-06", KEY
    asked: list[datetime] = []

    def give(_: object, begins: datetime, ends: datetime) -> UserDelegationKey:
        given.signed_start, given.signed_expiry = begins.isoformat(), ends.isoformat()
        asked.append(ends)
        return given

    monkeypatch.setattr(BlobServiceClient, "get_user_delegation_key", give)
    bucket = open_bucket(f"az://{CONTAINER}", settings)
    assert "rights" in bucket.signing_limit
    for seconds in (3600.0, 8 * 24 * 3600.0):
        asked.clear()
        urls = [bucket.sign(f"key{number}", "PUT", seconds) for number in range(20)]
        assert len(asked) == 1
        ends = [parse_qs(urlsplit(url).query)["se"][0] for url in urls]
        assert all(datetime.fromisoformat(end) <= asked[0] for end in ends)
