"""The methods by name: those of this package, and those that other packages register."""

import importlib.util
import sys
from collections import Counter
from importlib.metadata import EntryPoint

import pytest
from method_scene import FLAT, Scene

from nnunetv2_hlfd.distillation.combined import CombinedMethod
from nnunetv2_hlfd.distillation.method import DistillationMethod
from nnunetv2_hlfd.distillation.registry import GROUP, METHODS, PREFIX, find_method, method_names
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.method_trainers import find_trainer
from nnunetv2_hlfd.training.trainers_path import trainers_path
from nnunetv2_hlfd.utilities.errors import UserError

VARIANTS = {
    "HLFD_balanced": "HLFD",
    "HLFD_noFeature": "HLFD",
    "HLFD_noPixel": "HLFD",
    "HLFD_pixelTruth": "HLFD",
    "EMKD_region": "EMKD",
}


# This package's methods


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_trainer_of_its_name(name):
    trainer = find_trainer(name)
    assert trainer.__name__ == PREFIX + name
    assert issubclass(trainer, DistillationTrainer)
    assert issubclass(trainer.method_class, DistillationMethod)
    assert trainer.method_class.title


def test_no_two_methods_have_a_term_of_the_same_name_but_variants():
    terms = {name: set(Scene(find_method(name), FLAT).method.weights) for name in METHODS}
    for variant, name in VARIANTS.items():
        assert terms.pop(variant) >= terms[name]
    counts = Counter(term for each in terms.values() for term in each)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize(("name", "hint"), [("HLDF", "HLFD"), ("Fitnet", "FitNet"), ("EMKD_regions", "EMKD_region")])
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=rf"Unknown method '{name}'\. Did you mean '{hint}'\?$"):
        find_trainer(name)


def test_a_name_far_from_all_is_refused_with_the_list():
    with pytest.raises(ValueError, match="Unknown method '0'") as caught:
        find_trainer("0")
    assert str(caught.value) == f"Unknown method '0'. Valid are: {', '.join(METHODS)}."


# Methods of other packages, installed as pip installs them: a .dist-info folder beside the modules


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with a module of methods and an entry point for each."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def write(package, methods, entries=None, content=""):
        (tmp_path / f"{package}.py").write_text(
            "from nnunetv2_hlfd.methods.kd import KD\n"
            + "".join(f"\n\nclass {method}(KD):\n    pass\n" for method in methods)
            + content
        )
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        entries = entries or {method: f"{package}:{method}" for method in methods}
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - modules:
        if name.startswith("other_"):
            del sys.modules[name]


