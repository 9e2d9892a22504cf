"""Segmentations as DICOM-SEG files beside the series that they belong to, through highdicom."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from .cases import Case
from .colors import label_color
from .description import Description
from .dicom import Series
from .errors import UserError
from .whole_file import whole_file

_PRODUCT = "nnunetv2_hlfd predict.pyz"


def check_dicom_seg(model: Description, cases: Mapping[str, Case]) -> None:
    """Refuse what could not be written at the end.

    Raises:
        UserError: for a missing package, with the command that installs it, cases that are no series, or a model that
            does not tell its labels.
    """
    if others := [name for name, case in cases.items() if case.series is None]:
        raise UserError(f"--dicom_seg is for DICOM series; these are files: {', '.join(others)}.")
    if not model.labels:
        raise UserError("This export does not tell the names of its labels, which DICOM-SEG needs. Export it again.")
    try:
        import highdicom  # noqa: F401 (asks whether it can be imported, before hours of work)
    except ImportError as error:
        raise UserError(f"--dicom_seg needs highdicom ({error}): pip install highdicom") from error


def write_dicom_seg(segmentation: Path, series: Series, model: Description, file: Path) -> None:
    """Write a segmentation as DICOM-SEG, one binary segment for each label or region, which may overlap.

    What kind of tissue a label means is not known: all are coded as SNOMED's Tissue, and named as the labels are.

    Args:
        segmentation: the file that was written, on the grid of the series.
        series: that was segmented.
        model: tells the labels.
        file: to write.

    Raises:
        UserError: where it cannot be written.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    image = SimpleITK.ReadImage(str(segmentation))
    labels = SimpleITK.GetArrayFromImage(image)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=model.name[:64], version="1", family=codes.cid7162.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=index + 1,
            segment_label=label.name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*bytes.fromhex(label_color(index)[1:])),
        )
        for index, label in enumerate(model.labels)
    ]
    written = highdicom.seg.Segmentation(
        source_images=_headers(series, image.GetSpacing()[2]),
        pixel_array=np.stack([np.isin(labels, label.values) for label in model.labels], axis=-1),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="nnunetv2_hlfd",
        manufacturer_model_name=_PRODUCT,
        software_versions="1",
        device_serial_number="0",
        content_description="Automatic segmentation, not checked by a person",
        series_description=f"Segmentation by {model.name}"[:64],
    )
    with whole_file(file) as temporary:
        written.save_as(temporary)


def _headers(series: Series, thickness: float) -> list[Any]:
    """Read the headers of the slices, and add what SimpleITK, for one, leaves out of the series that it writes."""
    import highdicom
    import pydicom

    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in series.files]
    study, frame = headers[0].StudyInstanceUID, headers[0].get("FrameOfReferenceUID") or highdicom.UID()
    for header in headers:
        header.StudyInstanceUID, header.FrameOfReferenceUID = study, frame
        header.SliceThickness = header.get("SliceThickness") or thickness
    return headers
