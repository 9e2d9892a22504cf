"""A distillation method on a batch of random student and teacher tensors, and the laws that all methods keep."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from nnunetv2_hlfd.distillation.method import Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import attention_request, heads_request
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.stored.checks import STORABLE

CLASSES = 3
IGNORE = 3
LARGE = 6e4  # close to the largest number of float16
KINDS = [pytest.param(False, id="labels"), pytest.param(True, id="regions")]
IGNORING = [
    pytest.param({}, id="no-ignore-label"),
    pytest.param({"ignore": True, "distill_ignored": True}, id="distill-ignored"),
    pytest.param({"ignore": True, "distill_ignored": False}, id="leave-ignored-out"),
]


@dataclass(frozen=True)
class Geometry:
    """Sizes and total strides of both encoders' maps, highest resolution first, and what follows from them by hand.

    A network with n stages has n - 1 outputs, on the grids of its first n - 1 stages. `pairs` are the student's
    strided stages with the teacher's nearest in stride, `late_partner` is the student's stage nearest to the teacher's
    late one.
    """

    student: tuple
    student_strides: tuple
    early: int
    mids: tuple
    late_partner: int
    teacher: tuple
    teacher_strides: tuple
    late: int
    pairs: tuple
    student_channels: int = 2
    teacher_channels: int = 5

    @property
    def image(self):
        return self.teacher[0]

    @property
    def low(self):
        return self.early, dict(self.pairs)[self.early]

    @property
    def high(self):
        return self.late_partner, self.late


FLAT = Geometry(
    student=((16, 12), (8, 6), (4, 6), (4, 3), (2, 3), (1, 3)),
    student_strides=((1, 1), (2, 2), (4, 2), (4, 4), (8, 4), (16, 4)),
    early=1,
    mids=(2, 3, 4),
    late_partner=3,
    teacher=((16, 12), (8, 12), (8, 6), (4, 6), (4, 3), (2, 3), (1, 3)),
    teacher_strides=((1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4), (16, 4)),
    late=4,
    pairs=((1, 2), (2, 3), (3, 4), (4, 5), (5, 6)),
)
UNEVEN = Geometry(  # sizes and strides that do not divide each other; stride 2x1 is as near to 1x1 as to 2x2
    student=((11, 9), (11, 9), (5, 7), (4, 3), (2, 2)),
    student_strides=((1, 1), (1, 1), (2, 1), (3, 3), (6, 6)),
    early=2,
    mids=(3, 4),
    late_partner=4,
    teacher=((11, 9), (7, 5), (6, 6), (5, 4), (3, 2)),
    teacher_strides=((1, 1), (2, 2), (4, 4), (8, 4), (8, 8)),
    late=3,
    pairs=((2, 0), (3, 2), (4, 4)),
)
SOLID = Geometry(  # anisotropic: the first strides leave the slices alone; two student stages share a teacher's
    student=((4, 8, 8), (4, 4, 4), (2, 2, 2), (1, 2, 2)),
    student_strides=((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 4, 4)),
    early=1,
    mids=(2, 3),
    late_partner=2,
    teacher=((4, 8, 8), (4, 4, 4), (4, 2, 2), (2, 3, 4), (1, 1, 1)),
    teacher_strides=((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 4, 4), (4, 8, 8)),
    late=3,
    pairs=((1, 1), (2, 3), (3, 3)),
)
TWIN = Geometry(  # the student's maps can equal the teacher's
    student=((8, 8), (4, 4), (4, 2), (2, 2)),
    student_strides=((1, 1), (2, 2), (2, 4), (4, 4)),
    early=1,
    mids=(2, 3),
    late_partner=3,
    teacher=((8, 8), (4, 4), (4, 2), (2, 2)),
    teacher_strides=((1, 1), (2, 2), (2, 4), (4, 4)),
    late=3,
    pairs=((1, 1), (2, 2), (3, 3)),
    student_channels=4,
    teacher_channels=4,
)
TINY = Geometry(
    student=((4, 3), (3, 2), (2, 2)),
    student_strides=((1, 1), (2, 2), (4, 4)),
    early=1,
    mids=(2,),
    late_partner=2,
    teacher=((4, 3), (3, 3), (2, 2)),
    teacher_strides=((1, 1), (2, 2), (4, 4)),
    late=2,
    pairs=((1, 1), (2, 2)),
    teacher_channels=2,
)
TINY_SOLID = replace(
    TINY,
    student=((2, 4, 2), (2, 2, 1), (1, 2, 1)),
    student_strides=((1, 1, 1), (1, 2, 2), (2, 4, 4)),
    teacher=((2, 4, 2), (2, 2, 2), (1, 2, 1)),
    teacher_strides=((1, 1, 1), (1, 2, 2), (2, 4, 4)),
)
GEOMETRIES = [
    pytest.param(FLAT, id="2d"),
    pytest.param(UNEVEN, id="2d-uneven"),
    pytest.param(SOLID, id="3d-anisotropic"),
]


@dataclass
class Network:
    """Encoder maps and logits of one network, highest resolution first."""

    features: list
    logits: list
    decoded: list = field(default_factory=list)  # of the decoder, on the grids of the features but the last

    def tensors(self, dtype, order=(0, 1)):
        return [
            [torch.from_numpy(each[list(order)]).to(dtype) for each in maps] for maps in (self.features, self.logits)
        ]


class Scene:
    """A batch of two in float64, the method on it, and the arrays that the reference needs."""

    def __init__(
        self,
        method_class,
        geometry,
        *,
        regions=False,
        ignore=False,
        teachers=1,
        batch_dice=False,
        output_weights=None,
        heads=(1,),
        seed=0,
        **settings,
    ):
        self.random, self.decoder_random = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        self.geometry, self.regions, self.settings = geometry, regions, Settings(**settings)
        self.student = self._network(geometry.student, geometry.student_channels)
        self.teachers = [self._network(geometry.teacher, geometry.teacher_channels) for _ in range(teachers)]
        self.ignored = self._ignored() if ignore else None
        self.target = self._target()
        self.batch_dice, self.output_weights = batch_dice, output_weights or self._output_weights()
        taps = TeacherTaps(mids=tuple(range(1, geometry.late)), late=geometry.late, heads=heads)
        task = Task(
            num_heads=CLASSES,
            regions=regions,
            dimension=len(geometry.image),
            ignore_label=IGNORE if ignore else None,
            batch_dice=batch_dice,
            output_weights=self.output_weights,
        )
        shape = TeacherShape(
            stages=self._stages(self.teachers[0], geometry.teacher_strides), taps=taps, networks=teachers
        )
        torch.manual_seed(0)
        self.method = method_class(
            self._stages(self.student, geometry.student_strides), shape, task, self.settings
        ).double()

    @property
    def left_out(self):
        """Voxels that masked terms leave out, if any."""
        return None if self.settings.distill_ignored else self.ignored

    @property
    def teacher_features(self):
        return [each.features for each in self.teachers]

    @property
    def teacher_logits(self):
        """Final maps of the teacher networks."""
        return [each.logits[0] for each in self.teachers]

    def ignore_everything(self):
        self.ignored = np.ones_like(self.ignored)
        self.target = torch.ones_like(self.target) if self.regions else torch.full_like(self.target, IGNORE)

    def student_becomes_the_teacher(self):
        [teacher] = self.teachers
        self.student.features[:] = [each.copy() for each in teacher.features]
        self.student.logits[:] = [each.copy() for each in teacher.logits]

    def student_outputs(self, dtype=torch.float64, order=(0, 1)):
        """Student tensors with gradient."""
        features, logits = self.student.tensors(dtype, order)
        for each in (*features, *logits):
            each.requires_grad_()
        return Outputs(features=features, logits=logits)

    def teacher_outputs(self, dtype=torch.float64, order=(0, 1)):
        def outputs(network):
            features, logits = network.tensors(dtype, order)
            decoded = [torch.from_numpy(each[list(order)]).to(dtype) for each in network.decoded]
            return Outputs(features=features, logits=logits, decoded=decoded)

        return TeacherOutputs(networks=[outputs(network) for network in self.teachers])

    def terms(self, student=None, dtype=torch.float64):
        return self.method(student or self.student_outputs(dtype), self.teacher_outputs(dtype), self.target)

    def _network(self, sizes, channels):
        return Network(
            features=[self.random.normal(size=(2, channels + i, *size)) for i, size in enumerate(sizes)],
            logits=[self.random.normal(scale=3, size=(2, CLASSES, *size)) for size in sizes[:-1]],
            decoded=[self.decoder_random.normal(size=(2, channels + i, *size)) for i, size in enumerate(sizes[:-1])],
        )

    def _output_weights(self):
        """As nnU-Net's: half as much for each coarser output, nothing for the coarsest of several, 1 in all."""
        weights = [1 / 2**index for index in range(len(self.student.logits))]
        if len(weights) > 1:
            weights[-1] = 0.0
        return tuple(weight / sum(weights) for weight in weights)

    def _stages(self, network, strides):
        return tuple(
            Stage(channels=maps.shape[1], stride=stride) for maps, stride in zip(network.features, strides, strict=True)
        )

    def _ignored(self):
        """Voxels in one half of each sample; coarse cells in the other half stay valid."""
        ignored = self.random.random((2, 1, *self.geometry.image)) < 0.2
        middle = self.geometry.image[-1] // 2
        ignored[0, ..., middle:] = False
        ignored[1, ..., : middle + 1] = False
        return ignored

    def _target(self):
        if self.regions:
            truth = self.random.random((2, CLASSES, *self.geometry.image)) < 0.4
            return torch.from_numpy(truth if self.ignored is None else np.concatenate([truth, self.ignored], axis=1))
        truth = self.random.integers(0, CLASSES, (2, 1, *self.geometry.image))
        return torch.from_numpy(truth if self.ignored is None else np.where(self.ignored, IGNORE, truth))


