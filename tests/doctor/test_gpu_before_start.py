"""A job on a GPU stack that sees no GPU fails at once, instead of training on the CPU for a night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from doctor_help import counting, lose_driver, mended, run
from rented_help import DRILL

from cloudrun import supervise
from cloudrun.client import Client
from cloudrun.errors import MachineError
from cloudrun.gpu_seen import GPU_LOOK, look_command
from cloudrun.models import Machine, MachineState, Plan, RunState, Stack


@pytest.fixture
def driver(client: Client, k80: Machine) -> Iterator[None]:
    """It is there again after the test."""
    yield
    client.examine("k80", mend=True)


def drill(client: Client, stack: str = "cuda8-theano", *, epochs: int = 1) -> Plan:
    return client.plan(DRILL, on="k80", stack=stack, args=("--epochs", str(epochs)))


def test_the_look_rides_on_a_command_that_is_sent_anyway(client: Client, k80: Machine) -> None:
    commands: list[str] = []
    ended = supervise.submit(counting(client.context(), commands), drill(client), detach=False)
    assert ended.state is RunState.SUCCEEDED
    assert commands[0] == GPU_LOOK
    assert commands.count(GPU_LOOK) == 1
    assert commands.count("true") == 1  # the knock before the outputs are pulled


def test_a_job_without_its_gpu_fails_before_anything_is_sent(client: Client, k80: Machine) -> None:
    lose_driver(client)
    commands: list[str] = []
    with pytest.raises(MachineError, match=r"k80 sees no GPU.*the driver is not loaded") as failed:
        supervise.submit(counting(client.context(), commands), drill(client), detach=False)
    assert "cloudrun machines doctor k80 --fix" in failed.value.hint
    assert commands == [GPU_LOOK]
    ended = client.run("last")
    assert (ended.state, "sees no GPU" in ended.message) == (RunState.FAILED, True)
    assert client.machines()[0].state is MachineState.RUNNING
    assert mended(client) == {"driver"}
    assert client.submit(drill(client)).state is RunState.SUCCEEDED


def test_a_job_that_runs_already_goes_on_without_a_word_of_nvidia_smi(
    client: Client, k80: Machine, driver: None
) -> None:
    begun = client.submit(drill(client, epochs=1000), detach=True)
    assert begun.id
    for each in client.logs(begun.id, follow=True):
        if b'"epoch"' in each:
            break
    lose_driver(client)
    found = {finding.check: finding for finding in client.examine("k80", mend=True)}
    assert f"{begun.id} goes on there" in found["driver"].hint  # no step is reapplied under it
    assert "NVIDIA-SMI has failed" in client.shell("k80").run("nvidia-smi", check=False).text
    assert client.cancel(begun.id).state is RunState.CANCELLED


def test_what_is_asked_of_whom(client: Client, k80: Machine) -> None:
    gpu, cpu = Stack(name="cuda8-theano", needs_gpu=True), Stack(name="cuda8-theano")
    assert look_command(k80, gpu) == GPU_LOOK
    assert look_command(k80, cpu) == "true"
    assert look_command(k80, replace(gpu, name="other")) == "true"  # provisioning will ask
    assert look_command(replace(k80, provisioned=False), gpu) == "true"
    assert look_command(replace(k80, versions=()), gpu) == "true"  # it never had one


def test_a_driver_that_hangs_stops_no_job(client: Client, k80: Machine) -> None:
    """The look as it is, with less patience."""
    run(client, "sudo mv /usr/bin/nvidia-smi /usr/bin/nvidia-smi.kept")
    run(client, "printf '#!/bin/sh\\nexec sleep 60\\n' | sudo tee /usr/bin/nvidia-smi")
    run(client, "sudo chmod 755 /usr/bin/nvidia-smi")
    quick = GPU_LOOK.replace("timeout 15", "timeout 0.2")
    assert client.shell("k80").run(quick, check=False).exit_code == 0
    run(client, "sudo mv /usr/bin/nvidia-smi.kept /usr/bin/nvidia-smi")
