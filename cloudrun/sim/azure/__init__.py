"""Azure for rehearsals: Azure Resource Manager over https, as Microsoft's own recordings answer.

double.py       the double: started, steered, asked    control.py  the same over HTTPS at /_sim/
app.py          every call: recorded, judged, answered
wire.py         what travels                 tls.py, tokens.py  certificates and logins
routes.py       addresses of calls           store.py  what there is
kinds.py        what all resources do alike: the seam for a new kind
validate.py     request bodies against Microsoft's schemas (schemas/)
operations.py   long-running operations
groups.py       resource groups, lists, tags
network.py      networks, security groups    addresses.py  public addresses, interfaces
authorization.py   rights, roles, who has them
faults.py       refusals at once or late, throttling, lost answers
compute.py      machines and disks, and all that is about them
"""

from cloudrun.sim.azure.calls import Call
from cloudrun.sim.azure.double import AzureDouble
from cloudrun.sim.azure.store import Delays

__all__ = ["AzureDouble", "Call", "Delays"]
