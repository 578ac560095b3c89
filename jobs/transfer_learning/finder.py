"""The learning-rate finder: raise the rate step by step, and look where the loss falls fastest and where it
breaks (https://arxiv.org/abs/1506.01186)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from learn import Learner

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 80
SMOOTH = 0.9  # share of the past in the running mean of the loss
BROKEN = 4.0  # times the lowest loss: what comes after shows nothing
BELOW = 10.0  # the rate to take is so much below the one with the lowest loss


def find(
    learner: Learner, make_optimiser: Callable[[], torch.optim.Optimizer], batch: int
) -> tuple[float, list[tuple[float, float]]]:
    """The rate to take, and the curve of (rate, smoothed loss). The network is afterwards as it was before."""
    before = copy.deepcopy(learner.net.state_dict())
    optimiser = make_optimiser()
    learner.train(True)
    random = np.random.default_rng(0)
    curve: list[tuple[float, float]] = []
    running, weight = 0.0, 0.0
    for number in range(STEPS):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
        picks = random.choice(learner.picks, batch, replace=len(learner.picks) < batch)
        loss = float(learner.step(optimiser, picks, rate)[0])
        learner.between()
        running, weight = SMOOTH * running + (1 - SMOOTH) * loss, SMOOTH * weight + (1 - SMOOTH)
        smooth = running / weight
        if not math.isfinite(smooth) or (curve and smooth > BROKEN * min(value for _, value in curve)):
            break
        curve.append((rate, smooth))
    learner.net.load_state_dict(before)
    return suggest(curve), curve


def suggest(curve: list[tuple[float, float]]) -> float:
    """A tenth of the rate at which the loss was lowest: there it is about to break."""
    if not curve:
        return LOWEST
    return min(curve, key=lambda point: point[1])[0] / BELOW
