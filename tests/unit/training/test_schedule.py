"""Learning-rate schedule of the paper's recipe, and the seeding of all random states."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from nnunetv2_hlfd.training.schedule import (
    CosineLRScheduler,
    distillation_ramp,
    draw_seed,
    keep_thread_limit,
    paper_optimizer,
    seed_everything,
)

INITIAL, FINAL, EPOCHS = 1e-3, 1e-6, 120


def optimizer_and_scheduler():
    return paper_optimizer(nn.Linear(2, 2).parameters(), INITIAL, EPOCHS)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def draws():
    return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()


def test_the_papers_optimizer_is_adam_without_weight_decay():
    optimizer, scheduler = optimizer_and_scheduler()
    assert type(optimizer) is torch.optim.Adam
    assert isinstance(scheduler, CosineLRScheduler)
    [group] = optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.9, 0.999), 0, INITIAL)


@pytest.mark.parametrize(("epoch", "expected"), [(0, INITIAL), (EPOCHS // 2, (INITIAL + FINAL) / 2), (EPOCHS, FINAL)])
def test_the_cosine_starts_at_the_initial_rate_is_halfway_in_the_middle_and_ends_at_1e_6(epoch, expected):
    optimizer, scheduler = optimizer_and_scheduler()
    scheduler.step(epoch)
    assert rates(optimizer) == pytest.approx([expected], rel=1e-12)
    assert scheduler.get_last_lr() == rates(optimizer)


def test_the_closed_form_equals_torchs_recursion():
    optimizer, scheduler = optimizer_and_scheduler()
    reference = torch.optim.Adam(nn.Linear(2, 2).parameters(), INITIAL)
    recursion = CosineAnnealingLR(reference, T_max=EPOCHS, eta_min=FINAL)
    for epoch in range(EPOCHS + 1):
        scheduler.step(epoch)
        assert rates(optimizer) == pytest.approx(rates(reference), rel=1e-9), epoch
        reference.step()
        recursion.step()


def test_an_epoch_alone_sets_the_rate_so_that_a_resumed_run_needs_nothing_else():
    optimizer, scheduler = optimizer_and_scheduler()
    for epoch in range(31):
        scheduler.step(epoch)
    resumed, its_scheduler = optimizer_and_scheduler()
    its_scheduler.step(30)
    assert rates(resumed) == rates(optimizer)


def test_adapters_added_later_as_a_second_group_follow_the_same_schedule():
    optimizer, scheduler = optimizer_and_scheduler()
    optimizer.add_param_group({"params": nn.Linear(3, 3).parameters()})
    for epoch in (0, 17, EPOCHS):
        scheduler.step(epoch)
        expected = FINAL + (INITIAL - FINAL) * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        assert rates(optimizer) == pytest.approx([expected, expected], rel=1e-12)


@pytest.mark.parametrize(
    ("warmup_epochs", "until", "decay", "expected"),
    [
        (0, None, "linear", [1, 1, 1, 1, 1, 1, 1, 1]),
        (3, None, "cosine", [1 / 4, 1 / 2, 3 / 4, 1, 1, 1, 1, 1]),
        (0, 0.5, "linear", [1, 3 / 4, 1 / 2, 1 / 4, 0, 0, 0, 0]),
        (0, 0.5, "cosine", [1, 0.5 + 0.5**1.5, 1 / 2, 0.5 - 0.5**1.5, 0, 0, 0, 0]),
        (0, 1.0, "linear", [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (0, 0.3, "linear", [1, 1 - 1 / 2.4, 1 - 2 / 2.4, 0, 0, 0, 0, 0]),
        (1, 0.5, "linear", [1 / 2, 3 / 4, 1 / 2, 1 / 4, 0, 0, 0, 0]),
        (0, 0.01, "cosine", [1, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_distillation_rises_and_fades_as_by_hand(warmup_epochs, until, decay, expected):
    """Of 8 epochs. After the last share it is 0 exactly: the teacher does not run."""
    schedule = {"warmup_epochs": warmup_epochs, "until": until, "decay": decay}
    ramps = [distillation_ramp(epoch, 8, **schedule) for epoch in range(8)]
    assert ramps == pytest.approx(expected, abs=1e-15)
    assert [ramp == 0 for ramp in ramps] == [value == 0 for value in expected]


def test_one_key_reproduces_random_numpy_and_torch():
    seed_everything(3, 1, 0)
    first = draws()
    draws()
    seed_everything(3, 1, 0)
    assert draws() == first


@pytest.mark.parametrize(
    "keys",
    [
        [(seed, epoch, rank) for seed in (0, 3) for epoch in (0, 1) for rank in (0, 1)],
        [(3,), (4,), (3, 0), (3, 1), (3, 0, 0)],
    ],
    ids=["seed-epoch-rank", "of different lengths"],
)
def test_other_keys_give_other_numbers_in_each_of_them(keys):
    seen = []
    for key in keys:
        seed_everything(*key)
        seen.append(draws())
    for library in zip(*seen, strict=True):
        assert len({str(each) for each in library}) == len(keys)


def test_drawn_seeds_do_not_depend_on_the_global_random_state():
    random.seed(0)
    first = draw_seed()
    random.seed(0)
    assert draw_seed() != first
    assert 0 <= first < 2**31


@pytest.fixture
def four_threads():
    """nnU-Net's entry point has set the thread count; the suite's own is restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("limit", "device", "expected"),
    [
        ("2", "cpu", 2),
        ("3,1", "cpu", 3),
        ("", "cpu", 4),
        ("0", "cpu", 4),
        ("many", "cpu", 4),
        ("2", "cuda", 4),
    ],
)
def test_a_thread_limit_of_the_environment_holds_on_a_cpu(limit, device, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    keep_thread_limit(torch.device(device))
    assert torch.get_num_threads() == expected
