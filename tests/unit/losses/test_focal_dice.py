"""Focal Dice, the supervised loss L_seg of Eq. 5: 0.5 focal + 0.5 (1 - Dice), Dice by nnU-Net."""

import math

import numpy as np
import pytest
import reference.segmentation
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn

from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss, ignored_voxels

IGNORE = 3
KINDS = [pytest.param(False, id="labels"), pytest.param(True, id="regions")]
IGNORING = [pytest.param(False, id="all-voxels"), pytest.param(True, id="ignore-label")]
POOLING = [pytest.param(False, id="dice-per-sample"), pytest.param(True, id="dice-per-batch")]
SHAPES = [pytest.param((2, 3, 5, 4), id="2d"), pytest.param((3, 3, 2, 4, 3), id="3d")]


class _FullDice(nn.Module):
    """In place of nnU-Net's Dice: Dice 1, so that only half the focal loss remains."""

    def forward(self, logits, target, loss_mask=None):
        return -1.0


def build(regions, *, batch_dice=False, ignore=False, gamma=2.0):
    return FocalDiceLoss(regions=regions, batch_dice=batch_dice, ignore_label=IGNORE if ignore else None, gamma=gamma)


def build_focal(regions, *, ignore=False, gamma=2.0):
    loss = build(regions, ignore=ignore, gamma=gamma)
    loss.dice = _FullDice()
    return lambda logits, target: 2 * loss(logits, target)


def logits(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2, size=shape))


