"""The learning-rate finder: raise the rate step by step, and look where the loss falls fastest and where it
breaks (https://arxiv.org/abs/1506.01186)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from learn import Learner

LOWEST, HIGHEST, STEPS = 1e-6, 0.1, 60
SMOOTH = 0.9  # share of the past in the running mean of the loss
BROKEN = 4.0  # times the lowest loss: what comes after shows nothing
START = 6  # points whose mean is the loss before it falls


def find(
    learner: Learner, make_optimiser: Callable[[], torch.optim.Optimizer], batch: int
) -> tuple[float, list[tuple[float, float]]]:
    """The rate to take, and the curve of (rate, smoothed loss). Leaves the network as it was."""
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
    """Between the rate at which half of the fall is done and the one with the lowest loss, on the log scale.

    The first is safe and slow; at the second the loss is about to break, and heads of one layer never break.
    """
    if not curve:
        return LOWEST
    rates, losses = np.array(curve).T
    lowest = int(losses.argmin())
    half = (losses[:START].mean() + losses[lowest]) / 2
    before = np.flatnonzero(losses[: lowest + 1] >= half)
    return float(math.sqrt(rates[before[-1] if len(before) else lowest] * rates[lowest]))
