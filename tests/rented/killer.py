"""Begins many launches and kills each (SIGKILL) at a random moment: `killer.py HOME COUNT SEED JOB CLOUD`.

One in five dies with the answer unread that gives it its machine, however loaded this computer is. Half of
the others die at a chosen request to the cloud, before it is sent or with its answer unread; the rest at a
random time. Every child is a process of its own, forked with everything imported.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.httpsession
import quick_boto  # noqa: F401  # forked clients inherit what was read
import requests.adapters

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import LaunchOptions, Market, OnPreempt
from cloudrun.stacks import load_stack

AT_ONCE = 4
LONGEST_S = 2.0


@dataclass(frozen=True)
class Target:
    """A cloud to launch at: which machine, and what of its SDK sends a request."""

    type: str
    region: str
    most_requests: int  # of one launch, about
    sender: Any  # the class whose method `send` does it
    rents: Callable[[Any], bool]  # whether a request asks for a machine

    @property
    def place(self) -> dict[str, Any]:
        return {"type": self.type, "market": Market.SPOT, "regions": (self.region,), "stack": "none"}


CLOUDS: Mapping[str, Target] = {
    "aws": Target(
        "p2.xlarge",
        "us-east-2",
        6,
        botocore.httpsession.URLLib3Session,
        lambda request: "RunInstances" in str(request.body),
    ),
    "azure": Target(
        "Standard_NC4as_T4_v3",
        "eastus",
        18,
        requests.adapters.HTTPAdapter,
        lambda request: request.method == "PUT" and "/virtualmachines/" in request.url.lower(),
    ),
}


@dataclass(frozen=True)
class Doom:
    request: int = 0  # the number of the request that it dies at
    sent: bool = False  # before that one is sent, or with its answer unread
    after_s: float = 0.0
    rented: bool = False  # with the answer unread that gives it its machine


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(doomed: Doom, target: Target) -> None:
    """Let the process end at a request, or some time after its first one."""
    honest = target.sender.send
    count = itertools.count(1)

    def send(self: object, *request: Any, **more: object) -> object:
        number = next(count)
        if number == 1 and doomed.after_s:
            signal.setitimer(signal.ITIMER_REAL, doomed.after_s)  # SIGALRM is not caught: as sudden as -9
        if number == doomed.request and not doomed.sent:
            die()
        answer = honest(self, *request, **more)
        if number == doomed.request or (doomed.rented and target.rents(request[0])):
            die()
        return answer

    target.sender.send = send


def act(client: Client, kind: int, job: str, target: Target) -> None:
    if kind == 0:
        client.submit(client.plan(job, **target.place))
    elif kind == 1:
        client.launch_many(2, **target.place)
    elif kind == 2:
        client.launch(**target.place, options=LaunchOptions(on_preempt=OnPreempt.TERMINATE))
    else:
        client.launch(**target.place)


def one(seed: int, job: str, target: Target) -> None:
    """A client that does one thing and does not live to its end."""
    chance = random.Random(seed)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    client = Client(load_settings())
    if seed % 5 == 0:
        doomed = Doom(rented=True)
    elif chance.random() < 0.5:
        doomed = Doom(request=chance.randint(1, target.most_requests), sent=chance.random() < 0.5)
    else:
        doomed = Doom(after_s=chance.uniform(0.01, LONGEST_S))
    die_in(doomed, target)
    act(client, chance.randrange(5), job, target)


def main(count: int, seed: int, job: str, cloud: str) -> None:
    target = CLOUDS[cloud]
    first = Client(load_settings())
    first.plan(job, **target.place)  # offers are asked for once, and kept
    first.provider(cloud).find_image(load_stack("none"), target.region)
    first.provider(cloud).list_machines()  # the SDK's imports, once for all
    running: set[int] = set()
    for number in range(count):
        while len(running) >= AT_ONCE:
            running.discard(os.wait()[0])
        pid = os.fork()
        if pid == 0:
            try:
                one(seed + number, job, target)
            finally:
                os._exit(0)
        running.add(pid)
    for _ in running:
        os.wait()


if __name__ == "__main__":
    started = time.monotonic()
    main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
    Path(sys.argv[1], "took").write_text(f"{time.monotonic() - started:.1f}")
