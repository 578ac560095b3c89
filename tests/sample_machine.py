"""A machine for tests to which it matters little which: others differ from it by what matters to them."""

from __future__ import annotations

from cloudrun.models import Machine, MachineState, Market

A_MACHINE = Machine(
    id="i-1",
    name="k80",
    provider="aws",
    region="us-east-1",
    zone="us-east-1a",
    type="p2.xlarge",
    market=Market.SPOT,
    state=MachineState.RUNNING,
)
