"""The rehearsal cloud as tests steer it, and jobs that are slow enough to be interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudrun.assets import jobs_dir
from cloudrun.client import Client
from cloudrun.models import LaunchOptions, Market, OnPreempt, Run
from cloudrun.sim.record import AWS, AZURE, CLOUDS, ENDED, SimRecord

REGIONS = ("us-east-1", "us-east-2", "us-west-2")  # of AWS, where the tests' machines are
TYPE = "p2.xlarge"
AZURE_TYPE = "Standard_NC4as_T4_v3"
DRILL = jobs_dir() / "drill"
ONE_TIME = LaunchOptions(on_preempt=OnPreempt.TERMINATE)


class RentedCloud:
    """What a test may do to the cloud, and see of it."""

    def __init__(self, record: SimRecord) -> None:
        self.record = record
        self._full: list[tuple[str, str]] = []

    def live(self) -> list[str]:
        """What is not ending: it is billed, or its disk is."""
        ending = ("shutting-down", *ENDED)
        return [each["id"] for each in self.record.instances() if each["state"] not in ending]

    def state(self, instance: str) -> str:
        """Its cloud's word for it; "" for one that its cloud knows no more."""
        states = {each["id"]: str(each["state"]) for each in self.record.instances()}
        return states.get(instance, "")

    def preempt(self, instance: str, notice_s: float, action: str | None = None) -> None:
        cloud = AZURE if instance.startswith("/subscriptions/") else AWS
        self.record.tell("preempt", cloud, instance_id=instance, notice_s=notice_s, action=action)

    def fill(self, zone: str, market: str = "spot") -> None:
        """No machine is free there, until `calm`."""
        self.record.tell("set-capacity", type=TYPE, zone=zone, market=market, count=0)
        self._full.append((zone, market))

    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.record.ask("calls")
        return found

    def calm(self) -> None:
        """As it was: no faults, capacity everywhere."""
        for cloud in CLOUDS:
            self.record.tell("clear-faults", cloud)
            self.record.tell("forget-calls", cloud)
        for zone, market in self._full:
            self.record.tell("set-capacity", type=TYPE, zone=zone, market=market, count=None)
        self._full.clear()


def submit_drill(client: Client, *, epochs: int = 40, type: str = TYPE, **asked: Any) -> Run:
    plan = client.plan(DRILL, type=type, market=Market.SPOT, args=("--epochs", str(epochs)), **asked)
    return client.submit(plan, detach=True)


def last_epoch(client: Client, run: str) -> int:
    """The last epoch that the log at home tells of; 0 for none."""
    text = b"".join(client.logs(run)).decode()
    epochs = [json.loads(line)["epoch"] for line in text.splitlines() if line.startswith('{"epoch"')]
    return epochs[-1] if epochs else 0


def epochs_of(path: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()]


def wait_for(condition: Callable[[], object], *, within_s: float = 90) -> None:
    """Until the condition holds; other processes are awaited here, which set no event of ours."""
    give_up_at = time.monotonic() + within_s
    pause_s = 0.03
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come about"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.2, 0.3)  # a look costs some milliseconds of the processor
