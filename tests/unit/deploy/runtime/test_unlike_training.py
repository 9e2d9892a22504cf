"""Images that are unlike those of the training are named, others are not."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from descriptions import make_description

from nnunetv2_hlfd.deploy.runtime.description import Normalization, Training
from nnunetv2_hlfd.deploy.runtime.images import read_image
from nnunetv2_hlfd.deploy.runtime.readers.reader import Image
from nnunetv2_hlfd.deploy.runtime.unlike_training import compare_found, compare_image

SCHEME = Normalization(scheme="ZScoreNormalization", use_mask=False, mean=180, std=15, lower=140, upper=220)
MODEL = replace(
    make_description(),
    normalization=(SCHEME,),
    channel_names=("MR",),
    training=Training(spacing=((2.0, 3.0), (0.8, 1.0), (0.8, 1.0)), orientations=("LPS", "RAS")),
)


def scan(*, spacing=(2.5, 0.9, 0.9), orientation="LPS", change=lambda values: values):
    values = np.random.default_rng(0).normal(100, 15, (6, 20, 20)).astype(np.float32)
    values[2:4, 5:15, 5:15] += 80
    return Image(data=change(values)[None], spacing=spacing, orientation=orientation)


def test_an_image_like_those_of_the_training_is_not_mentioned():
    for spacing in ((2.0, 0.8, 0.8), (4.4, 1.4, 0.6)):
        assert compare_image(scan(spacing=spacing), MODEL) == []
    assert compare_image(scan(orientation="RAS"), MODEL) == []
    assert compare_image(scan(orientation=None), MODEL) == []


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            {"spacing": (5.0, 0.9, 0.9)},
            "the spacing is 5 x 0.9 x 0.9 mm (z, y, x), that of the training images 2 x 0.8",
        ),
        ({"spacing": (2.5, 0.9, 0.5)}, "the spacing is 2.5 x 0.9 x 0.5 mm"),
        ({"orientation": "LSA"}, "the voxel axes point to LSA, those of the training images to LPS or RAS"),
        ({"change": lambda values: values * 100}, "channel 0 (MR): the intensities are 6"),
        ({"change": lambda values: values / 255}, "channel 0 (MR): the intensities are 0.2"),
        ({"change": lambda values: values + 1000}, "inside the labels of the training images they are 140 to 220"),
        ({"change": lambda values: values * 0}, "channel 0 (MR): all voxels have the same value"),
        ({"change": lambda values: values * 0 + 150}, "channel 0 (MR): all voxels have the same value"),
    ],
)
def test_what_is_far_from_the_training_is_named(change, warning):
    [found] = compare_image(scan(**change), MODEL)
    assert warning in found


def test_air_around_the_patient_does_not_count():
    """A volume of zeros with little in it, as after skull stripping."""

    def crop(values):
        values[:, :, :9] = 0
        return values

    assert compare_image(scan(change=crop), MODEL) == []


def test_what_was_found_in_other_intensities_is_named():
    image = scan()
    labels = np.zeros((6, 20, 20), np.uint8)
    assert compare_found(labels, image, MODEL) == []
    labels[2:4, 5:15, 5:15] = 1
    assert compare_found(labels, image, MODEL) == []
    [warning] = compare_found(1 - labels, image, MODEL)
    assert warning.startswith("channel 0 (MR): what was found has a median of ")


def test_an_export_that_knows_nothing_of_the_training_compares_nothing():
    model = replace(MODEL, training=None, normalization=(replace(SCHEME, lower=1.0, upper=1.0),))
    assert compare_image(scan(spacing=(9, 9, 9), change=lambda values: values * 100), model) == []


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("known", [True, False])
def test_a_header_without_orientation_is_named(tmp_path, reader, known):
    file = tmp_path / "a_0000.nii.gz"
    image = SimpleITK.GetImageFromArray(np.ones((3, 4, 5), np.float32))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    SimpleITK.WriteImage(image, str(file), useCompression=False)
    if not known:
        whole = bytearray(gzip.decompress(file.read_bytes()))
        whole[252:256] = bytes(4)  # qform_code, sform_code
        file.write_bytes(gzip.compress(bytes(whole)))
    found = read_image([file], make_description(reader))
    wanted = [] if known else ["a_0000.nii.gz does not say how its voxels lie in the patient (orientation)"]
    assert list(found.warnings) == wanted
    if known:  # what is turned may lie anyhow
        assert found.orientation == (None if reader.endswith("Reorient") else "PSL")


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient"])
@pytest.mark.parametrize("known", [True, False])
def test_so_is_an_nrrd_file_without_space(tmp_path, known, reader):
    file = tmp_path / "a_0000.nrrd"
    space = (
        "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\n" if known else "spacings: 1 1 2\n"
    )
    head = f"NRRD0004\ntype: uint8\ndimension: 3\n{space}sizes: 2 2 2\nencoding: raw\n\n"
    file.write_bytes(head.encode() + bytes(range(8)))
    found = read_image([file], make_description(reader, ".nrrd"))
    assert len(found.warnings) == (0 if known else 1)
