"""The single checks of whether a teacher may teach a student; test_teacher.py has them on real model folders."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from architectures import RESIDUAL, architecture
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.models.fold import FoldFolder
from nnunetv2_hlfd.models.split import validated_cases
from nnunetv2_hlfd.plans.plans_check import check_imports
from nnunetv2_hlfd.teacher.compatibility import check_compatible, check_patch, check_validation_cases
from nnunetv2_hlfd.training.nnunet_version import check_nnunet_version
from nnunetv2_hlfd.training.scheduled_trainer import nnUNetTrainerTeacher

FOLDER = Path("results/Dataset001_X/nnUNetTrainer__nnUNetPlans__2d")
INTENSITIES = {"mean": 90.0, "std": 50.0, "percentile_00_5": -18.0, "percentile_99_5": 194.0}
DATASET = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "kidney": 1, "tumor": 2},
    "file_ending": ".nii.gz",
}
REGIONS = {
    **DATASET,
    "labels": {"background": 0, "kidney": [1, 2], "tumor": [2]},
    "regions_class_order": [1, 2],
}


def plans():
    """What the checks read of plans."""
    configuration = {
        "patch_size": [64, 64],
        "spacing": [0.8, 0.75],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, True],
        "architecture": architecture("2d", 4),
    }
    volume = {**configuration, "patch_size": [16, 64, 64], "spacing": [3.0, 0.8, 0.75]}
    return {
        "plans_name": "nnUNetPlans",
        "dataset_name": "Dataset001_X",
        "transpose_forward": [0, 1, 2],
        "configurations": {"2d": configuration, "3d_fullres": volume},
        "foreground_intensity_properties_per_channel": {"0": dict(INTENSITIES), "1": {"mean": 3.0}},
    }


def compare(change_plans=lambda plans: None, change_dataset=lambda dataset: None, *, dataset=DATASET, teacher="2d"):
    """Check a student against a teacher whose plans and dataset.json were changed."""
    theirs, their_dataset = plans(), deepcopy(dataset)
    change_plans(theirs)
    change_dataset(their_dataset)
    check_compatible(PlansManager(plans()), PlansManager(theirs), ("2d", teacher), (dataset, their_dataset), FOLDER)


def configuration(key, value):
    return lambda plans: plans["configurations"]["2d"].__setitem__(key, value)


# Versions


@pytest.mark.parametrize("installed", ["2.8", "2.8.0", "2.8.1", "2.8.10", "2.8.2.post1", "2.8.0.dev3+g1234"])
def test_versions_in_range_are_accepted(monkeypatch, installed):
    monkeypatch.setattr("nnunetv2_hlfd.training.nnunet_version.version", lambda _name: installed)
    check_nnunet_version()


@pytest.mark.parametrize(
    "installed", ["2.7.9", "2.9", "2.9.0", "2.10.1", "3.0", "1.7.1", "3", "2.9rc1", "2.8rc1", "2.9a0"]
)
def test_versions_out_of_range_are_refused_with_the_command_that_installs_a_fitting_one(monkeypatch, installed):
    """Prereleases too: 2.8rc1 comes before 2.8."""
    monkeypatch.setattr("nnunetv2_hlfd.training.nnunet_version.version", lambda _name: installed)
    with pytest.raises(ValueError, match=r"^Expected nnunetv2 >=2\.8,<2\.9, got ") as caught:
        check_nnunet_version()
    assert f'got {installed}. Install a fitting one with: pip install "nnunetv2>=2.8,<2.9"' in str(caught.value)


def test_every_trainer_of_this_package_checks_the_version_before_all_else(monkeypatch):
    monkeypatch.setattr("nnunetv2_hlfd.training.nnunet_version.version", lambda _name: "2.9.0")
    with pytest.raises(ValueError, match=r"got 2\.9\.0"):
        nnUNetTrainerTeacher({}, "2d", 0, {})


def test_the_installed_version_is_in_range():
    check_nnunet_version()


# Imports of foreign plans


@pytest.mark.parametrize("block", [architecture("2d", 4), architecture("isotropic", 5, name=RESIDUAL)])
def test_plans_as_nnunet_writes_them_import_only_what_is_allowed(block):
    check_imports(block, FOLDER / "plans.json")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("nonlin", "os.system"),
        ("conv_op", "subprocess.Popen"),
        ("norm_op", "torch.hub.load"),
        ("dropout_op", "torch.nnx.Evil"),
        ("nonlin", "builtins.eval"),
        ("nonlin", "torch.nn.functional.torch.os.system"),
        ("nonlin", "torch.nn.modules.module.warnings.sys.modules"),
        ("conv_op", "dynamic_network_architectures.architectures.unet.torch.hub.load"),
        ("nonlin", "torch.nn.init.kaiming_normal_"),
        ("network_class_name", "os.system"),
        ("network_class_name", "dynamic_network_architectures_evil.Network"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet.torch.os.system"),
        ("network_class_name", 3),
    ],
)
def test_plans_that_would_import_anything_but_network_blocks_are_refused(key, name):
    """Names are walked attribute by attribute: an allowed module leads to torch.os.system."""
    block = architecture("2d", 4)
    (block if key == "network_class_name" else block["arch_kwargs"])[key] = name
    with pytest.raises(ValueError, match=f"asks to import '{name}'") as caught:
        check_imports(block, FOLDER / "plans.json")
    assert str(caught.value).startswith(str(FOLDER / "plans.json"))
    assert "torch.nn" in str(caught.value)
    assert "dynamic_network_architectures" in str(caught.value)


# The contract between student and teacher


@pytest.mark.parametrize("dataset", [DATASET, REGIONS])
def test_a_teacher_of_the_same_plans_fits(dataset):
    compare(dataset=dataset)


def test_names_patch_network_and_intensities_of_other_channels_may_differ():
    def change(plans):
        plans |= {"plans_name": "nnUNetResEncUNetMPlans", "dataset_name": "Dataset777_Other"}
        plans["configurations"]["2d"] |= {"patch_size": [128, 96], "batch_size": 49, "architecture": {}}
        plans["foreground_intensity_properties_per_channel"]["1"] = {"mean": 5.0}  # not CT: not used

    compare(change, lambda dataset: dataset.update(name="other", numTraining=3, file_ending=".nii.gz"))


def test_intensities_are_compared_to_the_fourth_digit():
    compare(lambda plans: plans["foreground_intensity_properties_per_channel"]["0"].update(mean=90.000001))


DIFFERENCES = {
    "labels": (
        None,
        lambda dataset: dataset["labels"].update(cyst=3),
        "labels (names and values): the student has [['background', 0], ['kidney', 1], ['tumor', 2]], "
        "the teacher [['background', 0], ['kidney', 1], ['tumor', 2], ['cyst', 3]]",
    ),
    "label values": (
        None,
        lambda dataset: dataset.update(labels={"background": 0, "kidney": 2, "tumor": 1}),
        "the teacher [['background', 0], ['tumor', 1], ['kidney', 2]]",
    ),
    "ignore label": (
        None,
        lambda dataset: dataset["labels"].update(ignore=3),
        "the teacher [['background', 0], ['kidney', 1], ['tumor', 2], ['ignore', 3]]",
    ),
    "regions": (
        None,
        lambda dataset: dataset.update(regions_class_order=[2, 1]),
        "regions_class_order: the student has None, the teacher [2, 1]",
    ),
    "channels": (
        None,
        lambda dataset: dataset.update(channel_names={"0": "CT"}),
        "channel_names: the student has {'0': 'CT', '1': 'PET'}, the teacher {'0': 'CT'}",
    ),
    "spacing": (
        configuration("spacing", [0.8, 1.0]),
        None,
        "spacing: the student has [0.8, 0.75], the teacher [0.8, 1.0]",
    ),
    "normalization": (
        configuration("normalization_schemes", ["ZScoreNormalization"] * 2),
        None,
        "normalization_schemes: the student has ['CTNormalization', 'ZScoreNormalization'], the teacher "
        "['ZScoreNormalization', 'ZScoreNormalization']",
    ),
    "mask": (
        configuration("use_mask_for_norm", [False, False]),
        None,
        "use_mask_for_norm: the student has [False, True], the teacher [False, False]",
    ),
    "transpose": (
        lambda plans: plans.update(transpose_forward=[1, 0, 2]),
        None,
        "transpose_forward: the student has [0, 1, 2], the teacher [1, 0, 2]",
    ),
    "CT intensities": (
        lambda plans: plans["foreground_intensity_properties_per_channel"]["0"].update(mean=91.0),
        None,
        "CT intensity properties: the student has {'0': {'mean': 90.0,",
    ),
}


@pytest.mark.parametrize(("change_plans", "change_dataset", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_every_difference_in_the_contract_is_refused_with_both_sides(change_plans, change_dataset, expected):
    with pytest.raises(ValueError, match="does not fit this student:") as caught:
        compare(change_plans or (lambda plans: None), change_dataset or (lambda dataset: None))
    message = str(caught.value)
    assert message.startswith(f"The teacher in {FOLDER} does not fit this student:\n  ")
    assert expected in message
    assert "Train the teacher on the same data set and plans, or plan the student to match" in message


IN_ANOTHER_ORDER = {
    "labels": (DATASET, {"background": 0, "tumor": 2, "kidney": 1}),
    "background last": (DATASET, {"tumor": 2, "kidney": 1, "background": 0}),
    "a label as a region of one": (DATASET, {"background": 0, "kidney": [1], "tumor": 2}),
    "numbers as text": (DATASET, {"background": "0", "kidney": "1", "tumor": "2"}),
    "values of a region": (REGIONS, {"background": 0, "kidney": [2, 1], "tumor": 2}),
    "background after regions": (REGIONS, {"kidney": [1, 2], "background": 0, "tumor": [2]}),
}


@pytest.mark.parametrize(("dataset", "labels"), IN_ANOTHER_ORDER.values(), ids=IN_ANOTHER_ORDER)
def test_the_same_labels_written_in_another_way_fit(dataset, labels):
    """nnU-Net's own label manager has the same channels for both."""
    teacher = {**dataset, "labels": labels}
    managers = [PlansManager(plans()).get_label_manager(content) for content in (dataset, teacher)]
    channels = [
        [set(np.atleast_1d(region).tolist()) for region in manager.foreground_regions]
        if manager.has_regions
        else manager.all_labels
        for manager in managers
    ]
    assert channels[0] == channels[1]
    compare(change_dataset=lambda content: content.update(labels=labels), dataset=dataset)


