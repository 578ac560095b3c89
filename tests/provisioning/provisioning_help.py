"""A stack of 2017 in small, what its repositories hold, and provisioning it on a rehearsal's machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from machine_help import Client
from samples import A_MACHINE

from cloudrun.config import AS_FOUND
from cloudrun.events import Event, Note
from cloudrun.models import Stack
from cloudrun.provision import log_path, provision
from cloudrun.sim.packages import PackageServer

GPU = "Tesla K80, 11441"
PINS = (("cuda-8-0", "8.0.61-1"), ("libcudnn5", "5.1.10-1+cuda8.0"), ("nvidia-384", "384.183-0ubuntu1"))
NEWER = (("cuda-8-0", "9.0.176-1"), ("libcudnn5", "6.0.21-1+cuda8.0"), ("nvidia-384", "390.30-0ubuntu1"))
APT = (*PINS, *NEWER)
PIP = (("theano", "0.9.0"), ("theano", "1.0.0"))
WHEEL = "https://wheels.example.test/whl/cu80/lasagne-0.1-py3-none-any.whl"  # on no index
STACK = Stack(
    name="small",
    os="ubuntu-16.04",
    frameworks=(("theano", "0.9.0"),),
    packages=PINS,
    repositories=("nvidia-cuda", "nvidia-ml"),
    theanorc=(("global.device", "gpu"), ("lib.cnmem", "0.8")),
    env=(("OMP_NUM_THREADS", "2"),),
    tuning=(("persistence", "on"), ("auto-boost", "off"), ("clocks", "2505,875")),
    steps=(
        "05-hold-system",
        "12-nvidia-repository",
        "14-packages",
        "16-python",
        "20-frameworks",
        "30-theanorc",
        "32-environment",
        "40-gpu-tuning",
        "90-gpu-seen",
    ),
)
MACHINE = replace(A_MACHINE, token="t", stack="small")


def make_ready(
    client: Client, packages: PackageServer, stack: Stack = STACK, *, frameworks: str = AS_FOUND
) -> tuple[Mapping[str, str], list[str]]:
    """What provisioning read back, and what it told its user meanwhile."""
    where = packages.environment()
    settings = replace(
        client.settings,
        frameworks=frameworks,
        poll_s=0.2,
        nvidia_repository_url=where["CLOUDRUN_NVIDIA_REPOSITORY_URL"],
        pip_index_url=where["CLOUDRUN_PIP_INDEX_URL"],
        wheels_url=where["CLOUDRUN_WHEELS_URL"],
    )
    told: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.message)

    return provision(client.shell(), MACHINE, stack, settings, on_event=note), told


def log_of(client: Client) -> str:
    return Path(log_path(client.settings, MACHINE.name)).read_text()