@pytest.fixture
def trainers_module():
    """The module that nnU-Net imports, loaded by its path."""
    spec = importlib.util.spec_from_file_location("trainers_of_a_test", trainers_path() / "nnunetv2_hlfd_trainers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_method_of_another_package_is_found_by_name(install, trainers_module):
    assert "MINE" not in method_names()
    install("other_methods", ["MINE"])
    method = find_method("MINE")
    assert (method.__name__, method.__module__) == ("MINE", "other_methods")
    assert find_trainer("MINE").method_class is method
    assert trainers_module.nnUNetTrainerMINE is find_trainer("MINE")
    assert method_names() == [*METHODS, "MINE"]


def test_nnunet_finds_the_trainer_of_another_packages_method(install):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    install("other_methods", ["MINE"])
    assert recursive_find_trainer_class_by_name("nnUNetTrainerMINE") is find_trainer("MINE")


def test_a_method_is_known_by_the_name_of_its_entry_point(install):
    install("other_methods", ["LongName"], {"SHORT": "other_methods:LongName"})
    assert find_trainer("SHORT").__name__ == "nnUNetTrainerSHORT"


def test_a_near_miss_of_another_packages_method_is_named(install):
    install("other_methods", ["LONGNAME"])
    with pytest.raises(UserError, match=r"Unknown method 'LONGNAMES'\. Did you mean 'LONGNAME'\?"):
        find_trainer("LONGNAMES")


def test_this_packages_method_wins_over_one_of_the_same_name(install, trainers_module):
    """The other package is not even imported."""
    install("other_methods", ["HLFD"])
    assert find_method("HLFD").__module__ == "nnunetv2_hlfd.methods.hlfd"
    assert trainers_module.nnUNetTrainerHLFD is find_trainer("HLFD")
    assert "other_methods" not in sys.modules
    assert method_names() == list(METHODS)


def test_a_name_that_packages_register_for_different_methods_is_refused(install, trainers_module):
    install("other_one", ["MINE"])
    install("other_two", ["MINE"])
    with pytest.raises(UserError, match="Expected one method 'MINE', several packages register it: ") as caught:
        find_trainer("MINE")
    assert "other_one:MINE" in str(caught.value)
    assert "other_two:MINE" in str(caught.value)
    assert str(caught.value).endswith("Uninstall one of them.")
    with pytest.raises(UserError, match="Expected one method 'MINE'"):
        trainers_module.nnUNetTrainerMINE  # noqa: B018
    assert find_trainer("KD").__name__ == "nnUNetTrainerKD"


@pytest.mark.parametrize("target", ["other_methods:nnUNetTrainerTheirs", "json:dumps"])
def test_an_entry_point_that_leads_to_something_else_is_refused(install, target):
    """A trainer of another name, too: nnU-Net names folders after the class and would not find it again."""
    install("other_methods", [], {"MINE": target}, _TRAINER.format(name="Theirs"))
    with pytest.raises(UserError, match=r"Expected the entry point 'MINE' .* to be a DistillationMethod, got"):
        find_trainer("MINE")


def test_packages_may_register_the_same_method(install):
    install("other_one", ["MINE"])
    install("other_two", [], {"MINE": "other_one:MINE"})
    assert find_method("MINE").__module__ == "other_one"
    assert method_names() == [*METHODS, "MINE"]


_TRAINER = """
from nnunetv2_hlfd.trainer import DistillationTrainer


class nnUNetTrainer{name}(DistillationTrainer):
    method_class = KD
    defaults = {{"temperature": 2.0}}
"""


def test_an_entry_point_of_the_form_before_0_2_works_with_a_warning(install, trainers_module):
    """It names a trainer, and its module imports the places of then."""
    install("other_methods", [], {"MINE": "other_methods:nnUNetTrainerMINE"}, _TRAINER.format(name="MINE"))
    with pytest.warns(DeprecationWarning, match="names a trainer. Name the method's class itself"):
        trainer = find_trainer("MINE")
    assert (trainer.__name__, trainer.__module__) == ("nnUNetTrainerMINE", "other_methods")
    assert trainer.defaults == {"temperature": 2.0}
    with pytest.warns(DeprecationWarning, match="names a trainer"):
        assert find_method("MINE") is find_method("KD")
    with pytest.warns(DeprecationWarning, match="names a trainer"):
        assert trainers_module.nnUNetTrainerMINE is trainer


_TERMS = """

class MINE(KD):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.weights = {{"first": 2.0, "second": 0.5}}

    def forward(self, student, teacher, target):
        return {{name: student.logits[0].square().mean() * number for number, name in enumerate({names}, 1)}}
"""


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["second", "first"], None),
        (["first"], "second is missing"),
        (["first", "second", "third"], "third is not in its weights"),
    ],
)
def test_terms_of_another_packages_method_are_found_by_name_or_the_method_is_refused(install, names, fault):
    install("other_methods", [], {"MINE": "other_methods:MINE"}, _TERMS.format(names=names))
    scene = Scene(lambda *arguments: CombinedMethod({"MINE": find_method("MINE")(*arguments)}, {}), FLAT)
    student = scene.student_outputs()
    if fault is None:
        terms = scene.terms(student)
        assert list(terms) == ["first", "second"]
        assert terms["first"] == 2 * terms["second"], "returned second, so with the number 2"
    else:
        with pytest.raises(UserError, match=rf"Expected the method MINE \(other_methods.MINE\) .*: {fault}\."):
            scene.terms(student)


# The module in which nnU-Net looks for trainers


@pytest.mark.parametrize("name", METHODS)
def test_the_trainers_module_has_every_method(trainers_module, name):
    assert getattr(trainers_module, PREFIX + name) is find_trainer(name)


@pytest.mark.parametrize("name", ["nnUNetTrainerNothing", "nnUNetTrainer", "HLFD", "KD", "__wrapped__"])
def test_the_trainers_module_has_nothing_else(trainers_module, name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(trainers_module, name)


def test_entries_have_the_form_that_other_packages_use():
    for name, value in METHODS.items():
        entry = EntryPoint(name, value, GROUP)
        assert entry.module.startswith("nnunetv2_hlfd.methods.")
        assert issubclass(entry.load(), DistillationMethod)
