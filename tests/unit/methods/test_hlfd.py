"""HLFD's four terms (Eq. 1-4) against the NumPy reference, their limits and their gradients."""

from dataclasses import dataclass

import numpy as np
import pytest
import reference_losses as reference
import torch

from nnunetv2_hlfd.distillation.method import Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.settings.settings import Settings

TERMS = ("ufd", "ifd", "upd", "ipd")
FEATURE_TERMS, PIXEL_TERMS = TERMS[:2], TERMS[2:]
CLASSES = 3
IGNORE = 3
PIXEL_MAPS = ("encoder", "decoder")
PIXEL_GRIDS = ("tap", "image")
KINDS = [pytest.param(False, id="labels"), pytest.param(True, id="regions")]


@dataclass(frozen=True)
class Geometry:
    """Sizes of both encoders' maps, highest resolution first, and the roles that follow from them.

    A network with n stages has n - 1 outputs, on the grids of its first n - 1 stages.
    """

    student: tuple
    student_strides: tuple
    early: int
    mids: tuple
    teacher: tuple
    teacher_mids: tuple
    late: int
    heads: tuple

    @property
    def image(self):
        return self.teacher[0]


FLAT = Geometry(
    student=((16, 12), (8, 6), (4, 6), (4, 3), (2, 3)),
    student_strides=((1, 1), (2, 2), (4, 2), (4, 4), (8, 4)),
    early=1,
    mids=(2, 3, 4),
    teacher=((16, 12), (8, 12), (8, 6), (4, 6), (4, 3), (2, 3), (1, 3)),
    teacher_mids=(1, 2, 3),
    late=4,
    heads=(1, 2, 3, 4),
)
DEEP_STUDENT = Geometry(  # six stages: the last is no mid, at most three are
    student=((16, 16), (8, 8), (4, 4), (2, 2), (1, 1), (1, 1)),
    student_strides=((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32)),
    early=1,
    mids=(2, 3, 4),
    teacher=((16, 16), (8, 8), (4, 4), (2, 2)),
    teacher_mids=(1, 2),
    late=3,
    heads=(1,),
)
UNEVEN = Geometry(  # sizes that do not divide each other; the teacher's late map is larger than the student's mids
    student=((11, 9), (11, 9), (5, 7), (4, 3), (2, 2)),
    student_strides=((1, 1), (1, 1), (2, 1), (3, 3), (6, 6)),
    early=2,
    mids=(3, 4),
    teacher=((11, 9), (7, 5), (6, 6), (5, 4), (3, 2)),
    teacher_mids=(1, 2),
    late=3,
    heads=(1, 2),
)
SOLID = Geometry(  # anisotropic: the first strides leave the slices alone
    student=((4, 8, 8), (4, 4, 4), (2, 2, 2), (1, 2, 2)),
    student_strides=((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 4, 4)),
    early=1,
    mids=(2, 3),
    teacher=((4, 8, 8), (4, 4, 4), (4, 2, 2), (2, 2, 2), (1, 1, 1)),
    teacher_mids=(1, 2),
    late=3,
    heads=(1, 2),
)
GEOMETRIES = [
    pytest.param(FLAT, id="2d"),
    pytest.param(DEEP_STUDENT, id="2d-deep-student"),
    pytest.param(UNEVEN, id="2d-uneven"),
    pytest.param(SOLID, id="3d-anisotropic"),
]


