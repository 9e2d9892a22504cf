"""What a network file says about itself, written and read."""

import json

import pytest
from descriptions import make_description

from nnunetv2_hlfd.deploy.runtime.description import read_description

DESCRIPTION = make_description("NibabelIO")


def test_reading_is_the_inverse_of_writing():
    assert read_description(DESCRIPTION.to_json(), "file") == DESCRIPTION
    assert DESCRIPTION.channels == 1


def test_what_was_exported_before_readers_were_named_is_read_by_simpleitk():
    content = json.loads(DESCRIPTION.to_json())
    del content["reader"]
    assert read_description(json.dumps(content), "file").reader == "SimpleITKIO"


@pytest.mark.parametrize("text", [None, ""])
def test_a_file_without_description_is_refused(text):
    with pytest.raises(ValueError, match=r"network\.onnx says nothing about preprocessing"):
        read_description(text, "network.onnx")


def test_another_version_is_refused():
    text = json.dumps({**json.loads(DESCRIPTION.to_json()), "format": 2})
    with pytest.raises(ValueError, match="written by another version"):
        read_description(text, "file")


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "normalization": 5}'])
def test_damage_is_named(text):
    with pytest.raises(ValueError, match=r"description of preprocessing in network\.onnx is damaged"):
        read_description(text, "network.onnx")


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("axes", [[0, 0], [2], [-1], [0, 1, 0], [True]])
def test_axes_that_an_image_cannot_be_mirrored_on_are_damage(axes):
    text = json.dumps({**json.loads(DESCRIPTION.to_json()), "mirror_axes": axes})
    with pytest.raises(ValueError, match=r"network\.onnx is damaged: mirror_axes"):
        read_description(text, "network.onnx")
