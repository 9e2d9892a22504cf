"""DICOM-SEG files of a segmentation, read back by highdicom."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from descriptions import make_description
from dicom_series import write_series

from nnunetv2_hlfd.deploy.runtime.colors import label_color
from nnunetv2_hlfd.deploy.runtime.description import Label
from nnunetv2_hlfd.deploy.runtime.dicom import find_series, write_volume
from nnunetv2_hlfd.deploy.runtime.dicom_seg import write_dicom_seg

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (6, 8, 10))
LABELS = (VOLUME > 0).astype(np.uint8) + (VOLUME > 500)
MODEL = replace(make_description(), labels=(Label(name="whole", values=(1, 2)), Label(name="core " * 20, values=(2,))))


def complete(_header, _number):
    """As a scanner writes it."""


def bare(header, number):
    """As SimpleITK's own example writes it."""
    del header.FrameOfReferenceUID, header.SliceThickness
    header.StudyInstanceUID = f"1.2.3.{number}"


@pytest.mark.parametrize("change", [complete, bare])
@pytest.mark.parametrize("labels", [LABELS, np.zeros_like(LABELS)], ids=["some", "none"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_region_is_a_segment_in_its_place(tmp_path, change, labels):
    write_series(tmp_path / "in", VOLUME)
    headers = []
    for number, file in enumerate(sorted((tmp_path / "in").iterdir())):
        header = pydicom.dcmread(file)
        change(header, number)
        header.save_as(file)
        headers.append(header)
    [series] = find_series(tmp_path, 1, tmp_path / "out").values()
    image = SimpleITK.GetImageFromArray(labels)
    image.CopyInformation(SimpleITK.ReadImage(str(write_volume(series, tmp_path, 0))))
    SimpleITK.WriteImage(image, str(tmp_path / "labels.nii.gz"))
    write_dicom_seg(tmp_path / "labels.nii.gz", series, MODEL, tmp_path / "labels.seg.dcm")

    written = highdicom.seg.segread(tmp_path / "labels.seg.dcm")
    described = [written.get_segment_description(number) for number in written.segment_numbers]
    assert [segment.segment_label for segment in described] == ["whole", ("core " * 20)[:64].strip()]
    colors = [highdicom.color.CIELabColor.from_rgb(*bytes.fromhex(label_color(index)[1:])).value for index in (0, 1)]
    assert [tuple(segment.RecommendedDisplayCIELabValue) for segment in described] == colors
    slices = sorted(headers, key=lambda header: header.ImagePositionPatient[2])
    found = written.get_pixels_by_source_instance([header.SOPInstanceUID for header in slices])
    np.testing.assert_array_equal(found, np.stack([labels > 0, labels == 2], axis=-1))
