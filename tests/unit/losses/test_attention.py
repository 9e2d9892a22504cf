"""Attention maps A(z) of encoder features and their distance (feature level, Eq. 1 and 2)."""

import numpy as np
import pytest
import reference.attention
import torch

from nnunetv2_hlfd.losses.attention import (
    attention_distance,
    attention_map,
    energy,
    mean_attention,
    smallest_size,
    unified_energy,
)

EXPONENTS = (1, 2, 4)
SIZES = [
    pytest.param((6, 4), (6, 4), id="2d-same"),
    pytest.param((6, 4), (3, 2), id="2d-shrink"),
    pytest.param((5, 3), (2, 4), id="2d-shrink-and-grow"),
    pytest.param((4, 5, 2), (2, 2, 2), id="3d-shrink"),
    pytest.param((2, 3, 2), (4, 3, 1), id="3d-grow-stay-shrink"),
]
STAGES = [
    pytest.param([(3, 4, 4)], id="2d-one-stage"),
    pytest.param([(2, 8, 6), (5, 4, 3)], id="2d-two-stages"),
    pytest.param([(2, 7, 6), (3, 5, 4), (7, 3, 4)], id="2d-sizes-that-do-not-divide"),
    pytest.param([(2, 4, 8), (6, 8, 4)], id="2d-smallest-on-each-axis"),
    pytest.param([(2, 4, 6, 6), (3, 4, 3, 3), (5, 2, 3, 2)], id="3d-anisotropic"),
]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit_maps(*shape, seed=0):
    return attention_map(torch.from_numpy(np.abs(random(*shape, seed=seed))))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_energy_equals_the_reference(source, size, exponent, dtype, tolerance):
    features = random(2, 3, *source)
    computed = energy(torch.from_numpy(features).to(dtype), size, exponent)
    assert computed.shape == (2, *size)
    np.testing.assert_allclose(
        computed.numpy(), reference.attention.energy(features, size, exponent), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("exponent", "expected"), [(1, 2.0), (2, 5.0), (4, 41.0)])
def test_energy_takes_the_magnitude_after_resizing(exponent, expected):
    """Channels (3, -3) and (1, 5) become 0 and 3 by averaging; the magnitudes (3, 3) and (1, 5) would give 3 and 3."""
    features = torch.tensor([[[[3.0, -3.0]], [[1.0, 5.0]]]])
    assert energy(features, (1, 1), exponent).item() == pytest.approx((0 + 3**exponent) / 2)
    assert energy(torch.tensor([[[[3.0]], [[-1.0]]]]), (1, 1), exponent).item() == pytest.approx(expected)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("stages", STAGES)
def test_unified_energy_equals_the_energy_of_a_real_concatenation(stages, exponent):
    features = [random(2, *shape, seed=seed) for seed, shape in enumerate(stages)]
    computed = unified_energy([torch.from_numpy(each) for each in features], exponent)
    np.testing.assert_allclose(
        computed.numpy(), reference.attention.concatenated_energy(features, exponent), rtol=1e-10, atol=1e-12
    )


def test_unified_energy_weights_stages_by_their_channels():
    few, many = torch.full((1, 1, 2, 2), 8.0), torch.full((1, 3, 2, 2), 4.0)
    assert unified_energy([few, many], 1).unique().tolist() == [5.0]


@pytest.mark.parametrize(
    ("sizes", "smallest"),
    [
        ([(4, 6)], (4, 6)),
        ([(8, 8), (4, 4), (2, 2)], (2, 2)),
        ([(4, 8), (8, 2)], (4, 2)),
        ([(2, 8, 8), (2, 4, 4)], (2, 4, 4)),
    ],
)
def test_smallest_size_is_taken_on_every_axis(sizes, smallest):
    assert smallest_size([torch.zeros(1, index + 1, *size) for index, size in enumerate(sizes)]) == smallest


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 2, 3, 2)])
def test_attention_map_is_flat_with_unit_norm_and_equals_the_reference(shape):
    energy_map = np.abs(random(*shape))
    computed = attention_map(torch.from_numpy(energy_map))
    assert computed.shape == (shape[0], np.prod(shape[1:]))
    np.testing.assert_allclose(computed.numpy(), reference.attention.attention_map(energy_map), atol=1e-12)
    np.testing.assert_allclose(computed.norm(dim=1).numpy(), 1, atol=1e-12)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_zero_map_stays_zero_and_has_a_zero_gradient(dtype, exponent):
    """A patch of background gives such maps: instance normalization turns a constant into exactly 0."""
    features = torch.zeros(2, 3, 4, 4, dtype=dtype)
    features[1] = torch.rand(3, 4, 4)
    features.requires_grad_()
    student = attention_map(energy(features, (4, 4), exponent))
    assert torch.equal(student[0], torch.zeros_like(student[0]))
    attention_distance(student, unit_maps(2, 4, 4).to(student.dtype)).backward()
    assert torch.equal(features.grad[0], torch.zeros_like(features.grad[0]))
    assert features.grad[1].isfinite().all()
    assert features.grad[1].any()


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e4])
def test_attention_map_does_not_depend_on_the_scale_of_the_features(factor, exponent):
    features = torch.from_numpy(random(2, 3, 5, 4)).float()
    maps = [attention_map(energy(scale * features, (3, 3), exponent)) for scale in (1, factor)]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "largest", "exponent"),
    [(torch.float16, 65504.0, 4), (torch.bfloat16, 1e8, 4), (torch.bfloat16, 1e18, 2), (torch.float32, 1e38, 1)],
)
def test_huge_activations_stay_finite(dtype, largest, exponent):
    """65504^4 fits float32, its square, which the norm needs, does not."""
    features = torch.full((1, 2, 2, 2), largest, dtype=dtype)
    features[..., 0] = 0.0
    features.requires_grad_()
    computed = attention_map(energy(features, (2, 2), exponent))
    np.testing.assert_allclose(computed.detach().numpy(), [[0, 0.5**0.5, 0, 0.5**0.5]], atol=1e-6)
    attention_distance(computed, unit_maps(1, 2, 2).float()).backward()
    assert features.grad.isfinite().all()


