"""A disk that is full, there or here: said clearly, nothing is decided or lost, and attach goes on."""

from __future__ import annotations

import errno
import os

import pytest
from faults import agent_base, call_cli, may_mount, small_disk

from cloudrun.client import Client
from cloudrun.errors import TransferFailed
from cloudrun.models import RunState

pytestmark = pytest.mark.skipif(not may_mount(), reason="mounts small disks, as root only")

FILLS = """
    import os, sys
    with open(os.environ["CLOUDRUN_OUTPUT_DIR"] + "/big", "wb", buffering=0) as big:
        try:
            for _ in range(64):
                big.write(bytes(100_000))
        except OSError:
            sys.exit(9)
"""
MAKES = """
    import os
    open(os.environ["CLOUDRUN_OUTPUT_DIR"] + "/big", "wb").write(bytes(range(256)) * 12_000)
"""
TALKS = "for n in range(300_000): print('line', n)"


def test_no_room_for_the_code_on_the_machine(client: Client, make_job) -> None:
    client.launch(name="m", stack="none")
    job = make_job("print('there')")
    (job / "weights").write_bytes(os.urandom(3_000_000))
    with small_disk(agent_base(client, "m") / "objects") as make_big:
        with pytest.raises(TransferFailed, match="No space left") as caught:
            client.submit(client.plan(job, on="m"))
        assert (caught.value.exit_code, "free space" in caught.value.hint) == (5, True)
        (run,) = client.unattended()
        assert run.state is RunState.STARTING
        make_big()
        assert client.attach(run.id).state is RunState.SUCCEEDED
    assert client.files(run.id).log(1).read_bytes() == b"there\n"


def test_a_job_that_fills_the_machines_disk_fails_and_all_that_fitted_comes_home(
    client: Client, make_job
) -> None:
    client.launch(name="m", stack="none")
    with small_disk(agent_base(client, "m") / "runs") as make_big:
        run = client.submit(client.plan(make_job(FILLS), on="m"))
        assert (run.state, run.exit_code) == (RunState.FAILED, 9)
        assert run.outputs_bytes > 500_000
        make_big()
        assert client.restart(run.id).state is RunState.SUCCEEDED
    assert (client.files(run.id).outputs / "big").stat().st_size == 6_400_000


def test_no_room_for_the_outputs_at_home(client: Client, make_job) -> None:
    job = make_job(MAKES)
    with small_disk(client.settings.runs_dir) as make_big:
        code, out, err = call_cli(client, "submit", str(job))
        assert (code, "free space on this computer" in err) == (5, True), out + err
        run = client.run("last")
        assert run.state is RunState.RELEASING
        assert [machine.name for machine in client.machines()] == [run.machine]  # the outputs are there yet
        make_big()
        assert client.attach(run.id).state is RunState.SUCCEEDED
        big = client.files(run.id).outputs / "big"
        assert big.read_bytes() == bytes(range(256)) * 12_000
        assert list(big.parent.iterdir()) == [big]
    assert client.machines() == []
    assert client.store.list_charges(open_only=True) == []


def test_no_room_for_the_log_at_home(client: Client, make_job) -> None:
    with small_disk(client.settings.runs_dir) as make_big:
        with pytest.raises(OSError, match="space") as caught:
            client.submit(client.plan(make_job(TALKS)))
        assert caught.value.errno == errno.ENOSPC
        run = client.run("last")
        assert not run.state.final
        make_big()
        assert client.attach(run.id).state is RunState.SUCCEEDED
        whole = b"".join(b"line %d\n" % n for n in range(300_000))
        assert client.files(run.id).log(1).read_bytes() == whole
