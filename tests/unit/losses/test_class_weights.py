"""Voxel weights that give every class the same weight in the KL divergence."""

import numpy as np
import pytest
import torch

from nnunetv2_hlfd.losses.divergence import class_weights, kl_divergence, probabilities

KINDS = [pytest.param(False, id="labels"), pytest.param(True, id="regions")]
SHAPES = [pytest.param((2, 3, 4, 5), id="2d"), pytest.param((2, 2, 2, 3, 4), id="3d")]


def random(*shape, seed=0, scale=3.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


def mean_of_class_means(divergence, p, regions, valid):
    """By loops over classes and voxels: the mean over the classes of the mean divergence of their voxels."""
    members = np.concatenate([p, 1 - p.max(axis=1, keepdims=True)], axis=1) if regions else p
    means = []
    for class_index in range(members.shape[1]):
        mass = total = 0.0
        for sample in range(members.shape[0]):
            for voxel in np.ndindex(*members.shape[2:]):
                if valid is None or valid[(sample, 0, *voxel)]:
                    share = members[(sample, class_index, *voxel)]
                    mass += share
                    total += share * divergence[(sample, *voxel)]
        if mass > 0:
            means.append(total / mass)
    return sum(means) / len(means) if means else 0.0


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_weighted_divergence_is_the_mean_of_the_class_means(shape, regions, masked):
    student, p = random(*shape), probabilities(random(*shape, seed=1), 4.0, regions)
    valid = torch.from_numpy(np.random.default_rng(2).random((shape[0], 1, *shape[2:])) < 0.6) if masked else None
    computed = kl_divergence(
        student, p, temperature=4.0, regions=regions, valid=valid, weights=class_weights(p, regions, valid)
    )
    q = probabilities(student, 4.0, regions)
    parts = p * (p / q).log() + ((1 - p) * ((1 - p) / (1 - q)).log() if regions else 0)
    expected = 16 * mean_of_class_means(
        parts.sum(dim=1).numpy(), p.numpy(), regions, None if valid is None else valid.numpy()
    )
    assert computed.item() == pytest.approx(expected, rel=1e-10)


def test_a_lesion_of_one_voxel_weighs_as_much_as_the_background():
    p = torch.zeros(1, 2, 5, 5, dtype=torch.float64)
    p[:, 0] = 1
    p[0, :, 2, 2] = torch.tensor([0.0, 1.0])
    weights = class_weights(p, False, None)
    assert weights[0, 0, 2, 2].item() == pytest.approx(0.5)
    assert weights.sum().item() == pytest.approx(1)


def test_classes_that_are_absent_do_not_count():
    p = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    p[:, 0] = 1
    torch.testing.assert_close(class_weights(p, False, None), torch.full((1, 1, 2, 2), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("regions", KINDS)
def test_without_a_valid_voxel_all_weights_are_0(regions):
    p = probabilities(random(1, 2, 3, 3), 1.0, regions)
    assert not class_weights(p, regions, torch.zeros(1, 1, 3, 3, dtype=torch.bool)).any()


def test_a_student_that_equals_its_teacher_has_no_gradient():
    logits = random(1, 3, 3, 3).requires_grad_()
    p = probabilities(logits.detach(), 1.0, False)
    kl_divergence(logits, p, temperature=1.0, weights=class_weights(p, False, None)).backward()
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize("regions", KINDS)
def test_gradcheck(regions):
    logits, p = random(1, 2, 3, 2).requires_grad_(), probabilities(random(1, 2, 3, 2, seed=1), 1.0, regions)
    weights = class_weights(p, regions, None)
    assert torch.autograd.gradcheck(
        lambda values: kl_divergence(values, p, temperature=1.0, regions=regions, weights=weights), [logits]
    )
