"""What a network file says about itself, written and read."""

import json

import pytest

from nnunetv2_hlfd.deploy.runtime.description import Description, Normalization, Resampling, read_description

DESCRIPTION = Description(
    name="model",
    file_ending=".nii.gz",
    transpose=(0, 1, 2),
    spacing=(1.0, 2.0),
    patch_size=(64, 64),
    normalization=(Normalization(scheme="CTNormalization", use_mask=False, mean=1, std=2, lower=0, upper=9),),
    resample_image=Resampling(order=3, order_z=0, force_separate_z=None),
    resample_logits=Resampling(order=1, order_z=0, force_separate_z=None),
    heads=3,
    regions_class_order=None,
    mirror_axes=(0, 1),
)


def test_reading_is_the_inverse_of_writing():
    assert read_description(DESCRIPTION.to_json(), "file") == DESCRIPTION
    assert DESCRIPTION.channels == 1


@pytest.mark.parametrize("text", [None, ""])
def test_a_file_without_description_is_refused(text):
    with pytest.raises(ValueError, match=r"network\.onnx says nothing about preprocessing"):
        read_description(text, "network.onnx")


def test_another_version_is_refused():
    text = json.dumps({**json.loads(DESCRIPTION.to_json()), "format": 2})
    with pytest.raises(ValueError, match="written by another version"):
        read_description(text, "file")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "normalization": 5}'])
def test_damage_is_named(text):
    with pytest.raises(ValueError, match=r"description of preprocessing in network\.onnx is damaged"):
        read_description(text, "network.onnx")