class Scene:
    """A batch of random student and teacher tensors in float64, HLFD on them, and the reference's terms."""

    def __init__(self, geometry, *, regions=False, ignore=False, teachers=1, heads=None, seed=0, **settings):
        self.random = np.random.default_rng(seed)
        self.geometry, self.regions = geometry, regions
        self.settings = Settings(**settings)
        self.heads = geometry.heads if heads is None else heads
        self.channels = [index + 2 for index in range(len(geometry.student))]
        self.student = self._features(geometry.student, self.channels), self._logits(geometry.student)
        self.teachers = [
            (self._features(geometry.teacher, range(5, 5 + len(geometry.teacher))), self._logits(geometry.teacher))
            for _ in range(teachers)
        ]
        self.ignored = self.random.random((2, 1, *geometry.image)) < 0.1 if ignore else None
        self.target = self._target(ignore)
        taps = TeacherTaps(mids=geometry.teacher_mids, late=geometry.late, heads=self.heads)
        stages = tuple(Stage(channels=5 + i, stride=(1,) * len(geometry.image)) for i in range(len(geometry.teacher)))
        self.shape = TeacherShape(stages=stages, taps=taps, networks=teachers)
        self.method = self._build()

    def _features(self, sizes, channels):
        return [self.random.normal(size=(2, c, *size)) for c, size in zip(channels, sizes, strict=True)]

    def _logits(self, sizes):
        return [self.random.normal(scale=3, size=(2, CLASSES, *size)) for size in sizes[:-1]]

    def _target(self, ignore):
        if self.regions:
            truth = self.random.random((2, CLASSES, *self.geometry.image)) < 0.4
            return torch.from_numpy(np.concatenate([truth, self.ignored], axis=1) if ignore else truth)
        truth = self.random.integers(0, CLASSES, (2, 1, *self.geometry.image))
        return torch.from_numpy(np.where(self.ignored, IGNORE, truth) if ignore else truth)

    def _build(self):
        stages = [
            Stage(channels=channels, stride=stride)
            for channels, stride in zip(self.channels, self.geometry.student_strides, strict=True)
        ]
        task = Task(
            num_heads=CLASSES,
            regions=self.regions,
            dimension=len(self.geometry.image),
            ignore_label=None if self.ignored is None else IGNORE,
        )
        torch.manual_seed(0)
        return HLFD(stages, self.shape, task, self.settings).double()

    def student_outputs(self, dtype=torch.float64, gradient=False, order=(0, 1)):
        tensors = [
            [torch.from_numpy(each[list(order)]).to(dtype).requires_grad_(gradient) for each in maps]
            for maps in self.student
        ]
        return Outputs(features=tensors[0], logits=tensors[1])

    def teacher_outputs(self, dtype=torch.float64, order=(0, 1)):
        networks = [
            Outputs(
                features=[torch.from_numpy(each[list(order)]).to(dtype) for each in features],
                logits=[torch.from_numpy(each[list(order)]).to(dtype) for each in logits],
            )
            for features, logits in self.teachers
        ]
        return TeacherOutputs(networks=networks)

    def terms(self, student=None):
        return self.method(student or self.student_outputs(), self.teacher_outputs(), self.target)

    def reference_pixel_maps(self):
        """Pixel logits in decoder order, deepest first: 1x1 heads on the taps, or the outputs below the first."""
        features, logits = self.student
        if self.settings.pixel_maps == "decoder":
            return logits[:0:-1]
        maps = []
        for stage in (*self.geometry.mids[::-1], self.geometry.early):
            head = self.method.heads[str(stage)]
            weight = head.weight.detach().numpy().reshape(CLASSES, self.channels[stage])
            maps.append(reference.convolve_1x1(features[stage], weight, head.bias.detach().numpy()))
        return maps

    def reference_terms(self):
        settings, geometry = self.settings, self.geometry
        teachers = [
            reference.Teacher(features, logits, geometry.teacher_mids, geometry.late, self.heads)
            for features, logits in self.teachers
        ]
        return reference.hlfd_feature_terms(
            self.student[0], geometry.early, geometry.mids, teachers, settings.attention_exponent
        ) | reference.hlfd_pixel_terms(
            self.reference_pixel_maps(),
            teachers,
            settings.temperature,
            self.regions,
            settings.pixel_grid,
            None if settings.distill_ignored else self.ignored,
        )


def assert_equals_reference(scene):
    computed, expected = scene.terms(), scene.reference_terms()
    assert set(computed) == set(expected) == set(TERMS)
    for name in TERMS:
        assert computed[name].shape == ()
        assert computed[name].item() == pytest.approx(expected[name], rel=1e-10), name
        assert expected[name] > 1e-3


