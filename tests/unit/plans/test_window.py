"""Clipping at a window through the plans alone: what changes, what stays, what is refused."""

import json

import numpy as np
import pytest
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.plans.identity import plans_lineage
from nnunetv2_hlfd.plans.variants import write_variant
from nnunetv2_hlfd.plans.window import parse_window

DATASET = "Dataset901_Phantom"
KEY = "foreground_intensity_properties_per_channel"


def read(preprocessed, name):
    return json.loads((preprocessed / f"{name}.json").read_text())


def rewrite(preprocessed, name, change):
    plans = read(preprocessed, name)
    change(plans)
    (preprocessed / f"{name}.json").write_text(json.dumps(plans))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kidney", (-200, 300)),
        ("liver", (-40, 160)),
        ("-200,300", (-200, 300)),
        ("0.5,80", (0.5, 80)),
        ("-1000,-900", (-1000, -900)),
    ],
)
def test_windows(text, expected):
    assert parse_window(text) == expected


@pytest.mark.parametrize("text", ["spleen", "300,-200", "5,5", "5", "1,2,3", "a,b", "nan,1", "", "1e9,2"])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ValueError, match="Expected kidney, liver or LOW,HIGH in HU with LOW below HIGH as -window"):
        parse_window(text)


def test_the_plans_clip_at_the_window_and_nnunet_does_as_they_say(preprocessed):
    base = read(preprocessed, "nnUNetPlans")
    write_variant(DATASET, "nnUNetPlans", "kidney", {}, window=(-200.0, 300.0))
    plans = read(preprocessed, "nnUNetPlans_kidney")
    ours, theirs = plans[KEY]["0"], base[KEY]["0"]
    assert ours == {**theirs, "percentile_00_5": -200, "percentile_99_5": 300}
    image = np.array([[-1000.0, -200, 40, 300, 3000]], dtype=np.float32)
    expected = (np.array([[-200.0, -200, 40, 300, 300]]) - theirs["mean"]) / theirs["std"]
    np.testing.assert_allclose(CTNormalization(False, ours).run(image), expected, rtol=1e-5)


def test_every_configuration_gets_data_of_its_own_and_the_cascade_those_of_its_full_resolution(preprocessed):
    write_variant(DATASET, "nnUNetPlans", "kidney", {}, window=(-200.0, 300.0))
    theirs, ours = (PlansManager(read(preprocessed, name)) for name in ("nnUNetPlans", "nnUNetPlans_kidney"))
    for name in ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"):
        assert ours.get_configuration(name).data_identifier != theirs.get_configuration(name).data_identifier
    fullres, cascade = (ours.get_configuration(name) for name in ("3d_fullres", "3d_cascade_fullres"))
    assert cascade.data_identifier == fullres.data_identifier == "nnUNetPlans_kidney_-200to300_3d_fullres"


def test_windowed_plans_start_a_line_of_their_own_and_their_variants_share_their_data(preprocessed):
    """A teacher of the base plans was trained on other intensities: it is not even looked for."""
    write_variant(DATASET, "nnUNetPlans", "short", {"seed": 1})
    write_variant(DATASET, "nnUNetPlans_short", "kidney", {"beta": 1.8}, window=(-200.0, 300.0))
    write_variant(DATASET, "nnUNetPlans_short_kidney", "w4", {"student": "resnet18_w4"})
    windowed, variant = (
        read(preprocessed, name) for name in ("nnUNetPlans_short_kidney", "nnUNetPlans_short_kidney_w4")
    )
    assert windowed["hlfd"]["settings"] == {"seed": 1, "beta": 1.8}
    assert plans_lineage(windowed) == ["nnUNetPlans_short_kidney"]
    assert plans_lineage(variant) == ["nnUNetPlans_short_kidney_w4", "nnUNetPlans_short_kidney"]
    assert variant["configurations"] == windowed["configurations"]
    assert variant[KEY] == windowed[KEY]


