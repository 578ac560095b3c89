"""AWS for rehearsals: moto's server, with what it lacks put in front of it. One double in a process.

    app.py          every call: recorded, judged, answered here or by moto
    double.py       the double: started, steered, asked; by other processes at /_sim/ (control.py above)
    backend.py      moto, and the only place that touches its objects (seeds.py fills its tables)
    wanted.py       what a RunInstances asks for    launching.py  what becomes of it
    instances.py    the other calls about instances
    life.py         states, and the machines behind them     clock.py  what happens a moment later
    spot.py         requests, interruptions, price history   prices.py, pricing.py, quotas.py  what it costs
    volumes.py      growing volumes   rights.py  IAM       metadata_paths.py  what a machine reads of itself
    faults.py       refusals, throttling, lost answers

Where it differs from EC2, on purpose or because nobody needed it yet:

Machines and states
- Things take about a second, not minutes (Delays). Status checks pass as soon as an instance runs.
- Terminated instances stay listed; EC2 forgets them after about an hour.
- An elastic address that is associated with a running machine is its address from the next boot on.
- Hibernating is stopping. Security groups are kept, but no packet is filtered by them.
- Consoles have moto's fixed text. modify_instance_metadata_options forgets what is not sent.
- No launch templates, fleets, RequestSpotInstances, capacity blocks, placement groups: refused as such.
- AllRegions names no more than the enabled regions do; calls to others are answered, too.
Launching
- Without a zone, the first one in order that has room is taken. MinCount counts for capacity alone.
- The types of the catalogue's retired p2 family are offered; other retired ones are Unsupported.
- Images are the catalogue's; those of others are not there, and their sizes are ours (seeds.py).
- DescribeInstanceTypes ignores MaxResults and is slow without names (moto).
Spot
- Prices are the catalogue's and move by a seeded rule (prices.py); there are Linux prices alone, and none
  for types that the catalogue does not know. Only a price that was set takes a machine, not a moving one.
- The rebalance recommendation comes with the notice. ValidUntil and durations are ignored.
- Requests that cannot be fulfilled are refused by RunInstances; none waits unfulfilled from the start.
- Nobody needs the right to make the service-linked role.
Quotas and prices
- 256 vCPUs of every family, but none of p5 and dl on a first day; requests for more stay pending.
- The price list has Linux on shared machines, on demand, and filters of the kind TERM_MATCH.
Volumes
- A change waits six hours for the next (the rule until 2025; now four changes a day).
Rights
- Off until switched on; then the actions of policies count, not their resources and conditions.
What moto does not do is answered with InvalidAction, an unknown filter with InvalidParameterValue.
"""

from cloudrun.sim.aws.app import Call
from cloudrun.sim.aws.double import AwsDouble
from cloudrun.sim.aws.world import Delays

__all__ = ["AwsDouble", "Call", "Delays"]
