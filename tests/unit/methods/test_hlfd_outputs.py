"""HLFD's pixel half on the decoder's outputs, with the soft-label loss, and with voxels weighted by class."""

import pytest
import torch
from method_scene import FLAT, KINDS, SOLID, Scene, gradients

from nnunetv2_hlfd.losses.divergence import class_weights, kl_divergence
from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.losses.soft_labels import SoftLabelLoss
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.methods.hlfd_balanced import HLFDBalanced
from nnunetv2_hlfd.methods.soft_label import SoftLabel

GEOMETRIES = [pytest.param(FLAT, id="2d"), pytest.param(SOLID, id="3d-anisotropic")]


def terms(scene):
    student, teacher = scene.student_outputs(), scene.teacher_outputs()
    return scene.method(student, teacher, scene.target), student, teacher


@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("pixel_loss", ["kl", "soft"])
def test_the_final_map_teaches_all_outputs_but_the_deepest(geometry, regions, pixel_loss):
    scene = Scene(HLFD, geometry, regions=regions, teachers=2, pixel_maps="outputs", pixel_loss=pixel_loss)
    computed, student, teacher = terms(scene)
    temperature = 1.0 if pixel_loss == "soft" else 4.0
    late = teacher.probabilities(0, temperature, regions)
    mid = teacher.unified_probabilities((1,), temperature, regions)
    soft = SoftLabelLoss(recipe="paper", regions=regions, batch_dice=False)

    def distance(logits, p):
        if pixel_loss == "soft":
            return soft(logits, p)
        return kl_divergence(logits, p, temperature=temperature, regions=regions)

    *others, deepest = student.logits
    ipd = torch.stack([distance(logits, resize(late, logits.shape[2:])) for logits in others]).mean()
    torch.testing.assert_close(computed["ipd"], ipd)
    torch.testing.assert_close(computed["upd"], distance(resize(deepest, mid.shape[2:]), mid))
    assert not list(scene.method.parameters())


@pytest.mark.parametrize("pixel_maps", ["encoder", "decoder", "outputs"])
def test_every_output_that_is_taught_gets_a_gradient(pixel_maps):
    scene = Scene(HLFD, FLAT, pixel_maps=pixel_maps, pixel_loss="soft")
    computed, student, _ = terms(scene)
    (computed["upd"] + computed["ipd"]).backward()
    reached = [bool(gradient.any()) for gradient in gradients(student)[len(student.features) :]]
    first = {"encoder": len(reached), "decoder": 1, "outputs": 0}[pixel_maps]
    assert reached == [index >= first for index in range(len(reached))]


@pytest.mark.parametrize("pixel_loss", ["kl", "soft"])
def test_ignored_voxels_teach_nothing_where_they_shall_not(pixel_loss):
    scene = Scene(
        HLFD, FLAT, ignore=True, distill_ignored=False, pixel_maps="outputs", pixel_loss=pixel_loss, teachers=2
    )
    scene.ignore_everything()
    computed, student, _ = terms(scene)
    (computed["upd"] + computed["ipd"]).backward()
    assert [computed[name].item() for name in ("upd", "ipd")] == pytest.approx([0, 0], abs=1e-12)
    assert not any(gradient.any() for gradient in gradients(student))


@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_balanced_hlfd_is_hlfd_with_soft_labels_in_the_place_of_its_final_term(geometry, regions):
    settings = {"regions": regions, "pixel_maps": "outputs", "pixel_loss": "soft", "teacher_share": 0.25}
    balanced, plain, soft = (Scene(method, geometry, **settings) for method in (HLFDBalanced, HLFD, SoftLabel))
    computed, expected = terms(balanced)[0], terms(plain)[0]
    assert list(computed) == ["ufd", "ifd", "upd", "ipd"]
    for name in ("ufd", "ifd", "upd"):
        assert torch.equal(computed[name], expected[name])
    assert torch.equal(computed["ipd"], terms(soft)[0]["soft_label"])
    assert balanced.method.weights == {"ufd": 0.9, "ifd": 0.9, "upd": 0.1, "ipd": 0.25}
    assert balanced.method.segmentation_terms == {"ipd"}


@pytest.mark.parametrize("regions", KINDS)
def test_voxels_can_be_weighted_by_class(regions):
    scene = Scene(HLFD, FLAT, regions=regions, pixel_maps="outputs", voxel_weights="class")
    computed, student, teacher = terms(scene)
    late = teacher.probabilities(0, 4.0, regions)
    expected = []
    for logits in student.logits[:-1]:
        p = resize(late, logits.shape[2:])
        weights = class_weights(p, regions, None)
        expected.append(kl_divergence(logits, p, temperature=4.0, regions=regions, weights=weights))
    torch.testing.assert_close(computed["ipd"], torch.stack(expected).mean())
