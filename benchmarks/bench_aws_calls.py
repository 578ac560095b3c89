"""How often AWS is asked for one launch and for fifty, and for their end, on the rehearsal cloud.

What counts is the number of API calls, all of them: planning, launch, waiting until the machines answer,
guard and tags. The account is prepared: an earlier launch of the same day has made the security group and
looked up prices, quotas and image. Machines boot for real; EC2's times are played SCALE times as fast, and
the pause between two questions is shortened alike.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from measure import Goal, Report, arguments, show

from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.models import LaunchOptions, Machine, Market, OnPreempt
from cloudrun.sim.aws import AwsDouble, Delays
from cloudrun.sim.machine import MachineHost

# Calls that SkyPilot's AWS provisioner makes for the same, at least; not measured here.
SKYPILOT_ONE, SKYPILOT_FIFTY = 16, 65
MANY = 50
SCALE = 10.0
PENDING_S = 15.0  # until EC2 says `running`; seconds to half a minute are usual
POLL_S = 15.0  # CLOUDRUN_POLL_S by default
SSH_PORT = 2022
TYPE, REGION = "g4dn.xlarge", "us-east-1"
G_QUOTAS = ("L-DB2E81BA", "L-3819A6DF")  # on demand, spot
ONE_TIME = LaunchOptions(on_preempt=OnPreempt.TERMINATE)


def main() -> None:
    parser = arguments(__doc__ or "", rounds=1)
    parser.add_argument("--machines", type=int, default=MANY, help=f"how many at once ({MANY})")
    options = parser.parse_args()
    report = Report("calls of AWS's API", "calls")
    with tempfile.TemporaryDirectory() as folder:
        host = MachineHost(Path(folder, "machines"), ssh_port=SSH_PORT)
        try:
            with AwsDouble(host, delay_s=Delays(pending_s=PENDING_S / SCALE)) as double:
                client = Client(account(double, Path(folder)))
                for _ in range(options.rounds):
                    measure(report, double, client, options.machines)
        finally:
            host.close()
    one, many = "launch 1", f"launch {options.machines} at once"
    report.add("SkyPilot's provisioner, 1", [SKYPILOT_ONE])
    report.add("SkyPilot's provisioner, 50", [SKYPILOT_FIFTY])
    report.goals = [
        Goal(one, "", 5),
        Goal(many, "", 6),
        Goal(f"terminate {options.machines}", "", 2),
        Goal(one, "SkyPilot's provisioner, 1", 5 / 16),
        Goal(many, "SkyPilot's provisioner, 50", 6 / 65),
    ]
    show([report], as_json=options.json)


def account(double: AwsDouble, folder: Path) -> Settings:
    """Dummy keys, room in the quotas, and settings as a user of that account has them."""
    os.environ.update(
        AWS_ENDPOINT_URL=double.url,
        AWS_ACCESS_KEY_ID="AKIAREHEARSAL",
        AWS_SECRET_ACCESS_KEY="rehearsal",
        AWS_DEFAULT_REGION=REGION,
        AWS_EC2_METADATA_DISABLED="true",
    )
    for code in G_QUOTAS:
        double.set_quota(REGION, code, 1000)
    return Settings(
        home=folder / "home",
        ssh_port=SSH_PORT,
        poll_s=POLL_S / SCALE,
        address_url=f"{double.url}/_sim/address",
        sim=folder,
    )


def measure(report: Report, double: AwsDouble, client: Client, count: int) -> None:
    keeper = launch(client, 1)  # prepares the account, and keeps it so: its group goes with the last machine
    counted(double)
    for market, words in ((Market.ON_DEMAND, ""), (Market.SPOT, ", spot")):
        one = launch(client, 1, market)
        note(report, f"launch 1{words}", counted(double))
        end(client, one)
        note(report, f"terminate 1{words}", counted(double))
        many = launch(client, count, market)
        note(report, f"launch {count} at once{words}", counted(double))
        client.machines()
        note(report, f"list {count}{words}", counted(double))
        end(client, many)
        note(report, f"terminate {count}{words}", counted(double))
    end(client, keeper)


def launch(client: Client, count: int, market: Market = Market.ON_DEMAND) -> list[Machine]:
    return client.launch_many(
        count, type=TYPE, market=market, stack="none", regions=(REGION,), options=ONE_TIME
    )


def end(client: Client, machines: list[Machine]) -> None:
    client.terminate(*(machine.name for machine in machines))


def counted(double: AwsDouble) -> Counter[str]:
    """Calls since this was asked last."""
    found = Counter(call.action for call in double.calls())
    double.forget_calls()
    return found


def note(report: Report, case: str, calls: Counter[str]) -> None:
    report.add(case, [sum(calls.values())])
    report.notes.append(f"{case}: " + ", ".join(f"{action} {times}" for action, times in calls.items()))


if __name__ == "__main__":
    main()