@dataclass(frozen=True, kw_only=True)
class Recording(TeacherOutputs):
    """Writes down what is asked beside the final map."""

    asked: list

    def attention(self, stage, exponent, source="encoder"):
        self.asked.append(attention_request((stage,), exponent, source))
        return super().attention(stage, exponent, source)

    def unified_attention(self, stages, exponent, source="encoder"):
        self.asked.append(attention_request(stages, exponent, source))
        return super().unified_attention(stages, exponent, source)

    def unified_probabilities(self, heads, temperature, regions):
        if tuple(heads) != (0,):
            self.asked.append(heads_request(heads, temperature))
        return super().unified_probabilities(heads, temperature, regions)


def convolution(layer):
    """Weight (K, C) and bias (K,) of a 1x1 convolution as arrays."""
    return layer.weight.detach().numpy().reshape(layer.weight.shape[:2]), layer.bias.detach().numpy()


def assert_equal(computed, expected, least=1e-4, **tolerance):
    """Terms as scalars equal the reference's, which are not trivially small."""
    assert set(computed) == set(expected)
    for name, value in expected.items():
        assert computed[name].shape == ()
        assert value >= least, name
        assert computed[name].item() == pytest.approx(value, **(tolerance or {"rel": 1e-9})), name


def gradients(outputs):
    """Gradient of every tensor of a network, zero where none arrived."""
    return [torch.zeros_like(each) if each.grad is None else each.grad for each in (*outputs.features, *outputs.logits)]


