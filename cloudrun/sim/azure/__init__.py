"""Azure for rehearsals: Azure Resource Manager over https, as Microsoft's own recordings answer.

    double.py       the double: started, steered, asked; by other processes at /_sim/ (control.py above)
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

Where it differs from Azure, on purpose or because nobody needed it yet (what is about machines and disks:
compute.py and its parts):

Calls
- One tenant, one application, one subscription, in which every provider is registered. Any api-version is
  answered alike, in the way of today's.
- Bodies are held to Microsoft's schemas, more strictly than Azure does: nothing unknown is taken.
- Things take a fraction of a second (Delays), and x-ms-retry-after-ms says so; Azure sends Retry-After.
- A name, a tag or a filter is not checked for every rule that Azure has. Lists are paged by 1,000.
- Locks, policies, deployments, moves, and resources of other kinds are not there: InvalidResourceType.
Networks
- Public addresses are 127.x.y.z, of both SKUs. No packet is filtered by a security group.
- DNS names are kept and given once a region; nobody resolves them.
- Peerings, delegations, load balancers, routes and IPv6 are taken where the schema has them, and do nothing.
Groups
- A group is gone after its members, all in one step at the end; Azure takes them one by one.
Rights
- The caller has every right until allow() says otherwise; assignments count for machines' identities alone.
- There are no built-in roles. A right that was given counts at once; Azure takes up to some minutes.
"""

from cloudrun.sim.azure.calls import Call
from cloudrun.sim.azure.double import AzureDouble
from cloudrun.sim.azure.store import Delays

__all__ = ["AzureDouble", "Call", "Delays"]