def used_features(scene):
    return [scene.geometry.early, *scene.geometry.mids]


# The equations


@pytest.mark.parametrize("pixel_grid", PIXEL_GRIDS)
@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_the_reference(geometry, regions, pixel_maps, pixel_grid):
    assert_equals_reference(Scene(geometry, regions=regions, pixel_maps=pixel_maps, pixel_grid=pixel_grid))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_attention_exponent(geometry, exponent):
    assert_equals_reference(Scene(geometry, attention_exponent=exponent))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_temperature(geometry, regions, temperature):
    assert_equals_reference(Scene(geometry, regions=regions, temperature=temperature))


@pytest.mark.parametrize("pixel_grid", PIXEL_GRIDS)
@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("distill_ignored", [True, False])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", [FLAT, UNEVEN, SOLID], ids=["2d", "2d-uneven", "3d-anisotropic"])
def test_ignore_label(geometry, regions, distill_ignored, pixel_maps, pixel_grid):
    scene = Scene(
        geometry,
        regions=regions,
        ignore=True,
        distill_ignored=distill_ignored,
        pixel_maps=pixel_maps,
        pixel_grid=pixel_grid,
    )
    assert_equals_reference(scene)


@pytest.mark.parametrize("teachers", [2, 3])
@pytest.mark.parametrize("exponent", [1.0, 4.0])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_several_teachers_are_averaged(geometry, regions, exponent, teachers):
    """Probabilities are averaged, attention maps are averaged and normalized again."""
    assert_equals_reference(Scene(geometry, regions=regions, attention_exponent=exponent, teachers=teachers))


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_final_map_stands_in_for_missing_trained_heads(geometry, regions, teachers):
    scene = Scene(geometry, regions=regions, heads=(), teachers=teachers)
    assert_equals_reference(scene)
    for _, logits in scene.teachers:
        logits[1:] = [np.full_like(each, np.nan) for each in logits[1:]]
    assert all(term.isfinite() for term in scene.terms().values())


# Roles


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_roles_of_the_stages_are_told(geometry):
    heads = ", ".join(map(str, geometry.heads))
    assert Scene(geometry).method.roles() == Roles(
        student={geometry.early: "early"} | dict.fromkeys(geometry.mids, "mid"),
        teacher=dict.fromkeys(geometry.teacher_mids, "mid") | {geometry.late: "late"},
        notes=[f"teacher's intermediate outputs for p_mid (0 is full resolution): {heads}"],
    )


def test_missing_trained_heads_are_told():
    [note] = Scene(FLAT, heads=()).method.roles().notes
    assert note.endswith("for p_mid (0 is full resolution): none, the final map instead")


@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_each_term_depends_on_the_tensors_of_its_roles_alone(geometry, pixel_maps):
    """UFD: the stem. IFD: the mids. UPD: the deepest pixel map. IPD: the shallower ones, the stem's included."""
    scene = Scene(geometry, pixel_maps=pixel_maps)
    early, mids = geometry.early, set(geometry.mids)
    outputs = range(1, len(geometry.student) - 1)
    expected = {"ufd": ({early}, set()), "ifd": (mids, set())}
    if pixel_maps == "encoder":
        expected |= {"upd": ({max(mids)}, set()), "ipd": ({early, *mids} - {max(mids)}, set())}
    else:
        expected |= {"upd": (set(), {max(outputs)}), "ipd": (set(), set(outputs) - {max(outputs)})}
    for name in TERMS:
        student = scene.student_outputs(gradient=True)
        scene.terms(student)[name].backward()
        reached = tuple(
            {index for index, each in enumerate(maps) if each.grad is not None and each.grad.any()}
            for maps in (student.features, student.logits)
        )
        assert reached == expected[name], name


def test_weights_are_beta_and_lambda():
    assert Scene(FLAT, beta=1.8, lambda_=0.2).method.weights == {"ufd": 1.8, "ifd": 1.8, "upd": 0.2, "ipd": 0.2}
    assert Scene(FLAT).method.weights == {"ufd": 0.9, "ifd": 0.9, "upd": 0.1, "ipd": 0.1}