class MethodLaws:
    """What holds for every method; a subclass names the method, its reference and what is special about it.

    Attributes:
        method_class: the method.
        variants: further settings that the terms depend on.
        masked: the terms that leave ignored voxels out where distill_ignored is false.
        always_masked: the terms that leave them out whatever distill_ignored says.
        feature_level: the terms of which the setting says nothing; every term is of one of these three kinds.
    """

    method_class = None
    variants = ({},)
    masked = ()
    always_masked = ()
    feature_level = ()

    def expected(self, scene):
        """The reference's terms."""
        raise NotImplementedError

    def scene(self, geometry, **settings):
        return Scene(self.method_class, geometry, **settings)

    @pytest.mark.parametrize("teachers", [1, 2])
    @pytest.mark.parametrize("ignoring", IGNORING)
    @pytest.mark.parametrize("regions", KINDS)
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_equals_the_reference(self, geometry, regions, ignoring, teachers):
        scene = self.scene(geometry, regions=regions, teachers=teachers, **ignoring)
        assert_equal(scene.terms(), self.expected(scene))

    @pytest.mark.parametrize("regions", KINDS)
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_equals_the_reference_with_other_settings(self, geometry, regions):
        """Beta and lambda are weights: terms do not contain them."""
        for variant in self.variants:
            settings = {"teachers": 2, "seed": 1, "beta": 7.0, "lambda_": 3.0, **variant}
            scene = self.scene(geometry, regions=regions, ignore=True, distill_ignored=False, **settings)
            assert_equal(scene.terms(), self.expected(scene))

    def test_what_is_asked_of_a_teacher_is_said_beforehand(self):
        """So that it can be stored; a method that needs more cannot."""
        if not self.method_class.needs <= STORABLE:
            return
        for variant in ({}, *self.variants):
            scene = self.scene(FLAT, heads=(1, 2), **variant)
            teacher, asked = scene.teacher_outputs(), []
            terms = scene.method(
                scene.student_outputs(), Recording(networks=teacher.networks, asked=asked), scene.target
            )
            assert set(asked) == set(scene.method.requests())
            assert terms == scene.terms()

    @pytest.mark.parametrize("regions", KINDS)
    def test_without_an_ignore_label_distill_ignored_changes_nothing(self, regions):
        terms = [self.scene(FLAT, regions=regions, distill_ignored=each).terms() for each in (True, False)]
        assert terms[0] == terms[1]

    @pytest.mark.parametrize("regions", KINDS)
    def test_distill_ignored_changes_the_masked_terms(self, regions):
        kept, left_out = (
            self.scene(FLAT, regions=regions, ignore=True, distill_ignored=each).terms() for each in (True, False)
        )
        assert {name for name in kept if kept[name] != left_out[name]} == set(self.masked)
        assert set(kept) == {*self.masked, *self.always_masked, *self.feature_level}

    @pytest.mark.parametrize("distill_ignored", [True, False])
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_the_order_of_the_batch_does_not_matter(self, geometry, distill_ignored):
        scene = self.scene(geometry, ignore=True, distill_ignored=distill_ignored, teachers=2)
        order = (1, 0)
        swapped = scene.method(
            scene.student_outputs(order=order), scene.teacher_outputs(order=order), scene.target[list(order)]
        )
        assert_equal(swapped, {name: each.item() for name, each in scene.terms().items()})

    @pytest.mark.parametrize("regions", KINDS)
    def test_the_teachers_side_carries_no_graph(self, regions):
        """With a student that needs no gradient nothing does, and the teacher's tensors are left as they came."""
        scene = self.scene(FLAT, regions=regions, ignore=True, distill_ignored=False, teachers=2)
        student, teacher = scene.student_outputs(), scene.teacher_outputs()
        tensors = [each for network in teacher.networks for each in (*network.features, *network.logits)]
        before = [each.clone() for each in tensors]
        sum(scene.method(student, teacher, scene.target).values()).backward()
        assert all(torch.equal(*pair) for pair in zip(before, tensors, strict=True))
        assert not any(each.requires_grad for each in tensors)
        scene.method.requires_grad_(False)
        features, logits = scene.student.tensors(torch.float64)
        terms = scene.terms(Outputs(features=features, logits=logits))
        assert not any(each.requires_grad for each in terms.values())

    @pytest.mark.parametrize("regions", KINDS)
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_every_adapter_gets_a_gradient(self, geometry, regions):
        scene = self.scene(geometry, regions=regions, teachers=2)
        sum(scene.terms().values()).backward()
        parameters = dict(scene.method.named_parameters())
        assert len(parameters) == self.count_adapters(geometry, teachers=2)
        for name, each in parameters.items():
            assert each.grad.isfinite().all(), name
            assert each.grad.any(), name

    def count_adapters(self, geometry, teachers):
        """Number of the parameters that the method adds."""
        return 0

    @pytest.mark.parametrize("regions", KINDS)
    @pytest.mark.parametrize("geometry", [TINY, TINY_SOLID], ids=["2d", "3d"])
    def test_gradcheck_of_student_and_adapters(self, geometry, regions):
        settings = self.variants[-1] if regions else {}
        scene = self.scene(geometry, regions=regions, ignore=True, distill_ignored=False, **settings)
        adapters = dict(scene.method.named_parameters())
        student = scene.student_outputs()
        maps = (*student.features, *student.logits)

        def terms(*values):
            mine, parameters = values[: len(maps)], values[len(maps) :]
            outputs = Outputs(features=mine[: len(student.features)], logits=mine[len(student.features) :])
            arguments = (outputs, scene.teacher_outputs(), scene.target)
            replaced = dict(zip(adapters, parameters, strict=True))
            computed = tuple(torch.func.functional_call(scene.method, replaced, arguments).values())
            assert all(each.requires_grad for each in computed)  # gradcheck passes over those that do not
            return computed

        inputs = (*maps, *(each.detach().requires_grad_() for each in adapters.values()))
        assert torch.autograd.gradcheck(terms, inputs, fast_mode=True)

    @pytest.mark.parametrize("regions", KINDS)
    def test_masked_terms_are_0_without_gradient_where_everything_is_ignored(self, regions):
        scene = self.scene(FLAT, regions=regions, ignore=True, distill_ignored=False, teachers=2)
        scene.ignore_everything()
        student = scene.student_outputs()
        terms = scene.terms(student)
        assert all(each.isfinite() for each in terms.values())
        if masked := [terms[name] for name in (*self.masked, *self.always_masked)]:
            sum(masked).backward()
            assert [term.item() for term in masked] == pytest.approx([0] * len(masked), abs=1e-12)
            reached = [*gradients(student), *(each.grad for each in scene.method.parameters() if each.grad is not None)]
            assert not any(each.any() for each in reached)

    @pytest.mark.parametrize("value", [0.0, 2.0])
    @pytest.mark.parametrize("flat", ["student", "teacher", "both"])
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_constant_maps_give_finite_terms_and_gradients(self, geometry, flat, value):
        """A patch of background gives maps of zeros: instance normalization turns a constant into exactly 0."""
        scene = self.scene(geometry)
        networks = {"student": [scene.student], "teacher": scene.teachers, "both": [scene.student, *scene.teachers]}
        for network in networks[flat]:
            for maps in (*network.features, *network.logits):
                maps[0] = value
        student = scene.student_outputs()
        terms = scene.terms(student)
        sum(terms.values()).backward()
        assert all(each.isfinite() for each in terms.values())
        assert all(each.isfinite().all() for each in gradients(student))
        assert all(each.grad.isfinite().all() for each in scene.method.parameters())

    @pytest.mark.parametrize("regions", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_lower_precision_agrees_and_stays_finite_for_large_values(self, dtype, regions):
        settings = self.variants[-1] if regions else {}
        scene = self.scene(FLAT, regions=regions, ignore=True, distill_ignored=False, teachers=2, **settings)
        expected = self.expected(scene)
        scene.method.float()
        for large in (False, True):
            if large:
                for network in (scene.student, *scene.teachers):
                    for maps in (*network.features, *network.logits):
                        maps[0] *= LARGE / np.abs(maps[0]).max()
            student = scene.student_outputs(dtype)
            terms = scene.terms(student, dtype)
            sum(terms.values()).backward()
            assert all(each.dtype == torch.float32 for each in terms.values())
            assert all(each.isfinite() for each in terms.values())
            assert all(each.isfinite().all() for each in gradients(student))
            assert all(each.grad.isfinite().all() for each in scene.method.parameters())
            if not large:
                assert_equal(
                    terms, expected, rel={torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}[dtype]
                )
