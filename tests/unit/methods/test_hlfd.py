"""HLFD's four terms (Eq. 1-4) against the NumPy reference, their roles, limits and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import reference.attention
import reference.grids
import reference.hlfd
from method_scene import (
    CLASSES,
    FLAT,
    GEOMETRIES,
    KINDS,
    SOLID,
    TWIN,
    MethodLaws,
    Scene,
    assert_equal,
    convolution,
    gradients,
)

from nnunetv2_hlfd.distillation.method import Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.settings.settings import Settings

TERMS = ("ufd", "ifd", "upd", "ipd")
PIXEL_TERMS = TERMS[2:]
PIXEL_MAPS = ("encoder", "decoder")
PIXEL_GRIDS = ("tap", "image")


def taught_stages(geometry):
    return (geometry.early, *geometry.mids)


def reference_maps(scene):
    """Pixel logits in decoder order, deepest first: 1x1 heads on the taps, or the outputs below the first."""
    if scene.settings.pixel_maps == "decoder":
        return scene.student.logits[:0:-1]
    return [
        reference.grids.convolve_1x1(scene.student.features[stage], *convolution(scene.method.heads[str(stage)]))
        for stage in reversed(taught_stages(scene.geometry))
    ]


def teacher_maps(scene, teacher):
    """The encoder's maps, or the decoder's with the encoder's bottleneck."""
    if scene.settings.teacher_features == "encoder":
        return teacher.features
    return [*teacher.decoded, teacher.features[-1]]


def reference_terms(scene):
    settings, geometry = scene.settings, scene.geometry
    taps = scene.method.teacher_taps
    teachers = [
        reference.hlfd.Teacher(teacher_maps(scene, each), each.logits, taps.mids, taps.late, taps.heads)
        for each in scene.teachers
    ]
    features = reference.hlfd.feature_terms(
        scene.student.features, geometry.early, geometry.mids, teachers, settings.attention_exponent
    )
    pixels = reference.hlfd.pixel_terms(
        reference_maps(scene), teachers, settings.temperature, scene.regions, settings.pixel_grid, scene.left_out
    )
    return features | pixels


class TestHLFD(MethodLaws):
    method_class = HLFD
    variants = (
        {"pixel_maps": "decoder", "temperature": 1.0},
        {"pixel_maps": "decoder", "pixel_grid": "image", "attention_exponent": 2.0},
        {"pixel_grid": "image", "attention_exponent": 4.0},
        {"teacher_features": "decoder"},
    )
    masked = PIXEL_TERMS
    feature_level = TERMS[:2]

    def expected(self, scene):
        return reference_terms(scene)

    def count_adapters(self, geometry, teachers):
        """Weight and bias of a head for each stage."""
        return 2 * len(taught_stages(geometry))


# The equations


@pytest.mark.parametrize("pixel_grid", PIXEL_GRIDS)
@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_the_reference(geometry, regions, pixel_maps, pixel_grid):
    """With two of the teacher's intermediate outputs in p_mid."""
    scene = Scene(HLFD, geometry, regions=regions, pixel_maps=pixel_maps, pixel_grid=pixel_grid, heads=(1, 2))
    assert_equal(scene.terms(), reference_terms(scene), least=1e-3)


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_final_map_stands_in_for_missing_trained_heads(geometry, regions, teachers):
    scene = Scene(HLFD, geometry, regions=regions, heads=(), teachers=teachers)
    assert_equal(scene.terms(), reference_terms(scene))
    for teacher in scene.teachers:
        teacher.logits[1:] = [np.full_like(logits, np.nan) for logits in teacher.logits[1:]]
    assert all(term.isfinite() for term in scene.terms().values())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equal_teachers_teach_as_one(geometry):
    scene = Scene(HLFD, geometry)
    alone = scene.terms()
    scene.teachers *= 3
    assert_equal(scene.terms(), {name: term.item() for name, term in alone.items()})


