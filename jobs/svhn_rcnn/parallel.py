"""Several processes train one network, each on its share of every batch: one a GPU, or some on a CPU.

`train.py --processes 4` starts them on this machine; under torchrun, which sets RANK, it is one of them.
Gradients are averaged (DistributedDataParallel), shares are equal, and batch normalisation sees the whole
batch: the losses are those of one process with the same batch, but for the order of sums.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from shared.stop import EXIT_RESUME_ME
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

RENDEZVOUS = "RCNN_RENDEZVOUS"  # where the processes of `launch` meet; torchrun has its own way
PATIENCE = timedelta(hours=6)  # one of them may be fetching 1.5 GB over a slow line while the others wait
GRACE_S = 20.0  # for the others, once one has failed
T = TypeVar("T")


class Peers:
    """This process among `world` of them; alone, every method does nothing and returns what it was given."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @property
    def leader(self) -> bool:
        """The one that writes and speaks."""
        return self.rank == 0

    def share(self, picks: Tensor) -> Tensor:
        """This process's part of a batch; the parts of all together are the batch."""
        return picks[self.rank :: self.world]

    def total(self, mine: Tensor) -> Tensor:
        """The sum over all processes. Blocks until each has called."""
        if self.world > 1:
            mine = mine.clone()
            dist.all_reduce(mine)
        return mine

    def each(self, mine: Tensor) -> list[Tensor]:
        """What each process gave, by rank, on the CPU. Blocks until each has called."""
        mine = mine.cpu()
        if self.world == 1:
            return [mine]
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine)
        return parts

    def agree(self, *wishes: bool) -> list[bool]:
        """For each wish whether any process has it, so that all turn off the road at the same step."""
        if self.world == 1:
            return list(wishes)
        votes = torch.tensor(wishes, dtype=torch.uint8)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return votes.bool().tolist()

    def leader_first(self, make: Callable[[], T]) -> T:
        """`make` in the leader, then in the others: what it leaves on the disk is made once."""
        if self.world > 1 and not self.leader:
            dist.barrier()
        made = make()
        if self.world > 1 and self.leader:
            dist.barrier()
        return made

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network whose backward pass averages gradients. `model` keeps the weights and their names."""
        if self.world == 1:
            return model
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, forward_sync_buffers=False
        )

    def end(self, code: int) -> None:
        """End this process, if it is one of several, without taking torch's connections down one by one.

        Doing that while the others do it too aborts now and then (once in 20 runs of torch 2.13 with gloo).
        """
        if self.world > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def join(device: torch.device) -> Peers:
    """Meet the other processes, if there are any. Blocks until all are here."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Peers()
    rank = int(os.environ["RANK"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=os.environ.get(RENDEZVOUS, "env://"), rank=rank, world_size=world, timeout=PATIENCE,
    )  # fmt: skip
    return Peers(rank, world)


def is_one_of_many() -> bool:
    return "RANK" in os.environ


def pick_device(device: torch.device) -> torch.device:
    """This process's GPU: the one of its number on this machine."""
    if device.type != "cuda" or not is_one_of_many():
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def pick_count(asked: int, device: torch.device, batch: int) -> int:
    """How many processes: as asked; 0 means one a GPU, as far as the batch can be shared out equally."""
    if asked or device.type != "cuda" or device.index is not None:
        return max(asked, 1)
    return max(count for count in range(1, torch.cuda.device_count() + 1) if batch % count == 0)


def launch(count: int, program: Path, arguments: list[str]) -> int:
    """Run `count` processes of the program on this machine and return one exit code for all.

    SIGTERM is passed on to each; they leave at the same step. When one fails, the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="rcnn-") as folder:
        common = {
            **os.environ, "WORLD_SIZE": str(count), RENDEZVOUS: f"file://{folder}/meet",
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),  # all are on this machine
        }  # fmt: skip
        command = [sys.executable, str(program), *arguments]
        processes = [
            subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(count)
        ]
        asked = []

        def pass_on(*_: object) -> None:
            asked.append(True)
            for process in processes:
                process.terminate()

        signal.signal(signal.SIGTERM, pass_on)
        codes = _wait(processes)
    if asked and EXIT_RESUME_ME in codes:  # one that left early may have made another one stumble
        return EXIT_RESUME_ME
    return next((code for code in codes if code), 0)


def _wait(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """Until all have ended; GRACE_S after the first failure they are killed. Their exit codes, by time."""
    codes: list[int] = []
    deadline = float("inf")
    running = list(processes)
    while running:
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            codes.append(process.returncode)
            if process.returncode and deadline == float("inf"):
                deadline = time.monotonic() + GRACE_S
                for other in running:
                    other.terminate()
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
        time.sleep(0.05)
    return codes


def normalise_globally(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch normalisation see the shares of all processes; in place, names and weights stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
    return model


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the shares of all processes, for the CPU, where torch has none.

    Shares are equal, so that means over the batch are means of the shares' means.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype == torch.bfloat16 else x
        mean = _MeanOfAll.apply(wide.mean((0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = _MeanOfAll.apply(centred.square().mean((0, 2, 3)))
        with torch.no_grad():
            count = x.numel() // x.shape[1] * dist.get_world_size()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _MeanOfAll(torch.autograd.Function):
    """The mean over all processes; the gradient that reaches it is the mean of theirs."""

    @staticmethod
    def forward(_context: object, mine: Tensor) -> Tensor:
        return _mean_of_all(mine)

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return _mean_of_all(gradient)


def _mean_of_all(mine: Tensor) -> Tensor:
    mean = mine.clone()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()
