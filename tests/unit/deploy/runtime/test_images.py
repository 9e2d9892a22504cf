"""Cases of a folder, and what is wrong with one."""

import gzip
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK
from descriptions import make_description
from faults import run_on_disk

from nnunetv2_hlfd.deploy.runtime.checks import check_complete
from nnunetv2_hlfd.deploy.runtime.hidden_folder import hidden_folder
from nnunetv2_hlfd.deploy.runtime.images import find_cases, is_finished, read_image, write_segmentation

MODEL = make_description()
TWO_CHANNELS = make_description(channels=2)


def write(file, shape=(3, 4, 5), spacing=(1, 1, 1)):
    image = SimpleITK.GetImageFromArray(np.ones(shape, np.float32))
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(file))
    return file


def test_channels_of_a_case_come_together_in_order(tmp_path):
    names = ["b_0001", "b_0000", "a_x_0000", "b_0000.json", "c"]
    for name in names:
        (tmp_path / (name if name.endswith(".json") else f"{name}.nii.gz")).touch()
    cases = find_cases(tmp_path, ".nii.gz")
    assert list(cases) == ["a_x", "b"]
    assert [file.name for file in cases["b"]] == ["b_0000.nii.gz", "b_0001.nii.gz"]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_images_is_refused(tmp_path, there):
    folder = tmp_path if there else tmp_path / "missing"
    with pytest.raises(ValueError, match=r"Expected images named CASE_0000\.nii\.gz in .*, found none"):
        find_cases(folder, ".nii.gz")


def test_missing_channels_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected 2 channels, got 1: a_0000\.nii\.gz"):
        read_image([write(tmp_path / "a_0000.nii.gz")], TWO_CHANNELS)


@pytest.mark.parametrize("difference", [{"shape": (3, 4, 6)}, {"spacing": (1, 1, 2)}])
def test_channels_that_do_not_fit_together_are_named(tmp_path, difference):
    files = [write(tmp_path / "a_0000.nii.gz"), write(tmp_path / "a_0001.nii.gz", **difference)]
    with pytest.raises(ValueError, match=r"a_0001\.nii\.gz has another shape or spacing than a_0000\.nii\.gz"):
        read_image(files, TWO_CHANNELS)


@pytest.mark.faults("truncated and damaged files")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [">i2", "<f4", "<u1"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_truncated_file_is_damaged_which_simpleitk_does_not_say(tmp_path, kind, dtype, ending):
    data = np.random.default_rng(0).integers(0, 200, (30, 20, 10)).astype(dtype)
    image = kind(data, np.eye(4), header=kind.header_class(endianness=dtype[0]))
    image.set_data_dtype(dtype)
    file = tmp_path / f"a_0000{ending}"
    nibabel.save(image, file)
    check_complete(file)
    whole = file.read_bytes()
    for share in (0.9, 0.5, 0.02):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"a_0000\.nii(\.gz)? is (truncated|damaged)"):
            read_image([file], MODEL)
    if ending == ".nii.gz":
        file.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
        with pytest.raises(ValueError, match="is damaged: "):
            check_complete(file)


def written_otherwise(whole, how):
    data = gzip.decompress(whole)
    return {
        "not compressed": data,
        "bytes after the stream": whole + b"bytes of somebody else",
        "one byte after the stream": whole + b"\x1f",
        "zeros after the stream": whole + bytes(1000),
        "two streams": gzip.compress(data[:700]) + gzip.compress(data[700:]),
    }[how]


@pytest.mark.parametrize(
    "how",
    ["not compressed", "bytes after the stream", "one byte after the stream", "zeros after the stream", "two streams"],
)
@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        ("SimpleITKIO", nibabel.Nifti1Image),  # SimpleITK itself knows no NIfTI-2
        ("NibabelIO", nibabel.Nifti1Image),
        ("NibabelIO", nibabel.Nifti2Image),
        ("NibabelIOWithReorient", nibabel.Nifti2Image),
    ],
)
def test_a_file_whose_data_are_whole_is_read_however_it_is_compressed(tmp_path, reader, how, kind):
    data = np.random.default_rng(0).integers(0, 200, (30, 20, 10)).astype(np.int16)
    file = tmp_path / "a_0000.nii.gz"
    nibabel.save(kind(data, np.eye(4)), file)
    whole = file.read_bytes()
    file.write_bytes(written_otherwise(whole, how))
    np.testing.assert_array_equal(read_image([file], make_description(reader)).data[0], data.transpose(2, 1, 0))
    file.write_bytes(written_otherwise(whole, how)[: int(0.7 * len(whole))])
    with pytest.raises(ValueError, match=r"a_0000\.nii\.gz is (truncated|damaged)"):
        read_image([file], make_description(reader))