# Roles


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_roles_of_the_stages_are_told(geometry):
    assert Scene(HLFD, geometry, heads=(1, 2)).method.roles() == Roles(
        student={geometry.early: "early"} | dict.fromkeys(geometry.mids, "mid"),
        teacher=dict.fromkeys(range(1, geometry.late), "mid") | {geometry.late: "late"},
        notes=["teacher's intermediate outputs for p_mid (0 is full resolution): 1, 2"],
    )


def test_missing_trained_heads_are_told():
    [note] = Scene(HLFD, FLAT, heads=()).method.roles().notes
    assert note.endswith("for p_mid (0 is full resolution): none, the final map instead")


@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_each_term_depends_on_the_tensors_of_its_roles_alone(geometry, pixel_maps):
    """UFD: the stem. IFD: the mids. UPD: the deepest pixel map. IPD: the shallower ones, the stem's included."""
    scene = Scene(HLFD, geometry, pixel_maps=pixel_maps)
    early, mids = geometry.early, set(geometry.mids)
    outputs = range(1, len(geometry.student) - 1)
    expected = {"ufd": ({early}, set()), "ifd": (mids, set())}
    if pixel_maps == "encoder":
        expected |= {"upd": ({max(mids)}, set()), "ipd": ({early, *mids} - {max(mids)}, set())}
    else:
        expected |= {"upd": (set(), {max(outputs)}), "ipd": (set(), set(outputs) - {max(outputs)})}
    for name in TERMS:
        student = scene.student_outputs()
        scene.terms(student)[name].backward()
        reached = tuple(
            {index for index, tensor in enumerate(maps) if tensor.grad is not None and tensor.grad.any()}
            for maps in (student.features, student.logits)
        )
        assert reached == expected[name], name


def test_weights_are_beta_and_lambda():
    weights = {"ufd": 1.8, "ifd": 1.8, "upd": 0.2, "ipd": 0.2}
    assert Scene(HLFD, FLAT, beta=1.8, lambda_=0.2).method.weights == weights
    assert Scene(HLFD, FLAT).method.weights == {"ufd": 0.9, "ifd": 0.9, "upd": 0.1, "ipd": 0.1}


@pytest.mark.parametrize(("geometry", "dimension"), [(FLAT, 2), (SOLID, 3)])
def test_the_adapters_are_one_1x1_head_for_each_tap(geometry, dimension):
    method = Scene(HLFD, geometry).method
    shapes = {name: tuple(parameter.shape) for name, parameter in method.named_parameters()}
    expected = {}
    for stage in taught_stages(geometry):
        expected[f"heads.{stage}.weight"] = (CLASSES, stage + geometry.student_channels, *(1,) * dimension)
        expected[f"heads.{stage}.bias"] = (CLASSES,)
    assert shapes == expected


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pixel_maps_of_the_decoder_need_no_adapters(geometry):
    assert not list(Scene(HLFD, geometry, pixel_maps="decoder").method.parameters())


def build(strides, **settings):
    stages = [Stage(channels=2, stride=(stride, stride)) for stride in strides]
    teacher = TeacherShape(stages=(), taps=TeacherTaps(mids=(1,), late=2, heads=()))
    return HLFD(stages, teacher, Task(num_heads=2, regions=False, dimension=2), Settings(**settings))


def test_a_student_with_three_stages_cannot_be_taught_at_its_decoder():
    with pytest.raises(ValueError, match="at least 4 stages") as error:
        build((1, 2, 4), pixel_maps="decoder")
    assert str(error.value) == (
        "Expected a student with at least 4 stages for pixel_maps=decoder (its intermediate outputs are "
        "taught), got 3. Use pixel_maps=encoder."
    )
    assert build((1, 2, 4), pixel_maps="encoder").taps.mids == (2,)
    assert build((1, 2, 4, 8), pixel_maps="decoder").taps.mids == (2, 3)


@pytest.mark.parametrize("strides", [(1, 2), (1, 1, 2), (1,)])
def test_a_student_without_a_stage_after_its_stem_is_refused(strides):
    with pytest.raises(
        ValueError, match="No usable stages in the student: expected at least two strided encoder stages"
    ):
        build(strides)


