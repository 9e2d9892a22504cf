"""Optimizer, learning-rate schedule, random state and threads of a training."""

import math
import os
import random
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

_FINAL_LR = 1e-6


class CosineLRScheduler(LRScheduler):
    r"""Cosine annealing in closed form, so that a resumed run needs nothing but the epoch.

    lr(e) = lr_min + (lr_0 - lr_min) (1 + cos(pi e / E)) / 2, with lr_min 1e-6 as in the paper. Stepped by epoch like
    nnU-Net's PolyLRScheduler.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, initial_lr: float, num_epochs: int) -> None:
        self.initial_lr, self.num_epochs = initial_lr, num_epochs
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rate of all parameter groups for an epoch."""
        share = (1 + math.cos(math.pi * (epoch or 0) / self.num_epochs)) / 2
        lr = _FINAL_LR + (self.initial_lr - _FINAL_LR) * share
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._last_lr = [lr] * len(self.optimizer.param_groups)


def paper_optimizer(
    parameters: Iterable[nn.Parameter], initial_lr: float, num_epochs: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Adam (0.9, 0.999) with cosine annealing: the paper's section 3."""
    optimizer = torch.optim.Adam(parameters, initial_lr, betas=(0.9, 0.999))
    return optimizer, CosineLRScheduler(optimizer, initial_lr, num_epochs)


def distillation_ramp(epoch: int, num_epochs: int, *, warmup_epochs: int, until: float | None, decay: str) -> float:
    r"""Share of the distillation weights in an epoch: a linear rise, then a decay to 0, a function of the epoch alone.

    rise(e) = min(1, (e + 1) / (warmup_epochs + 1)); fade(e) = 1 - x (linear) or (1 + cos(pi x)) / 2 (cosine) with
    x = min(1, e / (until E)); 1 where `until` is None.
    """
    rise = min(1.0, (epoch + 1) / (warmup_epochs + 1))
    if until is None:
        return rise
    progress = min(1.0, epoch / (until * num_epochs))
    return rise * (1 - progress if decay == "linear" else (1 + math.cos(math.pi * progress)) / 2)


def draw_seed() -> int:
    """A seed that no global random state influences."""
    return random.SystemRandom().randrange(2**31)


def seed_everything(*key: int) -> None:
    """Seed random, numpy and torch from a key such as (seed, epoch, rank)."""
    state = np.random.SeedSequence([len(key), *key]).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


def keep_thread_limit(device: torch.device) -> None:
    """Give OMP_NUM_THREADS back its meaning: nnU-Net takes every core of a CPU, so two runs would fight for them."""
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if device.type == "cpu" and limit.isdigit() and int(limit) > 0:
        torch.set_num_threads(int(limit))


def rounds_to_none(batch_size: int, percent: float) -> bool:
    """Whether nnU-Net's loader, which rounds, takes no patch of a batch around foreground.

    >>> rounds_to_none(1, 0.33), rounds_to_none(2, 0.33)
    (True, False)
    """
    return percent > 0 and round(batch_size * (1 - percent)) >= batch_size
