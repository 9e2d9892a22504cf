"""Image files of every format, cut off and with voxels that are no numbers."""

import struct
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from descriptions import make_description

from nnunetv2_hlfd.deploy.runtime.checks import check_image, last_line
from nnunetv2_hlfd.deploy.runtime.errors import UserError
from nnunetv2_hlfd.deploy.runtime.images import is_finished, read_image, write_segmentation
from nnunetv2_hlfd.deploy.runtime.network import Network
from nnunetv2_hlfd.deploy.runtime.predict import predict_labels
from nnunetv2_hlfd.deploy.runtime.readers.itk import Geometry
from nnunetv2_hlfd.deploy.runtime.readers.reader import Image

FORMATS = {
    ".nii.gz": "SimpleITKIO",
    ".nii": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".gipl": "SimpleITKIO",
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
    ".tif": "Tiff3DIO",
}
GEOMETRY = {
    "SimpleITKIO": Geometry(spacing=(1, 1, 1), origin=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)),
    "NaturalImage2DIO": None,
    "Tiff3DIO": (1, 1, 1),
}


def write(labels, file, reader):
    image = Image(data=labels[None].astype(np.float32), spacing=(1, 1, 1), geometry=GEOMETRY[reader])
    write_segmentation(labels, image, file, make_description(reader))


@pytest.mark.parametrize("ending", FORMATS)
def test_a_segmentation_that_is_cut_off_anywhere_is_not_finished(tmp_path, ending):
    reader = FORMATS[ending]
    shape = (1, 40, 50) if reader == "NaturalImage2DIO" else (7, 40, 50)
    file = tmp_path / f"a{ending}"
    write(np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8), file, reader)
    model = make_description(reader)
    assert is_finished(file, model)
    whole = file.read_bytes()
    for length in {*range(0, len(whole), len(whole) // 25), *range(len(whole) - 30, len(whole))}:
        file.write_bytes(whole[:length])
        assert not is_finished(file, model), f"{length} of {len(whole)} bytes"
    file.write_bytes(bytes(len(whole)))
    assert not is_finished(file, model)


def test_what_a_library_writes_wrongly_does_not_replace_the_old_segmentation(tmp_path):
    """Labels that are no integers."""
    file = tmp_path / "a.png"
    labels = np.ones((1, 4, 5), np.uint8)
    write(labels, file, "NaturalImage2DIO")
    before = file.read_bytes()
    with pytest.raises(UserError, match=rf"could not write {file}: .*The previous file, if any, is intact"):
        write(np.full((1, 4, 5), 2.5), file, "NaturalImage2DIO")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_voxel_that_is_no_number_is_refused_where_simpleitk_makes_it_zero(tmp_path, value, dtype, kind):
    voxels = np.ones((70, 80, 90), dtype)  # more than one block
    file = tmp_path / "a_0000.nii.gz"
    header = kind.header_class(endianness=dtype[0])
    header.set_data_dtype(dtype)
    nibabel.save(kind(voxels, np.eye(4), header), file)
    check_image(file)
    voxels[65, 70, 80] = value
    nibabel.save(kind(voxels, np.eye(4), header), file)
    with pytest.raises(UserError, match=r"^a_0000\.nii\.gz has NaN or infinite voxels$"):
        read_image([file], make_description())


def with_slope(file, slope):
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), 30_000, np.int16), np.eye(4)), file)
    content = bytearray(file.read_bytes())
    struct.pack_into("<f", content, 112, slope)
    file.write_bytes(content)


@pytest.mark.filterwarnings("ignore:overflow")
def test_values_beyond_float32_are_refused_although_clipping_would_hide_them(tmp_path):
    files = [tmp_path / name for name in ("a.nii", "b.nii", "c.mha")]
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), 1e300), np.eye(4)), files[0])
    with_slope(files[1], 1e36)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.full((4, 5, 6), np.nan)), str(files[2]))
    for file in files:
        with pytest.raises(UserError, match=rf"^{file.name}: NaN, or values that are infinite in float32"):
            read_image([file], make_description())


def predicted(values, logit=0.0):
    described = make_description()
    model = replace(described, normalization=(replace(described.normalization[0], scheme="ZScoreNormalization"),))

    def run(batch):
        return np.full((len(batch), model.heads, *batch.shape[2:]), logit, np.float32)

    return predict_labels(Image(data=values[None], spacing=(1, 1, 1)), [Network(run=run, description=model)])


def test_values_that_overflow_when_they_are_scaled_are_refused_and_large_ones_are_not():
    values = np.random.default_rng(0).random((20, 40, 40), np.float32)
    assert not predicted(values * np.float32(1e12)).any()
    with pytest.raises(UserError, match="the image's values overflow when they are scaled"):
        predicted(values * np.float32(1e25))  # its deviation is infinite: all scaled values would be 0


@pytest.mark.faults("NaN, infinite values and impossible sizes")
@pytest.mark.parametrize("logit", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_no_background(logit):
    with pytest.raises(UserError, match="the network's output is not finite"):
        predicted(np.random.default_rng(0).random((20, 40, 40), np.float32), logit)


def test_an_error_is_told_by_its_last_line():
    assert last_line(RuntimeError("in the source, line 5\n  No space left \n\n")) == "No space left"
    assert last_line(RuntimeError()) == "RuntimeError()"