def test_regions_in_another_order_are_refused():
    """nnU-Net numbers the network's channels in the order of dataset.json."""
    labels = {"background": 0, "tumor": [2], "kidney": [1, 2]}
    managers = [
        PlansManager(plans()).get_label_manager({**REGIONS, "labels": each}) for each in (REGIONS["labels"], labels)
    ]
    assert managers[0].foreground_regions != managers[1].foreground_regions
    with pytest.raises(
        ValueError, match=r"regions \(names, values and order\): the student has \[\['kidney', \[1, 2\]\], "
    ):
        compare(change_dataset=lambda content: content.update(labels=labels), dataset=REGIONS)


@pytest.mark.parametrize(("dataset", "other"), [(DATASET, REGIONS), (REGIONS, DATASET)])
def test_labels_do_not_fit_regions(dataset, other):
    with pytest.raises(ValueError, match=r"regions \(names, values and order\): the student has (None|\[)"):
        compare(change_dataset=lambda content: content.update(labels=other["labels"]), dataset=dataset)


@pytest.mark.parametrize(
    ("spacing", "fits"), [([0.80000001, 0.75], True), ([0.8, 0.7500074], True), ([0.8, 0.751], False)]
)
def test_spacings_are_compared_as_nnunet_compares_them(spacing, fits):
    assert np.allclose([0.8, 0.75], spacing) is fits
    if fits:
        compare(configuration("spacing", spacing))
    else:
        with pytest.raises(ValueError, match="spacing: the student has"):
            compare(configuration("spacing", spacing))


