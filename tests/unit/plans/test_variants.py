"""Plans variants: other settings under another plans name, on the same preprocessed data."""

import json

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.plans.variants import write_variant

DATASET = "Dataset901_Phantom"


def read(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize("dataset", [DATASET, "901"])
def test_a_variant_has_its_own_name_and_settings_and_shares_everything_else(preprocessed, dataset):
    base = read(preprocessed / "nnUNetPlans.json")
    file = write_variant(dataset, "nnUNetPlans", "beta18", {"beta": 1.8, "lambda": 0.2})
    assert file == preprocessed / "nnUNetPlans_beta18.json"
    variant = read(file)
    assert variant["hlfd"] == {"base_plans": "nnUNetPlans", "settings": {"beta": 1.8, "lambda": 0.2}}
    assert variant["plans_name"] == "nnUNetPlans_beta18"
    assert variant == {**base, "plans_name": variant["plans_name"], "hlfd": variant["hlfd"]}
    assert read(preprocessed / "nnUNetPlans.json") == base
    theirs, ours = (PlansManager(each).get_configuration("2d") for each in (base, variant))
    assert ours.data_identifier == theirs.data_identifier == "nnUNetPlans_2d"


def test_a_variant_of_a_variant_keeps_settings_where_no_new_ones_are_given(preprocessed):
    write_variant(DATASET, "nnUNetPlans", "a", {"beta": 1.8, "student": "resnet18_w4"})
    file = write_variant(DATASET, "nnUNetPlans_a", "b", {"beta": 0.5, "seed": 1})
    variant = read(file)
    assert variant["plans_name"] == file.stem == "nnUNetPlans_a_b"
    assert variant["hlfd"]["settings"] == {"beta": 0.5, "student": "resnet18_w4", "seed": 1}
    assert variant["configurations"]["2d"]["data_identifier"] == "nnUNetPlans_2d"


def test_a_variant_of_a_variant_keeps_the_original_base_where_its_teacher_is(preprocessed):
    """The teacher is usually stock nnU-Net's own, under the plans that everything started from."""
    write_variant(DATASET, "nnUNetPlans", "a", {"beta": 1.8})
    file = write_variant(DATASET, "nnUNetPlans_a", "b", {})
    assert read(file)["hlfd"]["base_plans"] == "nnUNetPlans"


@pytest.mark.parametrize("name", ["a", "A1", "beta1.8", "w4-beta2", "two_words", "2024"])
def test_good_names(preprocessed, name):
    assert write_variant(DATASET, "nnUNetPlans", name, {}).name == f"nnUNetPlans_{name}.json"


@pytest.mark.parametrize("name", ["", "_a", "a_", "a__b", "a b", "../a", "a/b", "a.", "-a", "größer", "a\n"])
def test_names_that_nnunets_folders_cannot_hold_are_refused(preprocessed, name):
    """nnU-Net splits its folder names at `__`."""
    with pytest.raises(ValueError, match="Expected a name of letters, digits and single") as caught:
        write_variant(DATASET, "nnUNetPlans", name, {})
    assert str(caught.value).endswith(f"between them, got '{name}'.")
    assert [each.name for each in preprocessed.iterdir()] == ["nnUNetPlans.json"]


def test_writing_the_same_variant_again_changes_nothing(preprocessed):
    first = write_variant(DATASET, "nnUNetPlans", "a", {"beta": 1.8})
    before = first.read_bytes()
    assert write_variant(DATASET, "nnUNetPlans", "a", {"beta": 1.8}).read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"beta": 0.5}, "beta: 0.5 here, 1.8 there"),
        ({"beta": 1.8, "seed": 1}, "seed: 1 here, not given there"),
        ({}, "beta: not given here, 1.8 there"),
    ],
)
def test_an_existing_variant_with_other_settings_is_kept_unless_overwriting_is_asked_for(
    preprocessed, settings, expected
):
    file = write_variant(DATASET, "nnUNetPlans", "a", {"beta": 1.8})
    with pytest.raises(ValueError, match="exists with other settings") as caught:
        write_variant(DATASET, "nnUNetPlans", "a", settings)
    assert (
        str(caught.value)
        == f"{file} exists with other settings ({expected}). Choose another -name, or add --overwrite."
    )
    assert read(file)["hlfd"]["settings"] == {"beta": 1.8}
    write_variant(DATASET, "nnUNetPlans", "a", settings, overwrite=True)
    assert read(file)["hlfd"]["settings"] == settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"betta": 1.0}, "Unknown setting 'betta'. Did you mean 'beta'?"),
        ({"beta": -1.0}, "Expected a number of at least 0 for setting 'beta', got -1.0."),
    ],
)
def test_bad_settings_write_nothing(preprocessed, settings, expected):
    with pytest.raises(ValueError, match="setting") as caught:
        write_variant(DATASET, "nnUNetPlans", "a", settings)
    assert str(caught.value) == expected
    assert [each.name for each in preprocessed.iterdir()] == ["nnUNetPlans.json"]


def test_missing_plans_are_answered_with_the_nearest_and_the_commands_that_make_them(preprocessed):
    with pytest.raises(ValueError, match="Expected plans at") as caught:
        write_variant(DATASET, "nnUNetPlan", "a", {})
    assert str(caught.value).startswith(
        f"Expected plans at {preprocessed}/nnUNetPlan.json, found none. Did you mean 'nnUNetPlans'? nnU-Net makes its "
        f"plans with: nnUNetv2_plan_and_preprocess -d 901; "
    )


@pytest.mark.parametrize("file", ["nnUNetPlans", "nnUNetPlans_a"])
def test_damaged_plans_are_named(preprocessed, file):
    write_variant(DATASET, "nnUNetPlans", "a", {})
    (preprocessed / f"{file}.json").write_text('{"plans_name": ')
    with pytest.raises(ValueError, match=f"{file}.json"):
        write_variant(DATASET, "nnUNetPlans", "a", {})


@pytest.mark.parametrize("dataset", ["955", "Phantom"])
def test_an_unknown_data_set_is_named_and_the_error_is_one_for_users(preprocessed, dataset):
    with pytest.raises(ValueError, match=dataset):
        write_variant(dataset, "nnUNetPlans", "a", {})
