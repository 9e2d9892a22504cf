"""Several methods in one training: their terms side by side, and the work they share done once."""

from collections import Counter

import pytest
import torch
from method_scene import FLAT, KINDS, SOLID, Scene, gradients

from nnunetv2_hlfd.distillation import method as method_module
from nnunetv2_hlfd.distillation import outputs as outputs_module
from nnunetv2_hlfd.distillation.combined import CombinedMethod, method_classes, own_defaults
from nnunetv2_hlfd.distillation.combined import combine as registry_combine
from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import METHODS, find_method
from nnunetv2_hlfd.methods.kd import KD
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.errors import UserError

NAMES = ("HLFD", "KD", "AT", "EMKD", "DSKD", "SKD", "IMF")
ALL = tuple(name for name in METHODS if not name.startswith("HLFD_") and name != "EMKD")  # no shared terms


def combine(names, factors=None):
    """What builds the method of these names from stages, teacher, task and settings."""

    def build(*arguments):
        methods = {name: find_method(name)(*arguments) for name in names}
        return CombinedMethod(methods, factors or {})

    return build


# The terms


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", [FLAT, SOLID], ids=["2d", "3d-anisotropic"])
def test_terms_and_gradients_are_those_of_each_method_alone(geometry, regions, teachers):
    """What one method has computed does not change what another gets."""
    scene = Scene(combine(ALL), geometry, regions=regions, ignore=True, distill_ignored=False, teachers=teachers)
    together = scene.student_outputs()
    terms = scene.terms(together)
    sum(terms.values()).backward()
    alone, summed = {}, [0] * len(gradients(together))
    for method in scene.method.methods.values():
        student = scene.student_outputs()
        own = method(student, scene.teacher_outputs(), scene.target)
        sum(own.values()).backward()
        alone |= {name: term.item() for name, term in own.items()}
        summed = [a + b for a, b in zip(summed, gradients(student), strict=True)]
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(alone, rel=1e-12)
    for computed, expected in zip(gradients(together), summed, strict=True):
        assert (computed - expected).abs().max() < 1e-12


def test_every_term_has_a_weight():
    scene = Scene(combine(ALL), FLAT)
    assert list(scene.terms()) == list(scene.method.weights)
    assert len(scene.method.weights) == sum(len(method.weights) for method in scene.method.methods.values())


def test_factors_multiply_the_weights_of_their_method():
    method = Scene(combine(("HLFD", "KD", "SKD"), {"HLFD": 2.0, "KD": 0.0, "SKD": 0.5}), FLAT).method
    assert method.weights == {
        "ufd": 1.8,
        "ifd": 1.8,
        "upd": 0.2,
        "ipd": 0.2,
        "kd": 0.0,
        "skd_pixel": 40.0,
        "skd_pair": 0.5,
    }
    assert method.methods["SKD"].weights == {"skd_pixel": 80.0, "skd_pair": 1.0}


def test_a_factor_of_a_term_multiplies_that_term_alone():
    factors = {"ufd": 0.0, "ipd": 3.0, "HLFD": 2.0, "skd_pair": 0.5}
    method = Scene(combine(("HLFD", "SKD"), factors), FLAT).method
    assert method.weights == pytest.approx(
        {"ufd": 0.0, "ifd": 1.8, "upd": 0.2, "ipd": 0.6, "skd_pixel": 80.0, "skd_pair": 0.5}
    )


@pytest.mark.parametrize(("name", "hint"), [("ifdd", "ifd"), ("skd_pixels", "skd_pixel"), ("FitNets", "FitNet")])
def test_a_factor_for_nothing_is_refused_with_the_nearest_name(name, hint):
    message = rf"Unknown method or term '{name}' in the setting weights\. Did you mean '{hint}'\?$"
    with pytest.raises(ValueError, match=message):
        Scene(combine(("HLFD", "SKD"), {name: 1.0}), FLAT)


def test_factors_leave_the_terms_alone():
    plain, scaled = (Scene(combine(("KD", "AT"), {"KD": each, "AT": each}), FLAT).terms() for each in (1.0, 7.0))
    assert plain == scaled


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (("HLFD", "KD", "HLFD_noFeature"), ["ifd", "ipd", "ufd", "upd"]),
        (("EMKD_region", "EMKD"), ["emkd_importance", "emkd_prediction"]),
    ],
)
def test_methods_with_a_term_of_the_same_name_are_refused(names, shared):
    with pytest.raises(ValueError, match="Expected methods with different terms") as caught:
        Scene(combine(names), FLAT)
    assert str(caught.value) == (
        f"Expected methods with different terms in the setting weights, {names[-1]} has {shared}, which another of "
        f"{', '.join(names)} has too. Leave one of them out."
    )


# What is told of them


