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
from cloudrun.sim.record import SimRecord

TYPE = "p2.xlarge"
DRILL = jobs_dir() / "drill"
ONE_TIME = LaunchOptions(on_preempt=OnPreempt.TERMINATE)


class RentedCloud:
    """What a test may do to the cloud, and see of it."""

    def __init__(self, record: SimRecord) -> None:
        self.record = record
        self._full: list[tuple[str, str]] = []

    def live(self) -> list[str]:
        """What is not ending: it is billed, or its disk is."""
        ending = ("shutting-down", "terminated")
        return [each["id"] for each in self.record.ask("instances") if each["state"] not in ending]

    def state(self, instance: str) -> str:
        return {each["id"]: str(each["state"]) for each in self.record.ask("instances")}[instance]

    def preempt(self, instance: str, notice_s: float, action: str | None = None) -> None:
        self.record.tell("preempt", instance_id=instance, notice_s=notice_s, action=action)

    def fill(self, zone: str, market: str = "spot") -> None:
        """No machine is free there, until `calm`."""
        self.record.tell("set-capacity", type=TYPE, zone=zone, market=market, count=0)
        self._full.append((zone, market))

    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.record.ask("calls")
        return found

    def calm(self) -> None:
        """As it was: no faults, capacity everywhere."""
        self.record.tell("clear-faults")
        self.record.tell("forget-calls")
        for zone, market in self._full:
            self.record.tell("set-capacity", type=TYPE, zone=zone, market=market, count=None)
        self._full.clear()


def submit_drill(client: Client, *, epochs: int = 40, **asked: Any) -> Run:
    plan = client.plan(DRILL, type=TYPE, market=Market.SPOT, args=("--epochs", str(epochs)), **asked)
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
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come about"
        time.sleep(0.05)