def test_the_command_line_takes_a_negative_window_and_prints_the_command_that_preprocesses(preprocessed, capsys):
    for name, window in (("kidney", ["-window", "kidney"]), ("numbers", ["-window", "-200,300"])):
        assert main(["plan", "-d", "901", "-name", name, *window, "-seed", "1"]) == 0
        output = capsys.readouterr().out
        command = f"nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans_{name} -c 2d 3d_fullres 3d_lowres"
        assert output.splitlines()[-1] == command
        assert "clips at -200 and 300 HU" in output
    assert read(preprocessed, "nnUNetPlans_kidney")[KEY] == read(preprocessed, "nnUNetPlans_numbers")[KEY]
    assert read(preprocessed, "nnUNetPlans_kidney")["hlfd"]["window"] == [-200, 300]


@pytest.mark.parametrize("arguments", [["-window", "300,-200"], ["-window"], ["-window", "-beta", "1"]])
def test_mistakes_on_the_command_line_write_nothing(preprocessed, arguments):
    try:
        code = main(["plan", "-d", "901", "-name", "x", *arguments])
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    assert [each.name for each in preprocessed.iterdir()] == ["nnUNetPlans.json"]


def test_data_without_a_ct_channel_are_refused(preprocessed):
    def to_mr(plans):
        for configuration in plans["configurations"].values():
            if "normalization_schemes" in configuration:
                configuration["normalization_schemes"] = ["ZScoreNormalization"]

    rewrite(preprocessed, "nnUNetPlans", to_mr)
    with pytest.raises(ValueError, match="Expected a channel with CTNormalization for -window, got ZScoreNorm"):
        write_variant(DATASET, "nnUNetPlans", "x", {}, window=(-200.0, 300.0))
    assert not (preprocessed / "nnUNetPlans_x.json").exists()


def test_only_ct_channels_are_clipped(preprocessed):
    def add_pet(plans):
        plans[KEY]["1"] = dict(plans[KEY]["0"])
        for configuration in plans["configurations"].values():
            if "normalization_schemes" in configuration:
                configuration["normalization_schemes"] = ["CTNormalization", "ZScoreNormalization"]

    rewrite(preprocessed, "nnUNetPlans", add_pet)
    write_variant(DATASET, "nnUNetPlans", "x", {}, window=(-200.0, 300.0))
    assert read(preprocessed, "nnUNetPlans_x")[KEY]["1"] == read(preprocessed, "nnUNetPlans")[KEY]["1"]
    assert read(preprocessed, "nnUNetPlans_x")[KEY]["0"]["percentile_99_5"] == 300


def test_a_window_beside_the_foreground_is_refused(preprocessed):
    with pytest.raises(ValueError, match="none lies between 2000 and 3000"):
        write_variant(DATASET, "nnUNetPlans", "x", {}, window=(2000.0, 3000.0))


def test_another_window_under_the_same_name_needs_overwriting_and_never_finds_data_of_the_first(preprocessed):
    write_variant(DATASET, "nnUNetPlans", "x", {}, window=(-200.0, 300.0))
    first = read(preprocessed, "nnUNetPlans_x")
    write_variant(DATASET, "nnUNetPlans", "x", {}, window=(-200.0, 300.0))
    assert read(preprocessed, "nnUNetPlans_x") == first
    with pytest.raises(ValueError, match="window: -40,160 here, -200,300 there"):
        write_variant(DATASET, "nnUNetPlans", "x", {}, window=(-40.0, 160.0))
    with pytest.raises(ValueError, match="window: none here, -200,300 there"):
        write_variant(DATASET, "nnUNetPlans", "x", {})
    write_variant(DATASET, "nnUNetPlans", "x", {}, window=(-40.0, 160.0), overwrite=True)
    second = read(preprocessed, "nnUNetPlans_x")
    for name in ("2d", "3d_fullres", "3d_lowres"):
        assert second["configurations"][name]["data_identifier"] != first["configurations"][name]["data_identifier"]