def test_titles_are_joined():
    assert Scene(combine(("AT", "EMKD", "IMF")), FLAT).method.title == "AT + EMKD (paper: DKD) + IMF-style (paper: IFD)"


def test_roles_are_joined_and_the_same_role_is_told_once():
    names = ("HLFD", "SKD", "EMKD", "DSKD", "KD", "FitNet", "IMF")
    assert Scene(combine(names), FLAT).method.roles() == Roles(
        student={
            1: "early, low, shallow",
            2: "mid, shallow, branch",
            3: "mid, pairs, high, shallow, guided, branch",
            4: "mid, shallow, branch",
        },
        teacher={1: "mid", 2: "mid, low", 3: "mid", 4: "late, pairs, high, hint"},
        notes=[
            "teacher's intermediate outputs for p_mid (0 is full resolution): 1",
            "KD teaches the final map only",
            "IMF teaches by the final map",
        ],
    )


def test_stages_are_told_in_order():
    roles = Scene(combine(("EMKD", "HLFD")), FLAT).method.roles()
    assert list(roles.student) == [1, 2, 3, 4]
    assert list(roles.teacher) == [1, 2, 3, 4]


def test_the_adapters_of_all_methods_are_its_own_and_named_by_method():
    method = Scene(combine(NAMES), FLAT).method
    names = {name.split(".heads")[0].split(".branches")[0] for name, _ in method.named_parameters()}
    assert names == {"methods.HLFD", "methods.DSKD", "methods.IMF", "methods.IMF.attentive"}
    own = [each for single in method.methods.values() for each in single.parameters()]
    assert {id(each) for each in own} == {id(each) for each in method.parameters()}


# A method whose terms are not those of its weights, as one of another package could be


