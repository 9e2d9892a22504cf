"""The student's plans: the teacher's own, a coarser spacing, and a topology where the teacher's network has none."""

from types import SimpleNamespace

import pytest
from architectures import architecture
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.compress.plans import base_plans
from nnunetv2_hlfd.networks.students import STUDENTS
from nnunetv2_hlfd.plans.plans_check import check_architecture
from nnunetv2_hlfd.utilities.errors import UserError

CUSTOM = {"network_class_name": "mypackage.Net", "arch_kwargs": {"depth": 3}, "_kw_requires_import": []}


def model_of(spacing, patch, median, block):
    configuration = {
        "data_identifier": "data",
        "spacing": spacing,
        "patch_size": patch,
        "median_image_size_in_voxels": median,
        "batch_size": 2,
        "architecture": block,
        "next_stage": "3d_cascade_fullres",
    }
    plans = PlansManager(
        {"plans_name": "nnUNetPlans", "configurations": {"c": configuration}, "hlfd": {"settings": {}}}
    )
    return SimpleNamespace(plans=plans, configuration="c", configuration_manager=plans.get_configuration("c"))


def planned(model, spacing=None):
    return base_plans(model, "Dataset001_X", spacing)["configurations"]["c"]


ISOTROPIC = ([1.0, 1.0, 1.0], [96, 96, 96], [200, 300, 300], architecture("isotropic", 5))


def test_the_teachers_configuration_is_taken_without_its_settings_and_stages():
    model = model_of(*ISOTROPIC)
    plans = base_plans(model, "Dataset001_X")
    assert "hlfd" not in plans
    assert plans["dataset_name"] == "Dataset001_X"
    expected = {**model.configuration_manager.configuration}
    expected.pop("next_stage")
    assert plans["configurations"] == {"c": expected}


def test_one_number_is_the_finest_spacing_of_every_axis():
    model = model_of([5.0, 0.8, 0.8], [16, 128, 128], [40, 500, 500], architecture("anisotropic", 5))
    student = planned(model, [2.0])
    assert student["spacing"] == [5.0, 2.0, 2.0]
    assert student["median_image_size_in_voxels"] == [40, 200, 200]
    assert student["patch_size"] == [16, 128, 128]
    assert student["architecture"]["arch_kwargs"]["strides"][1] == [1, 2, 2]


def test_a_patch_is_no_larger_than_the_image_and_goes_through_the_network():
    student = planned(model_of(*ISOTROPIC), [5.0, 4.0, 4.0])
    assert student["patch_size"] == [40, 80, 80]
    strides = student["architecture"]["arch_kwargs"]["strides"]
    assert all(
        extent % (2 ** sum(stride[axis] == 2 for stride in strides)) == 0 for axis, extent in enumerate([40, 80, 80])
    )


@pytest.mark.parametrize("spacing", [[0.5], [1.0], [2.0, 2.0], [2.0, 0.5, 2.0], [1.0, 1.0, 1.0]])
def test_a_spacing_that_is_no_coarser_one_is_refused(spacing):
    with pytest.raises(UserError, match=r"coarser than the teacher's spacing \[1.0, 1.0, 1.0\]"):
        planned(model_of(*ISOTROPIC), spacing)


@pytest.mark.parametrize(
    ("spacing", "patch"), [([1.0, 1.0, 1.0], [96, 96, 96]), ([5.0, 1.0, 1.0], [20, 160, 160]), ([1.0, 1.0], [65, 64])]
)
def test_a_network_without_topology_is_planned_as_nnunet_would(spacing, patch):
    student = planned(model_of(spacing, patch, patch, CUSTOM))
    assert student["spacing"] == spacing
    assert all(0 <= new - old < 32 for new, old in zip(student["patch_size"], patch, strict=True))
    check_architecture(student["architecture"], "plans")
    kwargs = STUDENTS["resnet18_w8"](student["architecture"])["arch_kwargs"]
    assert kwargs["conv_op"].endswith(f"Conv{len(patch)}d")
    if len(set(spacing)) > 1:
        assert kwargs["strides"][1] == [1, 2, 2]
