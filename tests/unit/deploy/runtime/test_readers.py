"""The readers of predict.pyz against nnU-Net's own, on the kinds of files that people have."""

import gzip
import json
import sys

import imageio.v3
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from descriptions import make_description
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from PIL import Image as Pillow

from nnunetv2_hlfd.deploy.runtime.images import read_image, write_segmentation
from nnunetv2_hlfd.deploy.runtime.readers import READERS, find_reader

SHAPE = (5, 7, 9)
PERMUTED = (0, 0, 1, -1, 0, 0, 0, -1, 0)
TURN = np.deg2rad(20)
ROTATED = (np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0, 0, 0, 1)


def noise(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(100, 30, shape).astype(np.float32)


def pixels(shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def itk(*, ending=".nii.gz", direction=None, spacings=((0.8, 0.9, 2.5),), shape=SHAPE):
    """Writes one file for each spacing."""

    def write(folder):
        files = []
        for channel, spacing in enumerate(spacings):
            image = SimpleITK.GetImageFromArray(noise(shape, channel))
            image.SetSpacing(spacing)
            image.SetOrigin((-30.5, 12.25, 7)[: len(shape)])
            if direction:
                image.SetDirection(direction)
            files.append(folder / f"case_{channel:04d}{ending}")
            SimpleITK.WriteImage(image, str(files[-1]))
        return files

    return write


def nifti(affine, *, kind=nibabel.Nifti1Image, ending=".nii.gz", zooms=None):
    def write(folder):
        image = kind(noise(SHAPE), affine)
        if zooms:
            image.header.set_zooms(zooms)
        nibabel.save(image, folder / f"case_0000{ending}")
        return [folder / f"case_0000{ending}"]

    return write


def flat(content, ending, save):
    def write(folder):
        save(folder / f"case_0000{ending}", content)
        return [folder / f"case_0000{ending}"]

    return write


def tiff(*, spacing):
    def write(folder):
        tifffile.imwrite(folder / "case_0000.tif", noise())
        if spacing:
            (folder / "case.json").write_text(json.dumps({"spacing": spacing}))
        return [folder / "case_0000.tif"]

    return write


def nrrd(*, encoding, order):
    """As other programs than SimpleITK write it, with axes of its own."""

    def write(folder):
        voxels = noise().astype(f"{order}i2").tobytes()
        header = (
            "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 9 7 5\n"
            "space directions: (0,0,2) (0.9,0,0) (0,-0.8,0)\nspace origin: (1,2,3)\n"
            f"endian: {'big' if order == '>' else 'little'}\nencoding: {encoding}\n\n"
        )
        content = gzip.compress(voxels) if encoding == "gzip" else voxels
        (folder / "case_0000.nrrd").write_bytes(header.encode() + content)
        return [folder / "case_0000.nrrd"]

    return write


def mha(folder):
    """With the most significant byte first, axes turned, and not compressed."""
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nOffset = 1 2 3\n"
        "TransformMatrix = 0 0 1 -1 0 0 0 -1 0\nElementSpacing = 0.8 0.9 2.5\nDimSize = 9 7 5\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (folder / "case_0000.mha").write_bytes(header.encode() + noise().astype(">i2").tobytes())
    return [folder / "case_0000.mha"]


def one_volume_in_4d(folder):
    nibabel.save(nibabel.Nifti1Image(noise()[..., None], np.diag((-1, -1, 2, 1))), folder / "case_0000.nii.gz")
    return [folder / "case_0000.nii.gz"]


def big_endian(folder):
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(noise().astype(">i2"), SHEARED, header=header)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, folder / "case_0000.nii.gz")
    return [folder / "case_0000.nii.gz"]


def transparent(file, content):
    Pillow.fromarray(content).quantize(16).save(file, transparency=bytes(range(16)))


def plane_by_plane(file, content):
    colors = {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(file, content, byteorder=">", **colors)


def palette(file, content):
    Pillow.fromarray(content).quantize(16).save(file)


SHEARED = np.array([[-1, 0, 0, 3], [0, 1, 0.5, -4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
TURNED = np.array([[0, 0, 2, 3], [-1, 0, 0, -4], [0, 1.5, 0, 5], [0, 0, 0, 1.0]])
INPUTS = {
    "permuted": ("SimpleITKIO", itk(direction=PERMUTED)),
    "rotated, two channels": ("SimpleITKIO", itk(direction=ROTATED, spacings=((0.8, 0.9, 2.5), (0.8, 0.9, 2.5)))),
    "rounded header": ("SimpleITKIO", itk(spacings=((0.8, 0.9, 2.5), (0.8, 0.9, 2.4999990463)))),
    "flat": ("SimpleITKIO", itk(shape=(7, 9), spacings=((0.7, 0.9),))),
    "nrrd": ("SimpleITKIO", itk(ending=".nrrd", direction=ROTATED)),
    "mha": ("SimpleITKIO", itk(ending=".mha", direction=PERMUTED)),
    "mhd": ("SimpleITKIO", itk(ending=".mhd", direction=PERMUTED)),
    "big-endian nrrd": ("SimpleITKIO", nrrd(encoding="raw", order=">")),
    "gzipped nrrd": ("SimpleITKIO", nrrd(encoding="gzip", order="<")),
    "gzipped big-endian nrrd, reoriented": ("SimpleITKIOWithReorient", nrrd(encoding="gzip", order=">")),
    "big-endian mha": ("SimpleITKIO", mha),
    "gipl": ("SimpleITKIO", itk(ending=".gipl")),
    "one volume in 4d": ("SimpleITKIO", one_volume_in_4d),
    "reoriented": ("SimpleITKIOWithReorient", itk(direction=PERMUTED)),
    "reoriented nrrd": ("SimpleITKIOWithReorient", itk(ending=".nrrd", direction=ROTATED)),
    "sheared": ("NibabelIO", nifti(SHEARED)),
    "turned": ("NibabelIO", nifti(TURNED, ending=".nii")),
    "NIfTI-2": ("NibabelIO", nifti(TURNED, kind=nibabel.Nifti2Image)),
    "zooms that are not the affine's": ("NibabelIO", nifti(SHEARED, zooms=(1, 1.25, 2.5))),
    "big-endian, scaled": ("NibabelIO", big_endian),
    "big-endian, scaled, reoriented": ("NibabelIOWithReorient", big_endian),
    "sheared, reoriented": ("NibabelIOWithReorient", nifti(SHEARED)),
    "turned, reoriented": ("NibabelIOWithReorient", nifti(TURNED)),
    "gray png": ("NaturalImage2DIO", flat(pixels((7, 9)), ".png", imageio.v3.imwrite)),
    "gray png of 16 bits": ("NaturalImage2DIO", flat(pixels((7, 9)).astype(np.uint16) * 9, ".png", imageio.v3.imwrite)),
    "RGB png": ("NaturalImage2DIO", flat(pixels((7, 9, 3)), ".png", imageio.v3.imwrite)),
    "RGBA png": ("NaturalImage2DIO", flat(pixels((7, 9, 4)), ".png", imageio.v3.imwrite)),
    "palette png": ("NaturalImage2DIO", flat(pixels((7, 9, 3)), ".png", palette)),
    "transparent palette png": ("NaturalImage2DIO", flat(pixels((7, 9, 3)), ".png", transparent)),
    "RGBA tif": ("NaturalImage2DIO", flat(pixels((7, 9, 4)), ".tif", tifffile.imwrite)),
    "RGBA tif, plane by plane": ("NaturalImage2DIO", flat(pixels((4, 7, 9)), ".tif", plane_by_plane)),
    "RGB bmp": ("NaturalImage2DIO", flat(pixels((7, 9, 3)), ".bmp", imageio.v3.imwrite)),
    "RGB tif": ("NaturalImage2DIO", flat(pixels((7, 9, 3)), ".tif", tifffile.imwrite)),
    "RGB tif, color by color": ("NaturalImage2DIO", flat(pixels((3, 7, 9)), ".tif", tifffile.imwrite)),
    "gray tif": ("NaturalImage2DIO", flat(noise((7, 9)), ".tif", tifffile.imwrite)),
    "3d tif": ("Tiff3DIO", tiff(spacing=[2, 1, 1.5])),
    "3d tif without spacing": ("Tiff3DIO", tiff(spacing=None)),
}


@pytest.mark.filterwarnings("ignore:.*photometric:DeprecationWarning")
@pytest.mark.parametrize("name", INPUTS)
def test_voxels_spacing_and_what_is_written_are_nnunets(tmp_path, name):
    reader, write = INPUTS[name]
    files = write(tmp_path)
    ending = files[0].name.removeprefix("case_0000")
    nnunets = recursive_find_reader_writer_by_name(reader)()
    expected, properties = nnunets.read_images([str(file) for file in files])
    model = make_description(reader, ending, channels=len(expected))
    image = read_image(files, model)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.data, expected)
    np.testing.assert_allclose(image.spacing, properties["spacing"], rtol=1e-12)

    labels = np.random.default_rng(1).integers(0, 3, expected.shape[1:]).astype(np.uint8)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    write_segmentation(labels, image, ours / f"case{ending}", model)
    nnunets.write_seg(labels, str(theirs / f"case{ending}"), properties)
    assert [file.name for file in sorted(ours.iterdir())] == [file.name for file in sorted(theirs.iterdir())]
    assert_same_files(ours / f"case{ending}", theirs / f"case{ending}", reader)


def assert_same_files(ours, theirs, reader):
    read = recursive_find_reader_writer_by_name(reader)().read_seg
    (one, described), (two, wanted) = read(str(ours)), read(str(theirs))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(described["spacing"], wanted["spacing"], rtol=1e-12)
    if reader.startswith("Nibabel"):
        images = [nibabel.load(file) for file in (ours, theirs)]
        np.testing.assert_allclose(*(image.affine for image in images))
        assert len({(image.get_data_dtype(), image.header.get_zooms(), image.shape) for image in images}) == 1
    elif reader.startswith("SimpleITK"):
        images = [SimpleITK.ReadImage(str(file)) for file in (ours, theirs)]
        for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelID"):
            np.testing.assert_allclose(*(getattr(image, what)() for image in images), err_msg=what)


def test_every_reader_of_the_table_was_tried():
    assert {reader for reader, _ in INPUTS.values()} == set(READERS)


def test_a_file_lies_elsewhere_than_another(tmp_path):
    """nnU-Net warns and predicts, since the voxels may fit nevertheless."""
    write = itk(spacings=((0.8, 0.9, 2.5), (0.8, 0.9, 2.5)))
    files = write(tmp_path)
    image = SimpleITK.ReadImage(str(files[1]))
    image.SetOrigin((0, 0, 0))
    SimpleITK.WriteImage(image, str(files[1]))
    for reader in ("SimpleITKIO", "NibabelIO"):
        [warning] = read_image(files, make_description(reader, channels=2)).warnings
        assert warning == "case_0001.nii.gz has another origin or direction than case_0000.nii.gz"


@pytest.mark.parametrize(
    ("reader", "write", "message"),
    [
        ("NaturalImage2DIO", flat(pixels((7, 9, 4)), ".png", imageio.v3.imwrite), "expected 3 channels, got 4: "),
        ("NaturalImage2DIO", flat(pixels((7, 9)), ".png", imageio.v3.imwrite), "expected 3 channels, got 1: "),
        ("NaturalImage2DIO", flat(noise((2, 7, 9, 2)), ".tif", tifffile.imwrite), "expected gray, RGB or RGBA"),
        ("Tiff3DIO", flat(pixels((7, 9)), ".tif", tifffile.imwrite), "expected an image of 3 dimensions, got 2"),
        ("Tiff3DIO", tiff(spacing=[1, 2]), "case.json: expected a spacing of 3 numbers above 0"),
        ("Tiff3DIO", tiff(spacing=["a"]), "case.json: expected {"),
        ("NibabelIO", itk(shape=(7, 9), spacings=((0.7, 0.9),)), "expected an image of 3 dimensions, got 2"),
        ("SimpleITKIOWithReorient", itk(shape=(7, 9), spacings=((1, 2),)), "expected an image of 3 dimensions, got 2"),
    ],
)
def test_what_a_reader_cannot_take_is_refused(tmp_path, reader, write, message):
    files = write(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_image(files, make_description(reader, channels=3))


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ValueError, match="pip install imageio tifffile"):
        find_reader("NaturalImage2DIO")
    assert find_reader("SimpleITKIO") is READERS["SimpleITKIO"]


def test_an_unknown_reader_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Expected one of the readers SimpleITKIO, .*, got DicomIO"):
        find_reader("DicomIO")
