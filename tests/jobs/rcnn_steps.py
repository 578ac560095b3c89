"""Three training steps of a small network in double precision, alone or as one of several processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "jobs" / name) for name in ("", "svhn_rcnn")]
import parallel  # noqa: E402
import rcnn  # noqa: E402

BATCH = 12
CPU = torch.device("cpu")


def losses(peers: parallel.Peers, norm: str) -> dict[str, list[float]]:
    """The loss of each step over the whole batch, and after it the loss with running statistics."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = rcnn.RCNN(4, 3, 0.0, norm=norm).double()
    if peers.world > 1:
        model = parallel.normalise_globally(model, CPU)
    net = peers.wrap(model, CPU)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    images = torch.randn(3, BATCH, 3, 32, 32, dtype=torch.float64)
    labels = torch.randint(0, 10, (3, BATCH))
    found = []
    for step in range(3):
        mine = peers.share(torch.arange(BATCH))
        loss = rcnn.loss(net(images[step][mine]), labels[step][mine])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(peers.total(loss.detach() * len(mine)) / BATCH))
    model.eval()
    with torch.no_grad():
        evaluated = float(rcnn.loss(model(images[0]), labels[0]))
    return {"training": found, "evaluated": [evaluated]}


if __name__ == "__main__":
    us = parallel.join(CPU)
    print(json.dumps(losses(us, sys.argv[1])), flush=True)
    us.end(0)
