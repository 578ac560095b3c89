"""How long the rehearsal's Azure takes in tests: next to nothing."""

from __future__ import annotations

from cloudrun.sim.azure import Delays

QUICK = Delays(
    poll_s=0.01,
    network_s=0.02,
    disk_s=0.02,
    group_s=0.02,
    creating_s=0.05,
    starting_s=0.05,
    deallocating_s=0.05,
    deleting_s=0.05,
    grace_s=0.0,
)