def test_another_order_of_regions_is_refused():
    with pytest.raises(ValueError, match=r"regions_class_order: the student has \[1, 2\], the teacher \[2, 1\]"):
        compare(change_dataset=lambda dataset: dataset.update(regions_class_order=[2, 1]), dataset=REGIONS)


def test_another_dimension_is_refused():
    with pytest.raises(ValueError, match="dimension: the student has 2d, the teacher 3d"):
        compare(teacher="3d_fullres")


def test_a_teacher_that_sees_no_previous_stage_is_refused_for_a_cascade():
    """It would lack the input channels of the previous segmentation."""
    cascade = plans()
    cascade["configurations"]["2d"]["previous_stage"] = "2d_lowres"
    with pytest.raises(ValueError, match="does not fit") as caught:
        check_compatible(PlansManager(cascade), PlansManager(plans()), ("2d", "2d"), (DATASET, DATASET), FOLDER)
    assert "previous stage (cascade): the student has True, the teacher False" in str(caught.value)


def test_all_differences_are_listed_at_once():
    with pytest.raises(ValueError, match="does not fit") as caught:
        compare(configuration("spacing", [1.0, 1.0]), lambda dataset: dataset.update(channel_names={"0": "MR"}))
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]] == ["channel_names", "spacing"]


# The patch


