"""From the moment EC2 accepts a launch to the moment the job runs, on the rehearsal cloud: our share.

The machine's own share is what the rehearsal takes to say `running` and to boot, measured beside it in the
same run. The rest is asking for the state, connecting, replacing the host key, provisioning, pushing the
code and starting the job. Needs the extra `sim`; as root the machines are namespaces with OpenSSH's sshd.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import datetime
from pathlib import Path

from measure import Goal, Report, arguments, show

from cloudrun.assets import jobs_dir
from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Market, RunState
from cloudrun.sim import daemon
from cloudrun.sim.aws import Delays
from cloudrun.sim.machine import MachineHost, MachineSpec

TYPE, REGION = "p2.xlarge", "us-east-2"
OURS = "accepted to running, without the machine's share"
LIMIT_S = 3.0


def main() -> None:
    options = arguments(__doc__ or "", rounds=5).parse_args()
    report = Report("from launch accepted to job running", "s")
    with tempfile.TemporaryDirectory() as folder:
        boot_s = boot_seconds(Path(folder, "alone"))
        record = daemon.up(Path(folder, "sim"))
        try:
            os.environ.update(record.environment())
            client = Client(load_settings())
            asked = {"type": TYPE, "market": Market.SPOT, "regions": (REGION,)}
            plan = client.plan(jobs_dir() / "drill", args=("--epochs", "1"), **asked)
            for _ in range(options.rounds):
                record.tell("forget-calls")
                run = client.submit(plan)
                assert run.state is RunState.SUCCEEDED, run.message
                assert run.started_at is not None
                accepted = next(call for call in record.ask("calls") if call["action"] == "RunInstances")
                total_s = (run.started_at - datetime.fromisoformat(accepted["at"])).total_seconds()
                report.add("accepted to running", [total_s])
                report.add(OURS, [total_s - Delays().pending_s - boot_s])
        finally:
            daemon.down(Path(folder, "sim"))
    report.add("the machine: pending and boot", [Delays().pending_s + boot_s])
    report.goals = [Goal(OURS, "", LIMIT_S)]
    show([report], as_json=options.json)


def boot_seconds(folder: Path) -> float:
    """A machine's boot until its SSH server answers, the least of three."""
    host = MachineHost(folder, ssh_port=daemon.free_ssh_port())
    took = []
    try:
        for number in range(3):
            spec = MachineSpec(
                id=f"i-{number}",
                host=f"127.77.0.{number + 1}",
                hostname="boot",
                user="ubuntu",
                user_data=b"#cloud-config\n{}\n",
                disk_gb=8,
                respond=lambda *_: (404, b""),
            )
            machine = host.create(spec, on_off=lambda _id: None)
            began_at = time.monotonic()
            machine.boot()
            took.append(time.monotonic() - began_at)
            machine.destroy()
    finally:
        host.close()
    return min(took)


if __name__ == "__main__":
    main()