# Limits


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_ifd_is_0_where_the_students_mids_attend_as_the_teachers_late_stage(exponent):
    """Other channel counts, scales, signs and (here doubled) sizes do not matter."""
    scene = Scene(HLFD, replace(TWIN, student_channels=2), attention_exponent=exponent)
    late = scene.teachers[0].features[TWIN.late]
    attention = np.mean(np.abs(late) ** exponent, axis=1, keepdims=True) ** (1 / exponent)
    for stage in TWIN.mids:
        signs = np.where(np.arange(2 + stage) % 2, -1.0, 1.0).reshape(1, -1, 1, 1)
        scene.student.features[stage] = (stage + 1) * signs * attention.repeat(2, axis=2).repeat(2, axis=3)
    student = scene.student_outputs()
    ifd = scene.terms(student)["ifd"]
    ifd.backward()
    assert ifd.item() == pytest.approx(0, abs=1e-12)
    assert max(gradient.abs().max() for gradient in gradients(student)) < 1e-10


def test_ufd_is_0_where_the_students_stem_attends_as_the_teachers_middle_stages():
    scene = Scene(HLFD, TWIN)
    mids = scene.teachers[0].features[1 : TWIN.late]
    energy = reference.attention.concatenated_energy(mids, 1)[:, None]
    scene.student.features[TWIN.early] = 5 * energy.repeat(TWIN.student_channels + TWIN.early, axis=1)
    assert scene.terms()["ufd"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("regions", KINDS)
def test_pixel_terms_are_0_where_the_students_maps_equal_the_teachers(regions):
    scene = Scene(HLFD, TWIN, regions=regions, pixel_maps="decoder", heads=())
    constant = np.array([2.0, -1.0, 0.5]).reshape(1, CLASSES, 1, 1)
    for network in (scene.student, *scene.teachers):
        network.logits[:] = [np.broadcast_to(constant, logits.shape).copy() for logits in network.logits]
    terms = scene.terms()
    assert [terms[name].item() for name in PIXEL_TERMS] == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("pixel_grid", PIXEL_GRIDS)
@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
def test_pixel_terms_are_0_with_zero_gradient_where_everything_is_ignored(regions, pixel_maps, pixel_grid):
    settings = {"ignore": True, "distill_ignored": False, "pixel_maps": pixel_maps, "pixel_grid": pixel_grid}
    scene = Scene(HLFD, FLAT, regions=regions, **settings)
    scene.ignore_everything()
    student = scene.student_outputs()
    terms = scene.terms(student)
    sum(terms[name] for name in PIXEL_TERMS).backward()
    assert [terms[name].item() for name in PIXEL_TERMS] == [0, 0]
    assert not any(gradient.any() for gradient in gradients(student))
    assert not any(parameter.grad.any() for parameter in scene.method.parameters())


def test_a_student_stage_of_zeros_gives_distance_1():
    """A patch of background gives such stages: instance normalization turns a constant into exactly 0."""
    scene = Scene(HLFD, FLAT)
    for stage in taught_stages(FLAT):
        scene.student.features[stage][:] = 0
    terms = scene.terms()
    assert terms["ufd"].item() == pytest.approx(1)
    assert terms["ifd"].item() == pytest.approx(len(FLAT.mids))


@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
def test_a_gradient_step_on_the_student_lowers_every_term(regions, pixel_maps):
    scene = Scene(HLFD, FLAT, regions=regions, pixel_maps=pixel_maps)
    for name in TERMS:
        student = scene.student_outputs()
        term = scene.terms(student)[name]
        term.backward()
        tensors = [*student.features, *student.logits]
        moved = [
            (tensor - 0.05 * gradient).detach() for tensor, gradient in zip(tensors, gradients(student), strict=True)
        ]
        count = len(student.features)
        stepped = scene.terms(Outputs(features=moved[:count], logits=moved[count:]))
        assert stepped[name].item() < term.item(), name
