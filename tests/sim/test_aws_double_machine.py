"""The double with a machine behind an instance: what EC2 says is what the system there lives through."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from double_help import PERSISTENT, QUICK, TYPE, Account, account

from cloudrun.config import Settings
from cloudrun.errors import ConnectionLost
from cloudrun.keys import Keys, make_keys
from cloudrun.models import SshAddress
from cloudrun.remote.connect import connect
from cloudrun.remote.shell import Shell
from cloudrun.sim import namespace
from cloudrun.sim.machine import MachineHost

PORT = 20023  # not sshd's own, which a developer's computer has in use
ASK = """
import urllib.request as web
base = "{base}/latest/"
wish = web.Request(base + "api/token", method="PUT", headers={{"X-aws-ec2-metadata-token-ttl-seconds": "60"}})
token = web.urlopen(wish, timeout=5).read().decode()
path = web.Request(base + "meta-data/{path}", headers={{"X-aws-ec2-metadata-token": token}})
try:
    print(web.urlopen(path, timeout=5).read().decode())
except web.HTTPError as error:
    print(error.code)
"""


class Owner:
    """Who rented the machine: keys, user data, a way in."""

    def __init__(self, aws: Account, folder: Path) -> None:
        self.aws = aws
        self.settings = Settings(home=folder, ssh_port=PORT)
        self.keys: Keys = make_keys(self.settings.keys_dir / "k80", comment="k80")

    def user_data(self) -> str:
        keys = self.keys
        told = {
            "ssh_keys": {"ed25519_private": keys.host_private, "ed25519_public": keys.host_public},
            "ssh_authorized_keys": [keys.login_public],
        }
        return "#cloud-config\n" + json.dumps(told)

    @contextlib.contextmanager
    def shell(self, one: str) -> Iterator[Shell]:
        """Into the machine where EC2 says that it is, strict about its host key."""
        address = SshAddress(
            host=self.aws.describe(one)["PublicIpAddress"],
            port=PORT,
            user="ubuntu",
            key_path=self.settings.keys_dir / "k80" / "id_ed25519",
            host_key=self.keys.host_public,
        )
        shell = connect(address, self.settings, machine="k80")
        try:
            yield shell
        finally:
            shell.close()

    def run(self, one: str, command: str) -> str:
        with self.shell(one) as shell:
            return shell.run(command, timeout_s=60).text.strip()

    def metadata(self, one: str, path: str) -> str:
        base = "${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}"
        script = ASK.format(base="BASE", path=path)
        return self.run(one, f"python3 -c '{script}'".replace("BASE", f"'{base}'"))


@pytest.fixture(params=["namespace", "embedded"])
def owner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Owner]:
    kind = request.param
    if kind == "namespace" and (why_not := namespace.missing()):
        pytest.skip(f"namespace machines: {why_not}")
    host = MachineHost(tmp_path / "machines", ssh_port=PORT, kind=kind)
    try:
        with account(host, QUICK) as aws:
            yield Owner(aws, tmp_path / "home")
    finally:
        host.close()


def test_a_rented_machine_lives_as_ec2_says(owner: Owner) -> None:
    aws = owner.aws
    one = aws.running(user_data=owner.user_data(), spot=PERSISTENT)
    assert owner.metadata(one, "instance-id") == one
    assert owner.metadata(one, "spot/instance-action") == "404"
    owner.run(one, "echo precious > kept")
    aws.ec2.stop_instances(InstanceIds=[one])
    aws.wait(one, "stopped")
    aws.ec2.start_instances(InstanceIds=[one])
    aws.wait(one, "running")
    assert owner.run(one, "cat kept") == "precious"
    aws.double.preempt(one, notice_s=3600)
    assert json.loads(owner.metadata(one, "spot/instance-action"))["action"] == "stop"
    aws.double.set_capacity(TYPE, count=0)
    aws.double.preempt(one, notice_s=0)
    aws.wait(one, "stopped")
    aws.double.set_capacity(TYPE, count=None)
    aws.wait(one, "running")
    assert owner.run(one, "cat kept") == "precious"


def test_a_machine_that_shuts_itself_down_is_gone(owner: Owner) -> None:
    aws = owner.aws
    one = aws.running(user_data=owner.user_data(), InstanceInitiatedShutdownBehavior="terminate")
    with owner.shell(one) as shell, contextlib.suppress(ConnectionLost):
        shell.run("sudo shutdown -h now", check=False, timeout_s=60)
    gone = aws.wait(one, "terminated")
    assert gone["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert aws.ec2.describe_volumes()["Volumes"] == []