@pytest.mark.parametrize("weights", [{}, {"beta": 0.0, "lambda_": 0.0}, {"beta": 7.0}])
def test_terms_are_not_weighted(weights):
    assert_equals_reference(Scene(FLAT, **weights))


@pytest.mark.parametrize(("geometry", "dimension"), [(FLAT, 2), (SOLID, 3)])
def test_the_adapters_are_one_1x1_head_for_each_tap(geometry, dimension):
    method = Scene(geometry).method
    shapes = {name: tuple(each.shape) for name, each in method.named_parameters()}
    expected = {}
    for stage in (geometry.early, *geometry.mids):
        expected[f"heads.{stage}.weight"] = (CLASSES, stage + 2, *(1,) * dimension)
        expected[f"heads.{stage}.bias"] = (CLASSES,)
    assert shapes == expected


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pixel_maps_of_the_decoder_need_no_adapters(geometry):
    assert not list(Scene(geometry, pixel_maps="decoder").method.parameters())


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
    scene = Scene(DEEP_STUDENT, attention_exponent=exponent)
    late = scene.teachers[0][0][DEEP_STUDENT.late]
    attention = np.mean(np.abs(late) ** exponent, axis=1, keepdims=True) ** (1 / exponent)
    for stage in DEEP_STUDENT.mids:
        signs = np.where(np.arange(scene.channels[stage]) % 2, -1.0, 1.0).reshape(1, -1, 1, 1)
        scene.student[0][stage] = (stage + 1) * signs * attention.repeat(2, axis=2).repeat(2, axis=3)
    student = scene.student_outputs(gradient=True)
    ifd = scene.terms(student)["ifd"]
    ifd.backward()
    assert ifd.item() == pytest.approx(0, abs=1e-12)
    assert all(student.features[stage].grad.abs().max() < 1e-10 for stage in DEEP_STUDENT.mids)


