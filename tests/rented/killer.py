"""Begins many launches and kills each (SIGKILL) at a random moment: `killer.py HOME COUNT SEED JOB`.

Half of them die at a chosen request to the cloud, before it is sent or with its answer unread; the
others at a random time. Every child is a process of its own, forked with everything imported.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import botocore.httpsession
import botocore.loaders

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import LaunchOptions, Market, OnPreempt
from cloudrun.stacks import load_stack

AT_ONCE = 4
LONGEST_S = 2.0
MOST_REQUESTS = 6
PLACE = {"type": "p2.xlarge", "market": Market.SPOT, "regions": ("us-east-2",), "stack": "none"}


@dataclass(frozen=True)
class Doom:
    request: int = 0  # the number of the request that it dies at
    sent: bool = False  # before that one is sent, or with its answer unread
    after_s: float = 0.0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(doomed: Doom) -> None:
    """Let the process end at a request, or some time after its first one."""
    honest = botocore.httpsession.URLLib3Session.send
    count = itertools.count(1)

    def send(self: botocore.httpsession.URLLib3Session, request: object) -> object:
        number = next(count)
        if number == 1 and doomed.after_s:
            signal.setitimer(signal.ITIMER_REAL, doomed.after_s)  # SIGALRM is not caught: as sudden as -9
        if number == doomed.request and not doomed.sent:
            die()
        answer = honest(self, request)
        if number == doomed.request:
            die()
        return answer

    botocore.httpsession.URLLib3Session.send = send


def act(client: Client, kind: int, job: str) -> None:
    if kind == 0:
        client.submit(client.plan(job, **PLACE))
    elif kind == 1:
        client.launch_many(2, **PLACE)
    elif kind == 2:
        client.launch(**PLACE, options=LaunchOptions(on_preempt=OnPreempt.TERMINATE))
    else:
        client.launch(**PLACE)


def one(seed: int, job: str) -> None:
    """A client that does one thing and does not live to its end."""
    chance = random.Random(seed)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    client = Client(load_settings())
    if chance.random() < 0.5:
        die_in(Doom(request=chance.randint(1, MOST_REQUESTS), sent=chance.random() < 0.5))
    else:
        die_in(Doom(after_s=chance.uniform(0.01, LONGEST_S)))
    act(client, chance.randrange(5), job)


def main(count: int, seed: int, job: str) -> None:
    botocore.loaders.create_loader = cache(botocore.loaders.create_loader)  # 13 MB of JSON, read once for all
    first = Client(load_settings())
    first.plan(job, **PLACE)  # offers are asked for once, and kept
    first.provider("aws").find_image(load_stack("none"), "us-east-2")
    running: set[int] = set()
    for number in range(count):
        while len(running) >= AT_ONCE:
            running.discard(os.wait()[0])
        pid = os.fork()
        if pid == 0:
            try:
                one(seed + number, job)
            finally:
                os._exit(0)
        running.add(pid)
    for _ in running:
        os.wait()


if __name__ == "__main__":
    started = time.monotonic()
    main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    Path(sys.argv[1], "took").write_text(f"{time.monotonic() - started:.1f}")
