"""Cosine affinities of places and classes, which SKD and EMKD compare."""

import numpy as np
import pytest
import reference.affinity
import torch

from nnunetv2_hlfd.losses.affinity import class_vectors, cosine_affinity


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def shares(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 1, 4), (3, 4, 1)])
def test_cosine_affinity_equals_the_reference(shape, dtype, tolerance):
    vectors = random(*shape)
    computed = cosine_affinity(vectors.to(dtype))
    expected = [reference.affinity.affinities(sample) for sample in vectors.numpy()]
    np.testing.assert_allclose(computed.numpy(), expected, atol=tolerance)


def test_cosine_affinity_by_hand():
    vectors = torch.tensor([[[3.0, 4.0], [4.0, 3.0], [-3.0, -4.0], [0.0, 7.0], [0.0, 0.0]]])
    expected = [
        [1, 0.96, -1, 0.8, 0],
        [0.96, 1, -0.96, 0.6, 0],
        [-1, -0.96, 1, -0.8, 0],
        [0.8, 0.6, -0.8, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(cosine_affinity(vectors)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-8, 0.5, 6e4])
def test_the_length_of_the_vectors_does_not_matter(factor):
    vectors = random(2, 4, 3).float()
    torch.testing.assert_close(cosine_affinity(factor * vectors), cosine_affinity(vectors))


@pytest.mark.parametrize("zero", [[1], [0, 1, 2, 3]])
def test_zero_vectors_have_affinity_and_gradient_0(zero):
    vectors = random(2, 4, 3)
    vectors[0, zero] = 0
    vectors.requires_grad_()
    computed = cosine_affinity(vectors)
    (computed * random(2, 4, 4, seed=1)).sum().backward()
    assert not computed[0, zero].any()
    assert not computed[0, :, zero].any()
    assert not vectors.grad[0, zero].any()
    assert vectors.grad.isfinite().all()
    assert vectors.grad[1].any()


def test_gradcheck_of_cosine_affinity():
    """The gradient includes the norm's."""
    assert torch.autograd.gradcheck(cosine_affinity, (random(2, 3, 2).requires_grad_(),))


@pytest.mark.parametrize("size", [(4, 3), (2, 3, 2)])
def test_class_vectors_equal_the_reference(size):
    features, membership = random(2, 3, *size), shares(2, 4, *size)
    computed = class_vectors(features, membership)
    expected = [
        [reference.affinity.class_vector(sample, share) for share in shares_of_sample]
        for sample, shares_of_sample in zip(features.numpy(), membership.numpy(), strict=True)
    ]
    assert computed.shape == (2, 4, 3)
    np.testing.assert_allclose(computed.numpy(), expected, atol=1e-12)


def test_a_class_without_voxels_has_a_zero_vector_and_gives_no_gradient():
    features, membership = random(2, 3, 4, 4).requires_grad_(), shares(2, 2, 4, 4)
    membership[1, 0] = 0
    computed = class_vectors(features, membership)
    assert not computed[1, 0].any()
    computed[1, 0].sum().backward()
    assert not features.grad.any()


def test_a_tiny_share_of_one_cell_gives_that_cells_vector():
    """A lesion of one voxel in a coarse cell."""
    features, membership = random(1, 3, 2, 2).float(), torch.zeros(1, 1, 2, 2)
    membership[0, 0, 1, 0] = 1 / 128**3
    torch.testing.assert_close(class_vectors(features, membership)[0, 0], features[0, :, 1, 0])


def test_gradcheck_of_class_vectors():
    membership = shares(2, 3, 2, 2)
    membership[0, 1] = 0
    features = random(2, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: class_vectors(values, membership), (features,))