@pytest.mark.parametrize(("patch", "stride"), [([64, 64], (16, 16)), ([8, 64, 64], (1, 32, 64)), ([16, 48], [16, 16])])
def test_a_patch_that_the_teachers_strides_divide_fits(patch, stride):
    check_patch(patch, stride, FOLDER)


@pytest.mark.parametrize(
    ("patch", "stride"), [([64, 40], (16, 16)), ([8, 64, 64], (16, 16, 16)), ([48, 48], (32, 32)), ([4, 64], (8, 8))]
)
def test_a_patch_that_does_not_go_through_the_teacher_is_refused_with_both_numbers(patch, stride):
    with pytest.raises(ValueError, match="is too small or not divisible by the total strides") as caught:
        check_patch(patch, stride, FOLDER)
    message = str(caught.value)
    assert f"The student's patch {patch}" in message
    assert f"the total strides {list(stride)} of the teacher in {FOLDER}." in message
    assert message.endswith("Set the configuration's patch_size in the plans to a multiple of these.")


# Validation cases


@pytest.fixture
def fold_folder(tmp_path):
    (tmp_path / "fold_0" / "validation").mkdir(parents=True)
    return tmp_path / "fold_0"


def write_summary(fold_folder, cases):
    entries = [{"prediction_file": f"/elsewhere/validation/{case}.nii.gz"} for case in cases]
    (fold_folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": entries}))


def write_predictions(fold_folder, cases):
    for case in cases:
        (fold_folder / "validation" / f"{case}.nii.gz").touch()
        (fold_folder / "validation" / f"{case}.npz").touch()


@pytest.mark.parametrize("write", [write_summary, write_predictions])
def test_validated_cases_come_from_the_summary_or_else_from_the_predictions(fold_folder, write):
    write(fold_folder, ["case_2", "case_1"])
    assert validated_cases(FoldFolder(fold_folder), ".nii.gz") == ["case_1", "case_2"]
    check_validation_cases(["case_1", "case_2"], fold_folder, ".nii.gz")


@pytest.mark.parametrize("prepare", [lambda folder: None, lambda folder: (folder / "validation").rmdir()])
def test_a_teacher_without_validation_is_refused_with_the_way_to_get_it(fold_folder, prepare):
    prepare(fold_folder)
    with pytest.raises(ValueError, match="Cannot tell which cases the teacher in") as caught:
        check_validation_cases(["case_1"], fold_folder, ".nii.gz")
    assert str(fold_folder) in str(caught.value)
    assert "Run its nnUNetv2_train command again with --val. If you know" in str(caught.value)
    assert "nnUNetv2_hlfd plan ... -teacher_fold 0 (recorded, with a warning)" in str(caught.value)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (["a", "b"], ["a", "c"], "b only in the student's, c only in the teacher's"),
        (["a", "b"], ["a"], "b only in the student's, none only in the teacher's"),
        (["a"], ["a", "b"], "none only in the student's, b only in the teacher's"),
        (["a", "b", "c", "d", "e"], ["x"], "a, b, c and 2 more only in the student's, x only in the teacher's"),
    ],
)
def test_a_teacher_validated_on_other_cases_is_refused_with_their_names(fold_folder, student, teacher, expected):
    write_summary(fold_folder, teacher)
    with pytest.raises(ValueError, match="was validated on other cases than this student's fold holds out") as caught:
        check_validation_cases(student, fold_folder, ".nii.gz")
    message = str(caught.value)
    assert f"{expected}." in message
    assert "splits_final.json changed or its validation is incomplete (run it with --val)" in message
    assert "to do so anyway, set teacher_fold explicitly" in message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"metric_per_case": [{}]}'])
def test_a_damaged_summary_is_named(fold_folder, text):
    summary = fold_folder / "validation" / "summary.json"
    summary.write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json") as caught:
        check_validation_cases(["a"], fold_folder, ".nii.gz")
    assert str(summary) in str(caught.value)
    assert "--val" in str(caught.value)
