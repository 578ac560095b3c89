"""How much of making a machine ready an image of one's own saves, on the rehearsal cloud.

A machine with the published image and one with a baked image, in turn: stage 7 of each, from the first
connection to the stack lock. The rehearsal's packages are stubs that come over loopback, so the published
image looks better here than it is: what is saved of real downloads and installations is more. Needs root
and the extra `sim`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from measure import Goal, Report, arguments, in_turn, show

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.events import Event, StageEnded
from cloudrun.models import LaunchOptions, Market, Stage
from cloudrun.sim import daemon

TYPE, REGION, STACK = "p2.xlarge", "us-west-2", "cuda8-theano"
PUBLISHED, BAKED = "published image", "baked image"
GOAL = 0.5


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--stack", default=STACK, help=f"what is put on the machines ({STACK})")
    options = parser.parse_args()
    report = Report(f"provisioning {options.stack}", "s")
    with tempfile.TemporaryDirectory() as folder:
        record = daemon.up(Path(folder, "sim"))
        try:
            os.environ.update(record.environment())
            client = Client(load_settings())
            plan = client.plan_bake(options.stack, type=TYPE, market=Market.SPOT, regions=(REGION,))
            image = client.bake(plan)
            cases = {
                PUBLISHED: lambda: provision_seconds(client, options.stack, base_image=True),
                BAKED: lambda: provision_seconds(client, options.stack, base_image=False),
            }
            for case, seconds in in_turn(cases, options.rounds).items():
                report.add(case, seconds)
            client.delete_image(image)
        finally:
            daemon.down(Path(folder, "sim"))
    report.goals = [Goal(BAKED, PUBLISHED, GOAL)]
    saved = 1 - report.value(BAKED, "median") / report.value(PUBLISHED, "median")
    report.notes = [f"saved: {saved:.0%} of provisioning"]
    show([report], as_json=options.json)


def provision_seconds(client: Client, stack: str, *, base_image: bool) -> float:
    """Stage 7 of one launch."""
    took: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, StageEnded) and event.stage is Stage.PROVISION:
            took.append(event.seconds)

    machine = client.launch(
        type=TYPE,
        market=Market.SPOT,
        stack=stack,
        regions=(REGION,),
        options=LaunchOptions(base_image=base_image),
        on_event=note,
    )
    client.terminate(machine.name)
    return took[0]


if __name__ == "__main__":
    main()