def test_ufd_is_0_where_the_students_stem_attends_as_the_teachers_middle_stages():
    scene = Scene(DEEP_STUDENT)
    mids = [scene.teachers[0][0][stage] for stage in DEEP_STUDENT.teacher_mids]
    scene.student[0][DEEP_STUDENT.early] = 5 * reference.concatenated_energy(mids, 1)[:, None].repeat(3, axis=1)
    assert scene.terms()["ufd"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("regions", KINDS)
def test_pixel_terms_are_0_where_the_students_maps_equal_the_teachers(regions):
    scene = Scene(DEEP_STUDENT, regions=regions, pixel_maps="decoder", heads=())
    constant = np.array([2.0, -1.0, 0.5]).reshape(1, CLASSES, 1, 1)
    for logits in (scene.student[1], scene.teachers[0][1]):
        logits[:] = [np.broadcast_to(constant, each.shape).copy() for each in logits]
    terms = scene.terms()
    assert [terms[name].item() for name in PIXEL_TERMS] == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("pixel_grid", PIXEL_GRIDS)
@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
def test_pixel_terms_are_0_with_zero_gradient_where_everything_is_ignored(regions, pixel_maps, pixel_grid):
    scene = Scene(
        FLAT, regions=regions, ignore=True, distill_ignored=False, pixel_maps=pixel_maps, pixel_grid=pixel_grid
    )
    expected = scene.reference_terms()
    scene.target = torch.ones_like(scene.target) if regions else torch.full_like(scene.target, IGNORE)
    student = scene.student_outputs(gradient=True)
    terms = scene.terms(student)
    sum(terms[name] for name in PIXEL_TERMS).backward()
    assert [terms[name].item() for name in PIXEL_TERMS] == [0, 0]
    reached = [each.grad for each in (*student.features, *student.logits, *scene.method.parameters())]
    reached = [each for each in reached if each is not None]
    assert reached
    assert not any(each.any() for each in reached)
    assert [terms[name].item() for name in FEATURE_TERMS] == pytest.approx([expected[name] for name in FEATURE_TERMS])


@pytest.mark.parametrize("regions", KINDS)
def test_without_an_ignore_label_the_target_does_not_matter(regions):
    scene = Scene(FLAT, regions=regions, distill_ignored=False)
    before = scene.terms()
    scene.target = torch.ones_like(scene.target)
    after = scene.terms()
    assert {name: each.item() for name, each in before.items()} == {name: each.item() for name, each in after.items()}


@pytest.mark.parametrize("distill_ignored", [True, False])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_order_of_the_batch_does_not_matter(geometry, regions, distill_ignored):
    scene = Scene(geometry, regions=regions, ignore=True, distill_ignored=distill_ignored, teachers=2)
    terms = scene.terms()
    swapped = scene.method(
        scene.student_outputs(order=(1, 0)), scene.teacher_outputs(order=(1, 0)), scene.target[[1, 0]]
    )
    for name in TERMS:
        assert swapped[name].item() == pytest.approx(terms[name].item(), rel=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equal_teachers_teach_as_one(geometry):
    scene = Scene(geometry)
    alone = scene.terms()
    scene.teachers *= 3
    together = scene.terms()
    for name in TERMS:
        assert together[name].item() == pytest.approx(alone[name].item(), rel=1e-12)


# Gradients


@pytest.mark.parametrize("pixel_grid", PIXEL_GRIDS)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_reach_every_head_and_every_tap_of_the_student(geometry, regions, pixel_grid):
    scene = Scene(geometry, regions=regions, pixel_grid=pixel_grid)
    student = scene.student_outputs(gradient=True)
    sum(scene.terms(student).values()).backward()
    assert len(list(scene.method.parameters())) == 2 * len(used_features(scene))
    for parameter in scene.method.parameters():
        assert parameter.grad.any()
    for stage in used_features(scene):
        for sample in student.features[stage].grad:
            assert sample.any()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_reach_every_intermediate_output_of_the_student(geometry):
    scene = Scene(geometry, pixel_maps="decoder")
    student = scene.student_outputs(gradient=True)
    sum(scene.terms(student).values()).backward()
    assert student.logits[0].grad is None
    assert all(each.grad.any() for each in student.logits[1:])


@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
def test_the_teachers_side_carries_no_graph(pixel_maps):
    """With a student that needs no gradient nothing does, and the teachers' tensors are left as they came."""
    scene = Scene(FLAT, pixel_maps=pixel_maps, teachers=2)
    scene.method.requires_grad_(False)
    assert not any(each.requires_grad for each in scene.terms().values())
    scene.method.requires_grad_(True)
    teacher = scene.teacher_outputs()
    before = [each.clone() for network in teacher.networks for each in (*network.features, *network.logits)]
    sum(scene.method(scene.student_outputs(gradient=True), teacher, scene.target).values()).backward()
    after = [each for network in teacher.networks for each in (*network.features, *network.logits)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert not any(each.requires_grad or each.grad is not None for each in after)


@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
def test_a_gradient_step_on_the_student_lowers_every_term(regions, pixel_maps):
    scene = Scene(FLAT, regions=regions, pixel_maps=pixel_maps)
    for name in TERMS:
        student = scene.student_outputs(gradient=True)
        term = scene.terms(student)[name]
        term.backward()
        moved = Outputs(
            **{
                kind: [
                    each.detach() - (0 if each.grad is None else 0.05 * each.grad) for each in getattr(student, kind)
                ]
                for kind in ("features", "logits")
            }
        )
        assert scene.terms(moved)[name].item() < term.item(), name


@pytest.mark.parametrize("exponent", [1.0, 4.0])
@pytest.mark.parametrize("pixel_maps", PIXEL_MAPS)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_finite_terms_and_gradients(dtype, regions, pixel_maps, exponent):
    """Close to float64; and with the largest numbers of float16 in features and logits still finite."""
    scene = Scene(FLAT, regions=regions, pixel_maps=pixel_maps, attention_exponent=exponent, ignore=True)
    expected = scene.reference_terms()
    scene.method.float()
    for largest in (None, 6e4):
        student, teachers = scene.student_outputs(dtype), scene.teacher_outputs(dtype)
        if largest:
            for each in (student, *teachers.networks):
                for maps in (*each.features, *each.logits):
                    maps[0, 0] *= largest / maps[0, 0].abs().max()
        for maps in (*student.features, *student.logits):
            maps.requires_grad_()
        terms = scene.method(student, teachers, scene.target)
        sum(terms.values()).backward()
        gradients = [each.grad for each in (*student.features, *student.logits) if each.grad is not None]
        assert gradients
        assert all(each.isfinite().all() for each in gradients)
        for name in TERMS:
            assert terms[name].dtype == torch.float32
            assert terms[name].isfinite()
            if not largest:
                assert terms[name].item() == pytest.approx(expected[name], rel=0.02), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_agrees_with_the_reference(dtype):
    for geometry in (FLAT, UNEVEN, SOLID):
        scene = Scene(geometry)
        expected = scene.reference_terms()
        scene.method.to(dtype)
        terms = scene.method(scene.student_outputs(dtype), scene.teacher_outputs(dtype), scene.target)
        for name in TERMS:
            assert terms[name].dtype == dtype
            assert terms[name].item() == pytest.approx(expected[name], rel=1e-5), name


def test_a_student_stage_of_zeros_gives_distance_1_and_finite_gradients():
    """A patch of background gives such stages: instance normalization turns a constant into exactly 0."""
    scene = Scene(FLAT)
    for stage in used_features(scene):
        scene.student[0][stage][:] = 0
    student = scene.student_outputs(gradient=True)
    terms = scene.terms(student)
    sum(terms.values()).backward()
    assert terms["ufd"].item() == pytest.approx(1)
    assert terms["ifd"].item() == pytest.approx(len(FLAT.mids))
    assert all(student.features[stage].grad.isfinite().all() for stage in used_features(scene))
    assert all(parameter.grad.isfinite().all() for parameter in scene.method.parameters())


TINY = Geometry(
    student=((4, 3), (3, 2), (2, 2), (1, 2)),
    student_strides=((1, 1), (2, 2), (4, 4), (8, 8)),
    early=1,
    mids=(2, 3),
    teacher=((4, 3), (3, 3), (2, 2), (2, 1)),
    teacher_mids=(1, 2),
    late=3,
    heads=(1,),
)
TINY_SOLID = Geometry(
    student=((2, 4, 2), (2, 2, 1), (1, 2, 1)),
    student_strides=((1, 1, 1), (1, 2, 2), (2, 4, 4)),
    early=1,
    mids=(2,),
    teacher=((2, 4, 2), (2, 2, 2), (1, 2, 1)),
    teacher_mids=(1,),
    late=2,
    heads=(),
)


@pytest.mark.parametrize(("exponent", "pixel_grid"), [(1.0, "tap"), (4.0, "image")])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", [TINY, TINY_SOLID], ids=["2d", "3d"])
def test_gradcheck_of_all_terms(geometry, regions, exponent, pixel_grid):
    """Each channel keeps one sign, so that no resized value comes near 0, where |z| has a kink."""
    scene = Scene(
        geometry,
        regions=regions,
        ignore=True,
        distill_ignored=False,
        attention_exponent=exponent,
        pixel_grid=pixel_grid,
    )
    stages = used_features(scene)
    taps = []
    for stage in stages:
        tap = 0.5 + torch.from_numpy(np.abs(scene.student[0][stage]))
        tap[:, 0] *= -1
        taps.append(tap.requires_grad_())
    others = scene.student_outputs()

    def terms(*values):
        features = list(others.features)
        for stage, value in zip(stages, values, strict=True):
            features[stage] = value
        return tuple(scene.terms(Outputs(features=features, logits=others.logits))[name] for name in TERMS)

    assert torch.autograd.gradcheck(terms, tuple(taps))