def test_a_file_that_is_no_nifti_is_damaged_and_other_formats_are_left_to_simpleitk(tmp_path):
    file = tmp_path / "a_0000.nii"
    file.write_bytes(b"not an image" * 100)
    with pytest.raises(ValueError, match=r"a_0000\.nii is damaged: no NIfTI header"):
        check_complete(file)
    check_complete(write(tmp_path / "b_0000.nrrd"))


def test_images_of_four_dimensions_are_refused(tmp_path):
    image = SimpleITK.JoinSeries([SimpleITK.ReadImage(str(write(tmp_path / "a_0000.nii.gz")))] * 2)
    SimpleITK.WriteImage(image, str(tmp_path / "a_0000.nii.gz"))
    with pytest.raises(ValueError, match="expected images of 2 or 3 dimensions, got 4"):
        read_image([tmp_path / "a_0000.nii.gz"], MODEL)


def test_a_segmentation_has_the_images_geometry(tmp_path):
    image = read_image([write(tmp_path / "a_0000.nii.gz", spacing=(0.5, 2, 3))], MODEL)
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    write_segmentation(labels, image, tmp_path / "a.nii.gz", MODEL)
    written = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(written), labels)
    assert written.GetSpacing() == (0.5, 2, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.nii.gz", "a_0000.nii.gz"]


WRITE_OVER = """
import subprocess
import sys
from pathlib import Path
import numpy as np
import SimpleITK
from descriptions import make_description
from nnunetv2_hlfd.deploy.runtime.images import is_finished, write_segmentation
from nnunetv2_hlfd.deploy.runtime.readers.itk import Geometry
from nnunetv2_hlfd.deploy.runtime.readers.reader import Image
target = Path(sys.argv[1])

def write(slices):
    geometry = Geometry(spacing=(1, 1, 1), origin=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    labels = np.random.default_rng(0).integers(0, slices, (slices, 200, 200))
    image = Image(data=np.zeros((1, *labels.shape), np.float32), spacing=(1, 1, 1), geometry=geometry)
    write_segmentation(labels.astype(np.uint8), image, target, make_description())

write(2)
try:
    write(80)
except (ValueError, RuntimeError) as error:
    print(str(error).splitlines()[-1])
print(is_finished(target, make_description()), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(target))).max())
print([file.name for file in target.parent.iterdir()])
"""


@pytest.mark.faults("full, limited and read-only disks")
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (".nii.gz", "is damaged: Compressed"),
        (".nii", "a.nii is truncated"),
        (".nrrd", "failed to write"),
        (".mha", "No space"),
    ],
)
def test_a_full_disk_leaves_the_old_segmentation(tmp_path, ending, reason):
    """SimpleITK writes half of a NIfTI file onto a full disk and says nothing."""
    target = tmp_path / f"a{ending}"
    process = run_on_disk(
        tmp_path,
        "size=512k",
        ["env", f"PYTHONPATH={os.pathsep.join(sys.path)}", sys.executable, "-c", WRITE_OVER, target],
    )
    assert process.returncode == 0, process.stderr
    error, *rest = process.stdout.splitlines()
    assert reason in error
    assert rest == ["True 1", f"['{target.name}']"]


@pytest.mark.faults("killed processes")
def test_what_a_killed_process_left_is_removed_by_the_next_that_writes(tmp_path):
    image = read_image([write(tmp_path / "a_0000.nii.gz")], MODEL)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    with hidden_folder(tmp_path) as own:
        own.with_name(own.name.replace(str(os.getpid()), str(ended.pid))).mkdir()
        write_segmentation(np.ones((3, 4, 5), np.uint8), image, tmp_path / "a.nii.gz", MODEL)
        assert sorted(file.name for file in tmp_path.iterdir()) == [own.name, "a.nii.gz", "a_0000.nii.gz"]


@pytest.mark.faults("truncated and damaged files")
def test_a_result_is_complete_where_it_is_there_and_whole(tmp_path):
    file = write(tmp_path / "a.nii.gz")
    assert is_finished(file, MODEL)
    assert not is_finished(tmp_path / "b.nii.gz", MODEL)
    assert not is_finished(tmp_path / "b.nrrd", MODEL)
    file.write_bytes(file.read_bytes()[:-9])
    assert not is_finished(file, MODEL)
