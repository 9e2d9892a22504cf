"""Preparing an image without nnU-Net against nnU-Net's own preprocessor, and the way back."""

import copy

import numpy as np
import pytest
import SimpleITK
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.deploy.describe import describe
from nnunetv2_hlfd.deploy.runtime.description import Normalization
from nnunetv2_hlfd.deploy.runtime.images import read_image
from nnunetv2_hlfd.deploy.runtime.preprocess import normalize, prepare, to_labels
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.json_file import read_json

SCHEMES = ["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"]
NUMBERS = {"mean": 40.0, "std": 90.0, "percentile_00_5": -80.0, "percentile_99_5": 200.0}


@pytest.fixture
def make_model(nnunet, tmp_path):
    """A model of the tiny data set with other plans; only plans and dataset.json are read."""

    def make(
        configuration="3d_fullres",
        *,
        channels=1,
        regions=False,
        transpose=(0, 1, 2),
        scheme="ZScoreNormalization",
        use_mask=False,
        spacing=None,
    ):
        name = "Dataset903_PhantomRegions" if regions else "Dataset901_Phantom"
        folder = nnunet / "preprocessed" / name
        plans, dataset_json = read_json(folder / "nnUNetPlans.json"), read_json(folder / "dataset.json")
        config = plans["configurations"][configuration]
        config["normalization_schemes"] = [scheme] * channels
        config["use_mask_for_norm"] = [use_mask] * channels
        config["spacing"] = spacing or config["spacing"]
        plans["foreground_intensity_properties_per_channel"] = {str(each): NUMBERS for each in range(channels)}
        plans["transpose_forward"] = list(transpose)
        plans["transpose_backward"] = [int(each) for each in np.argsort(transpose)]
        dataset_json["channel_names"] = {str(each): f"channel {each}" for each in range(channels)}
        return ModelFolder(
            path=tmp_path / f"nnUNetTrainer__nnUNetPlans__{configuration}",
            plans=PlansManager(plans),
            dataset_json=dataset_json,
            configuration=configuration,
            trainer="nnUNetTrainer",
            network_trainer="nnUNetTrainer",
            mirror_axes=(0, 1),
        )

    return make


def write_case(folder, shape, spacing, channels=1):
    """Images with a border of zeros and a hole of zeros inside."""
    rng = np.random.default_rng(1)
    files = []
    for channel in range(channels):
        data = rng.normal(50, 80, shape).astype(np.float32)
        data[:, :3] = 0
        data[..., -4:] = 0
        data[..., shape[-2] // 2, shape[-1] // 2] = 0
        image = SimpleITK.GetImageFromArray(data)
        image.SetSpacing([float(each) for each in reversed(spacing)])
        image.SetOrigin((3, -7, 11))
        image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1) if len(shape) == 3 else (0, 1, -1, 0))
        files.append(folder / f"case_{channel:04d}.nii.gz")
        SimpleITK.WriteImage(image, str(files[-1]))
    return files


def preprocess(trained, files):
    plans = PlansManager(copy.deepcopy(trained.plans.plans))
    data, _, properties = DefaultPreprocessor(verbose=False).run_case(
        [str(file) for file in files],
        None,
        plans,
        plans.get_configuration(trained.configuration),
        trained.dataset_json,
    )
    return data, properties


CASES = [
    {},
    {"channels": 2, "use_mask": True},
    {"transpose": (2, 0, 1)},
    {"configuration": "2d"},
    {"configuration": "2d", "transpose": (1, 0, 2), "use_mask": True},
    {"spacing": [2.0, 2.0, 2.0]},
    {"regions": True},
    *({"scheme": scheme} for scheme in SCHEMES),
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_networks_input_and_the_labels_are_nnunets(make_model, tmp_path, options):
    trained = make_model(**options)
    files = write_case(tmp_path, (9, 40, 46), (8, 6, 5), options.get("channels", 1))
    model = describe(trained, mirroring=True)
    image = read_image(files, model)
    prepared = prepare(image, model)
    expected, properties = preprocess(trained, files)
    np.testing.assert_allclose(prepared.data, expected, atol=1e-4 * max(1, np.abs(expected).max()))

    logits = np.random.default_rng(2).normal(size=(model.heads, *prepared.data.shape[1:])).astype(np.float32)
    plans = trained.plans
    wanted = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, trained.configuration_manager, plans.get_label_manager(trained.dataset_json), properties
    )
    labels = to_labels(logits, prepared, model)
    assert labels.shape == wanted.shape == (9, 40, 46)
    assert (labels == wanted).mean() > 0.9999


def test_a_flat_image_is_one_slice(make_model, tmp_path):
    trained = make_model("2d")
    files = write_case(tmp_path, (40, 46), (6, 5))
    expected, properties = preprocess(trained, files)
    model = describe(trained, mirroring=True)
    image = read_image(files, model)
    np.testing.assert_allclose(image.spacing, properties["spacing"])
    np.testing.assert_allclose(prepare(image, model).data, expected, atol=1e-4)


def test_an_empty_image_is_not_cropped(make_model, tmp_path):
    file = tmp_path / "case_0000.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((4, 30, 30), np.float32)), str(file))
    trained = make_model("2d")
    expected, _ = preprocess(trained, [file])
    model = describe(trained, mirroring=True)
    assert prepare(read_image([file], model), model).data.shape == expected.shape


def test_rgb_is_divided_by_255_and_nothing_else_is_taken_for_it():
    how = Normalization(scheme="RGBTo01Normalization", use_mask=False, mean=0, std=1, lower=0, upper=1)
    channel = np.array([[[0, 51, 255]]], np.float32)
    np.testing.assert_allclose(normalize(channel, channel > 0, how), [[[0, 0.2, 1]]])
    with pytest.raises(ValueError, match=r"RGB values of 0 to 255, got 0\.0 to 510\.0"):
        normalize(channel * 2, channel > 0, how)
    other = Normalization(scheme="Mine", use_mask=False, mean=0, std=1, lower=0, upper=1)
    with pytest.raises(ValueError, match="one of nnU-Net's normalizations, got Mine"):
        normalize(channel, channel > 0, other)
