"""How often Azure is asked for one launch and for its end, and how long that takes, on the rehearsal cloud.

Calls are all that reach Azure Resource Manager, by what they do; looks at things that take a moment are
counted apart ("polls"). The wall time is that of the provider's launch, with every call taking CALL_S, in
units of CALL_S: up to the machine's own PUT, and to the end. The subscription is prepared: the login, the
list of sizes and the role are there, as after any launch of the same day. No machines boot.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from measure import Goal, Report, arguments, show

from cloudrun.config import Settings
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market, Offer
from cloudrun.providers.azure import AzureProvider
from cloudrun.providers.firewall import my_address
from cloudrun.sim.azure import AzureDouble, Delays
from cloudrun.stacks import load_stack

CALL_S = 0.2
MOST_CALLS, MOST_CALL_TIMES = 12, 6.0
REGION, TYPE = "eastus", "Standard_NC4as_T4_v3"
VM = "Microsoft.Compute/virtualMachines/write"
POLLED = (
    "Microsoft.Network/virtualNetworks/read",
    "Microsoft.Network/networkSecurityGroups/read",
    "Microsoft.Network/publicIPAddresses/read",
    "Microsoft.Network/networkInterfaces/read",
)
OFFER = Offer("azure", REGION, TYPE, Market.SPOT, Decimal("0.1052"), gpu="T4", gpu_count=1)


def main() -> None:
    options = arguments(__doc__ or "", rounds=5).parse_args()
    calls, walls = Report("calls of Azure's API", "calls"), Report("launch", f"calls of {CALL_S:g} s")
    delays = Delays(call_s=CALL_S)
    with (
        tempfile.TemporaryDirectory() as folder,
        AzureDouble(folder=Path(folder), delay_s=delays) as double,
    ):
        provider = account(double, Path(folder))
        provider.terminate(launch(provider, "first"))
        for number in range(options.rounds):
            measure(calls, walls, double, provider, f"m{number}")
    calls.goals = [Goal("launch", "", MOST_CALLS), Goal("terminate", "", 1)]
    walls.goals = [Goal("until the machine is asked for", "", MOST_CALL_TIMES)]
    show([calls, walls], as_json=options.json)


def account(double: AzureDouble, folder: Path) -> AzureProvider:
    os.environ.update(double.environment())
    settings = Settings(
        home=folder / "home",
        poll_s=CALL_S,
        address_url=f"{double.url}/_sim/address",
        azure_endpoint=double.url,
        azure_prices_url=os.environ["CLOUDRUN_AZURE_PRICES_URL"],
        sim=folder / "sim",
    )
    my_address(settings)  # raises where the service does not answer
    return AzureProvider(settings)


def measure(calls: Report, walls: Report, double: AzureDouble, provider: AzureProvider, name: str) -> None:
    double.forget_calls()
    began_at, started = datetime.now(UTC), time.monotonic()
    machine = launch(provider, name)
    walls.add("to its end", [(time.monotonic() - started) / CALL_S])
    answered_at = next(call.at for call in double.calls() if call.operation == VM)
    walls.add("until the machine is asked for", [(answered_at - began_at).total_seconds() / CALL_S - 1])
    counted = Counter(call.operation for call in double.calls())
    polls = sum(counted.pop(operation, 0) for operation in POLLED)
    calls.add("launch", [sum(counted.values())])
    calls.add("polls of a launch", [polls])
    while provider.describe(machine).state is not MachineState.RUNNING:
        time.sleep(CALL_S)
    double.forget_calls()
    provider.terminate(machine)
    calls.add("terminate", [len(double.calls())])


def launch(provider: AzureProvider, name: str) -> Machine:
    now = datetime.now(UTC)
    guard = Guard(issued_at=now, deadline_at=now + timedelta(hours=3))
    return provider.launch(LaunchSpec(f"token-{name}", name, OFFER, load_stack("none"), guard))


if __name__ == "__main__":
    main()