def test_attention_distance_equals_the_reference_and_2_minus_2_cosine():
    student, teacher = unit_maps(3, 4, 5, seed=1), unit_maps(3, 4, 5, seed=2)
    distance = attention_distance(student, teacher).item()
    assert distance == pytest.approx(
        reference.attention.attention_distance(student.numpy(), teacher.numpy()), abs=1e-12
    )
    assert distance == pytest.approx((2 - 2 * (student * teacher).sum(dim=1)).mean().item(), abs=1e-12)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        pytest.param([0.0, 5.0], [0.0, 0.1], 0.0, id="same-place"),
        pytest.param([3.0, 0.0], [0.0, 4.0], 2.0, id="no-common-place"),
        pytest.param([3.0, 4.0], [4.0, 3.0], 2 - 2 * 24 / 25, id="by-hand"),
        pytest.param([0.0, 0.0], [1.0, 2.0], 1.0, id="student-all-zero"),
        pytest.param([1.0, 2.0], [0.0, 0.0], 1.0, id="teacher-all-zero"),
        pytest.param([0.0, 0.0], [0.0, 0.0], 0.0, id="both-all-zero"),
    ],
)
def test_attention_distance_of_simple_maps(student, teacher, expected):
    maps = [attention_map(torch.tensor([each], dtype=torch.float64)) for each in (student, teacher)]
    assert attention_distance(*maps).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("voxels", [2, 16, 4096])
def test_attention_distance_of_energies_lies_in_0_to_2_for_every_patch_size(voxels):
    generator = torch.Generator().manual_seed(voxels)
    student, teacher = (torch.rand(8, voxels, generator=generator).pow(8) for _ in range(2))
    student[:4, voxels // 2 :] = 0
    teacher[:4, : voxels // 2] = 0
    each = [attention_distance(*(attention_map(m[i : i + 1]) for m in (student, teacher))).item() for i in range(8)]
    assert each[:4] == pytest.approx([2.0] * 4, abs=1e-5)
    assert all(0 <= value < 2 for value in each[4:])


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_student_equal_to_teacher_has_distance_0_and_zero_gradient(exponent):
    features = torch.from_numpy(random(2, 3, 4, 4)).requires_grad_()
    teacher = attention_map(energy(3 * features.detach(), (2, 2), exponent))  # another scale, the same attention
    distance = attention_distance(attention_map(energy(features, (2, 2), exponent)), teacher)
    distance.backward()
    assert distance.item() == pytest.approx(0, abs=1e-12)
    assert features.grad.abs().max() < 1e-12


def test_mean_attention_of_one_or_of_equal_maps_is_the_map():
    single = unit_maps(2, 3, 4)
    assert mean_attention([single]) is single
    torch.testing.assert_close(mean_attention([single, single, single]), single)


def test_mean_attention_is_normalized_again_and_equals_the_reference():
    maps = [unit_maps(2, 3, 4, seed=seed) for seed in range(3)]
    computed = mean_attention(maps)
    np.testing.assert_allclose(
        computed.numpy(), reference.attention.mean_attention([m.numpy() for m in maps]), atol=1e-12
    )
    np.testing.assert_allclose(computed.norm(dim=1).numpy(), 1, atol=1e-12)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize(("source", "size"), [((3, 3), (3, 3)), ((4, 3), (2, 4)), ((2, 2, 3), (2, 3, 2))])
def test_gradcheck(source, size, exponent):
    """Each channel keeps one sign, so that no resized value comes near 0, where |z| has a kink."""
    features = torch.from_numpy(0.5 + np.abs(random(2, 2, *source)))
    features[:, 1] *= -1
    teacher = unit_maps(2, *size, seed=1)

    def distance(values):
        return attention_distance(attention_map(energy(values, size, exponent)), teacher)

    assert torch.autograd.gradcheck(distance, (features.requires_grad_(),))