class Shuffled(KD):
    """Two terms, returned in another order than its weights name them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.weights = {"first": 2.0, "second": 0.5}

    def forward(self, student, teacher, target):
        return {"second": student.logits[0].mean(), "first": student.logits[0].square().mean()}


def test_terms_are_found_by_their_names_whatever_their_order():
    scene = Scene(lambda *arguments: CombinedMethod({"Shuffled": Shuffled(*arguments)}, {}), FLAT)
    student = scene.student_outputs()
    terms = scene.terms(student)
    assert list(terms) == ["first", "second"]
    assert terms["first"] == student.logits[0].square().mean()
    assert terms["second"] == student.logits[0].mean()


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        (["first"], "second is missing"),
        ([], "first is missing; second is missing"),
        (["first", "second", "third"], "third is not in its weights"),
        (["first", "secnd"], "second is missing; secnd is not in its weights"),
    ],
)
def test_terms_too_few_or_too_many_are_refused_by_the_name_of_the_method(returned, fault):
    class Wrong(Shuffled):
        def forward(self, student, teacher, target):
            return {name: student.logits[0].mean() for name in returned}

    def build(*arguments):
        return CombinedMethod({"KD": KD(*arguments), "Wrong": Wrong(*arguments)}, {})

    scene = Scene(build, FLAT)
    with pytest.raises(UserError, match=rf"Expected the method Wrong \(.*Wrong\) .*: {fault}\. Its forward"):
        scene.terms(scene.student_outputs())


def test_a_term_that_is_no_scalar_is_refused():
    class Wrong(Shuffled):
        def forward(self, student, teacher, target):
            return {"first": student.logits[0].mean(), "second": student.logits[0].mean(dim=(1, 2, 3))}

    scene = Scene(lambda *arguments: CombinedMethod({"Wrong": Wrong(*arguments)}, {}), FLAT)
    with pytest.raises(UserError, match=r"second has the shape \(2,\)"):
        scene.terms(scene.student_outputs())


# Terms that replace a part of the segmentation loss


def test_terms_of_all_methods_that_replace_a_part_of_the_segmentation_loss():
    assert Scene(combine(("HLFD", "KD")), FLAT).method.segmentation_terms == frozenset()
    method = Scene(combine(("HLFD", "SoftLabel"), {"SoftLabel": 0.5}), FLAT, teacher_share=0.5).method
    assert method.segmentation_terms == {"soft_label"}
    assert method.weights == {"ufd": 0.9, "ifd": 0.9, "upd": 0.1, "ipd": 0.1, "soft_label": 0.25}


@pytest.mark.parametrize("factors", [{}, {"SoftLabel": 1.25}, {"soft_label": 1.25}, {"KD": 5.0}])
def test_they_may_replace_the_whole_of_it(factors):
    share = 0.8 if factors else 1.0
    Scene(combine(("SoftLabel", "KD"), factors), FLAT, teacher_share=share)


@pytest.mark.parametrize("factors", [{"SoftLabel": 1.26}, {"soft_label": 1.26}, {"SoftLabel": 2.0, "soft_label": 0.63}])
def test_more_than_the_whole_of_it_is_refused(factors):
    with pytest.raises(UserError, match=r"Expected soft_label to replace at most .* got the share 1\.008\. Lower the"):
        Scene(combine(("SoftLabel", "KD"), factors), FLAT, teacher_share=0.8)


# Settings of added methods


def test_an_added_method_keeps_its_own_defaults_but_not_against_what_is_given():
    built = {}

    def build(given):
        def combined(stages, shape, task, settings):
            settings = Settings.from_dict({"weights": {"AT": 1.0}, **given})
            methods = method_classes("HLFD", find_method("HLFD"), settings)
            built["lines"] = own_defaults(methods, given)
            return registry_combine(methods, stages, shape, task, settings, given)

        return Scene(combined, FLAT).method.methods

    methods = build({"temperature": 3.0})
    assert methods["HLFD"].settings.attention_exponent == 1.0
    assert methods["AT"].settings.attention_exponent == 2.0
    assert methods["AT"].settings.temperature == 3.0
    assert built["lines"] == ["AT keeps its own default: attention_exponent 2.0"]
    assert build({"attention_exponent": 4.0})["AT"].settings.attention_exponent == 4.0
    assert built["lines"] == []


# Pixel maps for pictures


def test_pixel_maps_are_those_of_trained_heads():
    scene = Scene(combine(("HLFD", "KD"), {"upd": 0.0}), FLAT)
    student = scene.student_outputs()
    maps = scene.method.pixel_maps(student.features)
    assert [(pixel_map.stage, pixel_map.term) for pixel_map in maps] == [(1, "ipd"), (2, "ipd"), (3, "ipd")]
    head = scene.method.methods["HLFD"].heads["2"]
    assert torch.equal(maps[1].logits, head(student.features[2]))
    assert [pixel_map.stage for pixel_map in Scene(combine(("HLFD",)), FLAT).method.pixel_maps(student.features)] == [
        1,
        2,
        3,
        4,
    ]
    assert Scene(combine(("KD",)), FLAT).method.pixel_maps(student.features) == []


# Shared work is done once


def record(monkeypatch, module, name, key):
    """Count the calls of a function of a module by `key(*arguments)`; the function runs as ever."""
    calls, original = Counter(), getattr(module, name)

    def counted(*arguments, **named):
        calls[key(*arguments, **named)] += 1
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("regions", KINDS)
def test_shared_work_is_done_once(monkeypatch, regions, teachers):
    """Each attention map of a stage, size and exponent, each probability map, each divergence of the final maps."""
    scene = Scene(combine(NAMES), FLAT, regions=regions, teachers=teachers)
    student, teacher = scene.student_outputs(), scene.teacher_outputs()
    named = {
        id(maps): (network, kind, index)
        for network, outputs in enumerate((student, *teacher.networks))
        for kind, tensors in (("stage", outputs.features), ("head", outputs.logits))
        for index, maps in enumerate(tensors)
    }
    energies = record(monkeypatch, outputs_module, "energy", lambda maps, size, p: (*named[id(maps)], tuple(size), p))
    attentions = record(monkeypatch, outputs_module, "attention_map", lambda energy_map: "all")
    probabilities = record(
        monkeypatch, outputs_module, "probabilities", lambda logits, t, regions: (*named[id(logits)], t)
    )
    divergences = record(
        monkeypatch,
        method_module,
        "kl_divergence",
        lambda logits, p, temperature, **_: (named.get(id(logits)), temperature),
    )
    scene.method(student, teacher, scene.target)

    maps = [
        (1, (4, 6)),
        (1, (8, 6)),
        (1, (4, 3)),
        (2, (4, 3)),
        (2, (4, 6)),
        (3, (4, 3)),
        (4, (4, 3)),
        (4, (2, 3)),
        (5, (1, 3)),
    ]
    networks = range(1, teachers + 1)
    assert energies == Counter(
        [(0, "stage", stage, size, 1.0) for stage, size in maps]
        + [(network, "stage", stage, FLAT.teacher[stage], 1.0) for network in networks for stage in range(2, 7)]
    )
    assert attentions["all"] == energies.total() + teachers  # and one of all middle stages together
    assert probabilities == Counter(
        [(network, "head", head, t) for network in networks for head, t in ((0, 4.0), (0, 1.0), (1, 4.0))]
    )
    assert {key: count for key, count in divergences.items() if key[0] is not None} == {
        ((0, "head", 0), 4.0): 1,
        ((0, "head", 0), 1.0): 1,
    }


def test_the_next_step_is_computed_anew():
    scene = Scene(combine(NAMES), FLAT)
    before = scene.terms()
    scene.student.features[1] += 1
    scene.teachers[0].logits[0] += scene.random.normal(size=scene.teachers[0].logits[0].shape)
    after = scene.terms()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set(before) - {"ifd", "skd_pair", "upd"}
