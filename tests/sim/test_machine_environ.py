"""Variables that a cloud gives its machines: the same in boot scripts, SSH sessions and under sudo."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from machine_help import Rehearsal, need

from cloudrun.sim.spec import METADATA_URL, Answer

GIVEN = {"CLOUD_PLACE": f"{METADATA_URL}/place", "CLOUD_COLOUR": "blue"}


@pytest.fixture(params=["namespace", "embedded"])
def rehearsal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path, need(request.param))
    yield made
    made.host.close()


ASK = """\
import os, urllib.request as u
told = u.Request(os.environ["CLOUD_PLACE"], b"body", {"X-Asked": "yes"}, method="POST")
with u.urlopen(told) as answer:
    print(answer.status, answer.headers["Content-Type"], answer.headers["X-More"], answer.read().decode())
"""


def respond(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    said = f"{method} {path} {body.decode()} {headers['x-asked']}"
    return 202, said.encode(), {"Content-Type": "text/odd", "X-More": "1"}


def test_every_process_sees_them(rehearsal: Rehearsal) -> None:
    keys = rehearsal.create({"runcmd": ["echo $CLOUD_COLOUR $CLOUD_PLACE >/root/seen"]})
    spec = replace(keys.spec, id="environ", environ=GIVEN, respond=respond)
    machine = rehearsal.host.create(spec, on_off=lambda _: None)
    machine.boot()
    colour, place = keys.run("echo $CLOUD_COLOUR $CLOUD_PLACE").split()
    assert colour == "blue"
    if rehearsal.kind == "namespace":
        assert place == "http://169.254.169.254/place"
    assert keys.run("sudo sh -c 'echo $CLOUD_COLOUR $CLOUD_PLACE'").split() == [colour, place]
    seen = keys.run("sudo cat /root/seen .system/root/seen 2>/dev/null", check=False)
    assert seen.split() == [colour, place]
    assert keys.run(f"python3 -c {shlex.quote(ASK)}") == "202 text/odd 1 POST /place body yes"