def make_target(shape, regions, ignore, seed=1):
    """nnU-Net's target, the truth it states (labels or regions) and the ignored voxels (None without ignore label)."""
    random = np.random.default_rng(seed)
    ignored = random.random((shape[0], 1, *shape[2:])) < 0.3 if ignore else None
    if regions:
        truth = random.random(shape) < 0.4
        target = truth if ignored is None else np.concatenate([truth, ignored], axis=1)
    else:
        truth = random.integers(0, shape[1], (shape[0], 1, *shape[2:]))
        target = truth if ignored is None else np.where(ignored, IGNORE, truth)
    return torch.from_numpy(target), truth, ignored


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("ignore", IGNORING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_focal_part_equals_the_reference(shape, regions, ignore, gamma):
    target, truth, ignored = make_target(shape, regions, ignore)
    computed = build_focal(regions, ignore=ignore, gamma=gamma)(logits(*shape), target)
    expected = reference.segmentation.focal(logits(*shape).numpy(), truth, gamma, regions, ignored)
    assert computed.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("ignore", IGNORING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape, regions, ignore, batch_dice, dtype):
    """To float32's precision: nnU-Net's Dice sums in float32 whatever it is given."""
    target, truth, ignored = make_target(shape, regions, ignore)
    computed = build(regions, batch_dice=batch_dice, ignore=ignore)(logits(*shape).to(dtype), target)
    expected = reference.segmentation.focal_dice(
        logits(*shape).numpy(), truth, regions=regions, batch_dice=batch_dice, ignored=ignored
    )
    assert computed.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("ignore", IGNORING)
@pytest.mark.parametrize("regions", KINDS)
def test_dice_part_equals_the_reference_and_nnunets_own(regions, ignore, batch_dice):
    """Foreground only for labels, smooth 1e-5, as nnU-Net's `_build_loss` configures it."""
    shape = (2, 3, 5, 4)
    values = logits(*shape)
    target, truth, ignored = make_target(shape, regions, ignore)
    total = build(regions, batch_dice=batch_dice, ignore=ignore)(values, target)
    part = (2 * total - build_focal(regions, ignore=ignore)(values, target)).item()
    own = MemoryEfficientSoftDiceLoss(
        apply_nonlin=torch.sigmoid if regions else lambda each: torch.softmax(each, dim=1),
        batch_dice=batch_dice,
        do_bg=regions,
        smooth=1e-5,
        ddp=False,
    )
    mask = None if ignored is None else torch.from_numpy(~ignored)
    assert part == pytest.approx(1 + own(values, torch.from_numpy(truth), loss_mask=mask).item(), rel=1e-5)
    assert part == pytest.approx(
        1 - reference.segmentation.dice(values.numpy(), truth, regions, batch_dice, ignored), rel=1e-5
    )


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("ignore", IGNORING)
def test_gamma_0_for_labels_is_half_of_nnunets_dice_and_cross_entropy(ignore, batch_dice):
    target, *_ = make_target((2, 3, 5, 4), False, ignore)
    nnunet = DC_and_CE_loss(
        {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        ignore_label=IGNORE if ignore else None,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    computed = build(False, batch_dice=batch_dice, ignore=ignore, gamma=0.0)(logits(2, 3, 5, 4), target)
    assert computed.item() == pytest.approx(0.5 + 0.5 * nnunet(logits(2, 3, 5, 4), target).item(), rel=1e-5)


@pytest.mark.parametrize("batch_dice", POOLING)
def test_gamma_0_for_regions_is_half_of_nnunets_dice_and_binary_cross_entropy(batch_dice):
    target, *_ = make_target((2, 3, 5, 4), True, False)
    nnunet = DC_and_BCE_loss(
        {},
        {"batch_dice": batch_dice, "do_bg": True, "smooth": 1e-5, "ddp": False},
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    computed = build(True, batch_dice=batch_dice, gamma=0.0)(logits(2, 3, 5, 4).float(), target.float())
    assert computed.item() == pytest.approx(
        0.5 + 0.5 * nnunet(logits(2, 3, 5, 4).float(), target.float()).item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("gamma", "expected"), [(0.0, math.log(4)), (1.0, 0.75 * math.log(4)), (2.0, 0.5625 * math.log(4))]
)
def test_focal_by_hand(gamma, expected):
    """p_t = 1/4 in every voxel, for labels and for regions."""
    labels = build_focal(False, gamma=gamma)(torch.zeros(1, 4, 2, 2), torch.ones(1, 1, 2, 2))
    region = build_focal(True, gamma=gamma)(torch.full((1, 1, 2, 2), math.log(3)), torch.zeros(1, 1, 2, 2))
    assert labels.item() == pytest.approx(expected, rel=1e-6)
    assert region.item() == pytest.approx(expected, rel=1e-6)


def test_focal_attends_less_to_what_is_already_right():
    """The easy voxel's share falls against that of the hard voxel."""
    easy, hard = torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1), torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    background = torch.zeros(1, 1, 1, 1)
    shares = [
        (build_focal(False, gamma=gamma)(easy, background) / build_focal(False, gamma=gamma)(hard, background)).item()
        for gamma in (0.0, 2.0)
    ]
    assert shares[1] < 0.02 * shares[0] + 1e-3


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
def test_a_sure_and_right_prediction_costs_nothing_and_a_wrong_one_much(regions, batch_dice):
    target, truth, _ = make_target((2, 3, 5, 4), regions, False)
    onehot = truth if regions else np.concatenate([truth == c for c in range(3)], axis=1)
    right = torch.from_numpy(np.where(onehot, 60.0, -60.0)).requires_grad_()
    loss = build(regions, batch_dice=batch_dice)
    value = loss(right, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert right.grad.isfinite().all()
    assert loss(-right, target).item() > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int16, torch.uint8])
@pytest.mark.parametrize("ignore", IGNORING)
def test_labels_may_come_in_any_type(ignore, dtype):
    target, *_ = make_target((2, 3, 5, 4), False, ignore)
    loss = build(False, ignore=ignore)
    assert loss(logits(2, 3, 5, 4), target.to(dtype)).item() == loss(logits(2, 3, 5, 4), target).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int16])
@pytest.mark.parametrize("ignore", IGNORING)
def test_regions_may_come_as_booleans_or_numbers(ignore, dtype):
    target, *_ = make_target((2, 3, 5, 4), True, ignore)
    assert target.dtype == torch.bool
    loss = build(True, ignore=ignore)
    assert loss(logits(2, 3, 5, 4), target.to(dtype)).item() == loss(logits(2, 3, 5, 4), target).item()


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
def test_ignored_voxels_change_nothing_and_get_no_gradient(regions, batch_dice):
    shape = (2, 3, 5, 4)
    target, _, ignored = make_target(shape, regions, True)
    ignored = torch.from_numpy(ignored).expand(shape)
    changed = torch.where(ignored, logits(*shape, seed=5) * 10, logits(*shape)).requires_grad_()
    retold = target.clone()
    if regions:
        retold[:, :3] = torch.where(ignored, ~target[:, :3], target[:, :3])
    loss = build(regions, batch_dice=batch_dice, ignore=True)
    value = loss(changed, retold)
    value.backward()
    assert value.item() == pytest.approx(loss(logits(*shape), target).item(), rel=1e-6)
    assert not changed.grad[ignored].any()
    assert changed.grad[~ignored].all()


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
def test_all_voxels_ignored_gives_0_and_no_gradient(regions, batch_dice):
    values = logits(2, 3, 5, 4).requires_grad_()
    target = torch.ones(2, 4, 5, 4, dtype=torch.bool) if regions else torch.full((2, 1, 5, 4), IGNORE)
    value = build(regions, batch_dice=batch_dice, ignore=True)(values, target)
    value.backward()
    assert value.item() == 0
    assert torch.equal(values.grad, torch.zeros_like(values))


@pytest.mark.parametrize("ignore", IGNORING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype, regions, ignore):
    target, *_ = make_target((2, 3, 5, 4), regions, ignore)
    half = logits(2, 3, 5, 4).to(dtype)
    extreme = torch.where(logits(2, 3, 5, 4) > 1, 60000.0, half.float()).to(dtype).requires_grad_()
    loss = build(regions, ignore=ignore)
    assert loss(half, target).dtype == torch.float32
    assert loss(half, target).item() == loss(half.float(), target).item()
    value = loss(extreme, target)
    value.backward()
    assert value.isfinite()
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("ignore", IGNORING)
@pytest.mark.parametrize("regions", KINDS)
def test_gradcheck_of_the_focal_part(regions, ignore, gamma):
    target, *_ = make_target((2, 3, 2, 3), regions, ignore)
    focal = build_focal(regions, ignore=ignore, gamma=gamma)
    assert torch.autograd.gradcheck(lambda each: focal(each, target), (logits(2, 3, 2, 3).requires_grad_(),))


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("ignore", IGNORING)
@pytest.mark.parametrize("regions", KINDS)
def test_gradient_equals_finite_differences_of_the_reference(regions, ignore, batch_dice):
    """No gradcheck here: nnU-Net's Dice sums in float32, too coarse for gradcheck's steps of 1e-6."""
    shape, step = (2, 3, 2, 3), 1e-6
    target, truth, ignored = make_target(shape, regions, ignore)
    values = logits(*shape).requires_grad_()
    build(regions, batch_dice=batch_dice, ignore=ignore)(values, target).backward()
    expected = np.zeros(shape)
    for place in np.ndindex(*shape):
        for sign in (1, -1):
            moved = values.detach().numpy().copy()
            moved[place] += sign * step
            value = reference.segmentation.focal_dice(
                moved, truth, regions=regions, batch_dice=batch_dice, ignored=ignored
            )
            expected[place] += sign * value / (2 * step)
    np.testing.assert_allclose(values.grad.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("target", "ignore_label", "regions", "expected"),
    [
        pytest.param([[0, 1], [3, 3]], None, False, None, id="labels-without-ignore-label"),
        pytest.param([[0, 1], [3, 3]], 3, False, [[False, False], [True, True]], id="labels"),
        pytest.param([[0.0, 1.0], [2.0, 3.0]], 3, False, [[False, False], [False, True]], id="float-labels"),
    ],
)
def test_ignored_voxels_of_labels(target, ignore_label, regions, expected):
    computed = ignored_voxels(torch.tensor([[target]]), ignore_label, regions)
    assert computed is None if expected is None else computed.tolist() == [[expected]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int16])
def test_ignored_voxels_of_regions_stand_in_the_last_channel(dtype):
    target = torch.tensor([[[[1, 1]], [[0, 1]], [[0, 1]]], [[[0, 0]], [[0, 1]], [[1, 0]]]]).to(dtype)
    assert ignored_voxels(target, None, True) is None
    computed = ignored_voxels(target, IGNORE, True)
    assert computed.dtype == torch.bool
    assert computed.tolist() == [[[[False, True]]], [[[True, False]]]]
