"""The methods by name: those of this package, and those that other packages register."""

import importlib.util
import sys
from collections import Counter
from importlib.metadata import EntryPoint

import pytest
from method_scene import FLAT, Scene

from nnunetv2_hlfd.distillation.method import DistillationMethod
from nnunetv2_hlfd.distillation.registry import GROUP, METHODS, PREFIX, find_trainer, method_names
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.trainers_path import trainers_path

VARIANTS = {"HLFD_noFeature": "HLFD", "HLFD_noPixel": "HLFD", "HLFD_pixelTruth": "HLFD", "EMKD_region": "EMKD"}


# This package's methods


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_trainer_of_its_name(name):
    trainer = find_trainer(name)
    assert trainer.__name__ == PREFIX + name
    assert issubclass(trainer, DistillationTrainer)
    assert issubclass(trainer.method_class, DistillationMethod)
    assert trainer.method_class.title


def test_no_two_methods_have_a_term_of_the_same_name_but_variants():
    terms = {name: set(Scene(find_trainer(name).method_class, FLAT).method.weights) for name in METHODS}
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
    """Install a package with a module of trainers and an entry point for each."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def write(package, trainers, entries=None):
        (tmp_path / f"{package}.py").write_text(
            "from nnunetv2_hlfd.methods.kd import nnUNetTrainerKD\n"
            + "".join(f"\n\nclass {each}(nnUNetTrainerKD):\n    pass\n" for each in trainers)
        )
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        entries = entries or {each.removeprefix(PREFIX): f"{package}:{each}" for each in trainers}
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
    install("other_methods", ["nnUNetTrainerMINE"])
    trainer = find_trainer("MINE")
    assert (trainer.__name__, trainer.__module__) == ("nnUNetTrainerMINE", "other_methods")
    assert trainers_module.nnUNetTrainerMINE is trainer
    assert method_names() == [*METHODS, "MINE"]


def test_nnunet_finds_the_trainer_of_another_package(install):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    install("other_methods", ["nnUNetTrainerMINE"])
    assert recursive_find_trainer_class_by_name("nnUNetTrainerMINE") is find_trainer("MINE")


def test_a_near_miss_of_another_packages_method_is_named(install):
    install("other_methods", ["nnUNetTrainerLONGNAME"])
    with pytest.raises(ValueError, match=r"Unknown method 'LONGNAMES'\. Did you mean 'LONGNAME'\?"):
        find_trainer("LONGNAMES")


def test_this_packages_method_wins_over_one_of_the_same_name(install, trainers_module):
    """The other package is not even imported."""
    install("other_methods", ["nnUNetTrainerHLFD"])
    assert find_trainer("HLFD").__module__ == "nnunetv2_hlfd.methods.hlfd"
    assert trainers_module.nnUNetTrainerHLFD is find_trainer("HLFD")
    assert "other_methods" not in sys.modules
    assert method_names() == list(METHODS)


def test_a_name_that_packages_register_for_different_trainers_is_refused(install, trainers_module):
    install("other_one", ["nnUNetTrainerMINE"])
    install("other_two", ["nnUNetTrainerMINE"])
    with pytest.raises(ValueError, match="Expected one method 'MINE', several packages register it: ") as caught:
        find_trainer("MINE")
    assert "other_one:nnUNetTrainerMINE" in str(caught.value)
    assert "other_two:nnUNetTrainerMINE" in str(caught.value)
    assert str(caught.value).endswith("Uninstall one of them.")
    with pytest.raises(ValueError, match="Expected one method 'MINE'"):
        trainers_module.nnUNetTrainerMINE  # noqa: B018
    assert find_trainer("KD").__name__ == "nnUNetTrainerKD"


@pytest.mark.parametrize("target", ["other_methods:nnUNetTrainerTheirs", "other_methods:nnUNetTrainerKD", "json:dumps"])
def test_an_entry_point_that_leads_to_something_else_is_refused(install, target):
    """nnU-Net names folders after the class: another name would not be found again."""
    install("other_methods", ["nnUNetTrainerTheirs"], {"MINE": target})
    with pytest.raises(ValueError, match=r"Expected the entry point 'MINE' .* with the name nnUNetTrainerMINE, got"):
        find_trainer("MINE")


def test_packages_may_register_the_same_trainer(install):
    install("other_one", ["nnUNetTrainerMINE"])
    install("other_two", [], {"MINE": "other_one:nnUNetTrainerMINE"})
    assert find_trainer("MINE").__module__ == "other_one"
    assert method_names() == [*METHODS, "MINE"]


# The module in which nnU-Net looks for trainers


@pytest.mark.parametrize("name", METHODS)
def test_the_trainers_module_has_every_method(trainers_module, name):
    assert getattr(trainers_module, PREFIX + name) is find_trainer(name)


@pytest.mark.parametrize("name", ["nnUNetTrainerNothing", "nnUNetTrainer", "HLFD", "KD", "__wrapped__"])
def test_the_trainers_module_has_nothing_else(trainers_module, name):
    with pytest.raises(AttributeError, match=f"module 'trainers_of_a_test' has no attribute '{name}'"):
        getattr(trainers_module, name)


def test_entries_have_the_form_that_other_packages_use():
    for name, value in METHODS.items():
        entry = EntryPoint(name, value, GROUP)
        assert entry.module.startswith("nnunetv2_hlfd.methods.")
        assert entry.attr == PREFIX + name
