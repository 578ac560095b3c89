"""kill -9 of a bake at each of its boundaries: nothing stays rented, and no image is left unwanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from exhaustive import exhaustive
from rented_help import TYPE, RentedCloud, wait_for

from cloudrun import images_bake
from cloudrun.client import Client
from cloudrun.images import SNAPSHOT, ImageState
from cloudrun.models import Market

KILLER = Path(__file__).with_name("bake_killer.py")
KILLED = -9
LIMIT_S = 35.0  # a loaded computer takes twenty until the disk is clean


def kill_at(point: str, stack: str, *, limit_s: float = 0) -> None:
    hours = [str(limit_s / 3600)] if limit_s else []
    command = [sys.executable, str(KILLER), stack, TYPE, point, *hours]
    assert subprocess.run(command, check=False, timeout=100).returncode == KILLED


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    ["cleaned", "waiting", *exhaustive("launched", "30-theanorc applied", "charged", "asked", "made")],
)
def test_the_next_bake_lets_go_what_a_killed_one_left(
    client: Client, cloud: RentedCloud, stack: str, point: str
) -> None:
    kill_at(point, stack)
    [left] = client.store.list_machines()
    assert left.name.startswith("bake-")
    assert left.deadline_at is not None
    assert left.idle_minutes is not None
    wait_for(lambda: all(each.image.state is not ImageState.PENDING for each in client.own_images()))
    wanted = [each for each in client.own_images() if each.image.state is ImageState.AVAILABLE]
    assert bool(wanted) == (point in ("asked", "waiting", "made"))

    images_bake.let_go_cut_ones(client.context())
    wait_for(lambda: cloud.live() == [])
    assert [line.what for line in client.store.list_charges(open_only=True)] == [SNAPSHOT] * len(wanted)
    assert [item for item in client.audit(provider="aws") if item.problem] == []
    if wanted:  # it was asked for when its disk was clean: it is as good as any
        client.launch(type=TYPE, market=Market.SPOT, stack=stack, name="next")
        assert client.own_images()[0].machines == ("next",)


@pytest.mark.slow
def test_nobody_gets_in_any_more_and_the_guard_ends_it(
    client: Client, cloud: RentedCloud, stack: str
) -> None:
    kill_at("cleaned", stack, limit_s=LIMIT_S)
    assert len(cloud.live()) == 1
    wait_for(lambda: cloud.live() == [], within_s=LIMIT_S + 60)
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []
