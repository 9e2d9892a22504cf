"""Terms in their source's ratio: the gradients at the final logits, and what has no gradient."""

import pytest
import torch
from torch.nn import functional

from nnunetv2_hlfd.distillation.method import Task
from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss
from nnunetv2_hlfd.training.source_ratio import SourceRatio, source_loss

TERMS = {"kd": "cross_entropy", "emkd_prediction": "focal_dice"}


def task(regions=False, ignore_label=None, batch_dice=True):
    return Task(num_heads=3, regions=regions, dimension=2, ignore_label=ignore_label, batch_dice=batch_dice)


def batch(regions=False, ignore=False):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 8, 6, generator=generator)
    if regions:
        channels = 4 if ignore else 3
        return logits, (torch.rand(2, channels, 8, 6, generator=generator) < 0.3).float()
    return logits, torch.randint(0, 4 if ignore else 3, (2, 1, 8, 6), generator=generator)


def gradient(loss, logits):
    leaf = logits.clone().requires_grad_()
    loss(leaf).backward()
    return leaf.grad


def segmentation(described):
    return FocalDiceLoss(
        regions=described.regions, batch_dice=described.batch_dice, ignore_label=described.ignore_label
    )


@pytest.mark.parametrize("ignore", [False, True])
def test_the_cross_entropy_of_labels_is_torchs(ignore):
    logits, target = batch(ignore=ignore)
    loss = source_loss("cross_entropy", task(ignore_label=3 if ignore else None))
    expected = functional.cross_entropy(logits, target[:, 0], ignore_index=3)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("ignore", [False, True])
def test_the_cross_entropy_of_regions_is_the_sum_over_channels(ignore):
    logits, target = batch(regions=True, ignore=ignore)
    loss = source_loss("cross_entropy", task(regions=True, ignore_label=3 if ignore else None))
    each = functional.binary_cross_entropy_with_logits(logits, target[:, :3], reduction="none").sum(dim=1)
    expected = each[target[:, 3] == 0].mean() if ignore else each.mean()
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("regions", [False, True])
def test_a_term_stands_to_this_loss_as_in_its_source_to_the_cross_entropy(regions):
    logits, target = batch(regions)
    described = task(regions)
    loss = segmentation(described)
    term = gradient(lambda z: 3 * z.square().mean(), logits)
    [ratio] = SourceRatio(loss, "focal_dice", TERMS, described)(logits, target).values()
    here = (ratio * term).norm() / gradient(lambda z: loss(z, target), logits).norm()
    source = source_loss("cross_entropy", described)
    there = term.norm() / gradient(lambda z: source(z, target), logits).norm()
    torch.testing.assert_close(here, there)
    assert abs(ratio - 1) > 0.05


def test_beside_the_sources_own_loss_nothing_is_converted():
    logits, target = batch()
    own = SourceRatio(segmentation(task()), "focal_dice", TERMS, task())
    assert set(own(logits, target)) == {"kd"}
    other = SourceRatio(segmentation(task()), "", TERMS, task())
    assert other(logits, target)["emkd_prediction"] == pytest.approx(1)


def test_one_without_an_annotated_voxel():
    logits, _ = batch()
    described = task(ignore_label=3)
    ratio = SourceRatio(segmentation(described), "focal_dice", TERMS, described)
    assert ratio(logits, torch.full((2, 1, 8, 6), 3)) == {"kd": 1}


def test_half_precision_and_graph_do_not_reach_it():
    """Gradients of means over many voxels vanish in float16."""
    logits, target = (values.repeat(1, 1, 64, 64) for values in batch())
    ratio = SourceRatio(segmentation(task()), "focal_dice", TERMS, task())
    expected = ratio(logits.half().float(), target)["kd"]
    with torch.autocast("cpu", torch.bfloat16):
        half = ratio(logits.half().requires_grad_(), target)["kd"]
    assert half == expected
    assert half.dtype == torch.float32
    assert not half.requires_grad
