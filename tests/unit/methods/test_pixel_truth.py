"""The control of HLFD's pixel level against the NumPy reference: the annotation stands in for the teacher's maps."""

import numpy as np
import pytest
import reference.divergence
import reference.grids
import reference.hlfd
import torch
from method_scene import CLASSES, FLAT, GEOMETRIES, KINDS, MethodLaws, Scene, convolution

from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.methods.pixel_truth import PixelTruth


def one_hot(scene):
    """The annotation as probabilities, (B, C, *image), written voxel by voxel; what is ignored has no class."""
    target = scene.target.numpy()
    truth = np.zeros((len(target), CLASSES, *target.shape[2:]))
    for sample, channel, *voxel in np.ndindex(*truth.shape):
        if scene.ignored is not None and scene.ignored[(sample, 0, *voxel)]:
            continue
        here = (sample, channel if scene.regions else 0, *voxel)
        truth[(sample, channel, *voxel)] = target[here] if scene.regions else target[here] == channel
    return truth


def divergence(scene, logits, truth):
    """KL to the annotation at temperature 1 on the grid of the logits, ignored voxels left out."""
    size = logits.shape[2:]
    valid = None if scene.ignored is None else reference.grids.valid_cells(scene.ignored, size)
    return reference.divergence.kl_divergence(logits, reference.grids.resize(truth, size), 1.0, scene.regions, valid)


class TestPixelTruth(MethodLaws):
    method_class = PixelTruth
    variants = ({"temperature": 2.5, "attention_exponent": 2.0},)
    always_masked = ("upd", "ipd")
    feature_level = ("ufd", "ifd")

    def expected(self, scene):
        geometry, truth = scene.geometry, one_hot(scene)
        teachers = [
            reference.hlfd.Teacher(each.features, each.logits, tuple(range(1, geometry.late)), geometry.late, (1,))
            for each in scene.teachers
        ]
        exponent = scene.settings.attention_exponent
        features = reference.hlfd.feature_terms(
            scene.student.features, geometry.early, geometry.mids, teachers, exponent
        )
        maps = [
            reference.grids.convolve_1x1(scene.student.features[stage], *convolution(scene.method.heads[str(stage)]))
            for stage in (geometry.early, *geometry.mids)[::-1]
        ]
        upd = divergence(scene, reference.grids.resize(maps[0], scene.teachers[0].logits[1].shape[2:]), truth)
        ipd = sum(divergence(scene, each, truth) for each in maps[1:]) / len(maps[1:])
        return {**features, "upd": upd, "ipd": ipd}

    def count_adapters(self, geometry, teachers):
        return 2 * (1 + len(geometry.mids))


@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_teachers_outputs_do_not_matter_its_stages_do(geometry, regions):
    scene = Scene(PixelTruth, geometry, regions=regions, teachers=2)
    before = scene.terms()
    for network in scene.teachers:
        for logits in network.logits:
            logits[:] = scene.random.normal(size=logits.shape)
        for features in network.features:
            features[:] = scene.random.normal(size=features.shape)
    after = scene.terms()
    assert [name for name in before if before[name] != after[name]] == ["ufd", "ifd"]


@pytest.mark.parametrize("regions", KINDS)
def test_it_is_hlfd_taught_by_a_teacher_that_is_certain_of_the_truth(regions):
    """At temperature 1, with full-resolution logits of the truth times a large number, on the image's own grid."""
    scene = Scene(HLFD, FLAT, regions=regions, temperature=1.0)
    certain = 60 * (2 * one_hot(scene) - 1)
    scene.teachers[0].logits[0][:] = certain
    scene.teachers[0].logits[1] = certain
    control = Scene(PixelTruth, FLAT, regions=regions, temperature=1.0)
    control.teachers, control.student = scene.teachers, scene.student
    taught, truth = scene.terms(), control.terms()
    for name in ("upd", "ipd"):
        assert truth[name].item() == pytest.approx(taught[name].item(), rel=1e-9)


def test_temperature_and_distill_ignored_of_the_settings_are_the_teachers_business():
    scenes = [
        Scene(PixelTruth, FLAT, ignore=True, temperature=temperature, distill_ignored=distill)
        for temperature, distill in ((1.0, False), (4.0, True))
    ]
    terms = [scene.terms() for scene in scenes]
    assert terms[0] == terms[1]


def test_title_weights_and_trainer():
    method = Scene(PixelTruth, FLAT, beta=7.0, lambda_=3.0).method
    assert method.title == "HLFD with ground truth for pixel maps"
    assert method.weights == {"ufd": 7.0, "ifd": 7.0, "upd": 3.0, "ipd": 3.0}
    assert find_method("HLFD_pixelTruth") is PixelTruth
    assert torch.equal(*(Scene(each, FLAT).method.heads["2"].weight for each in (PixelTruth, HLFD)))
