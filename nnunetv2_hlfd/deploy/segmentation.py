"""The files of a predicted case as nnU-Net writes them, whole or not at all, and whether those that are there are."""

import pickle
import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from numpy.typing import NDArray

from nnunetv2_hlfd.deploy.runtime.checks import check_segmentation, is_whole
from nnunetv2_hlfd.utilities.atomic import partial_folder, publish, writing


def write_case(
    predictor: nnUNetPredictor,
    logits: NDArray[np.floating],
    properties: dict[str, Any],
    target: Path,
    *,
    save_probabilities: bool,
) -> None:
    """Write the files that nnU-Net's export leaves; the segmentation, which marks a finished case, comes last.

    Args:
        predictor: that has predicted the case.
        logits: (K, z, y, x) on the grid of the preprocessed image.
        properties: of the case, by nnU-Net's preprocessing.
        target: file of the segmentation.
        save_probabilities: write CASE.npz and CASE.pkl beside it.

    Raises:
        UserError: where a file cannot be written; the previous ones are intact.
    """
    result = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.label_manager,
        properties,
        return_probabilities=save_probabilities,
    )
    segmentation, probabilities = result if save_probabilities else (result, None)
    reader = predictor.plans_manager.image_reader_writer_class()

    def compare(written: Path) -> None:
        if not np.array_equal(reader.read_seg(str(written))[0][0], segmentation):
            raise OSError("what was written is read back as something else")

    with partial_folder(target) as folder, writing(target, library_errors=(Exception,)):
        if probabilities is not None:
            np.savez_compressed(folder / _beside(predictor, target, ".npz").name, probabilities=probabilities)
            with (folder / _beside(predictor, target, ".pkl").name).open("wb") as file:
                pickle.dump(properties, file)
        reader.write_seg(segmentation, str(folder / target.name), properties)
        check_segmentation(folder / target.name, compare)  # some libraries say nothing of a full disk
        for path in sorted(folder.iterdir(), key=lambda path: path.name == target.name):
            publish(path, target.with_name(path.name))


def is_finished(predictor: nnUNetPredictor, target: Path, *, with_probabilities: bool) -> bool:
    """Return whether the files of a case are there, whole, and can be read.

    Args:
        predictor: whose reader reads them.
        target: file of the segmentation.
        with_probabilities: whether CASE.npz and CASE.pkl are asked for.
    """
    reader = predictor.plans_manager.image_reader_writer_class()
    if not is_whole(target, lambda file: reader.read_seg(str(file))):
        return False
    return not with_probabilities or (
        _is_whole_archive(_beside(predictor, target, ".npz")) and _is_whole_pickle(_beside(predictor, target, ".pkl"))
    )


def _beside(predictor: nnUNetPredictor, target: Path, suffix: str) -> Path:
    """CASE with another ending; the name of a case may have dots."""
    return target.with_name(target.name.removesuffix(predictor.dataset_json["file_ending"]) + suffix)


def _is_whole_archive(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def _is_whole_pickle(file: Path) -> bool:
    """Walk through its operations, of which none is run."""
    try:
        for _ in pickletools.genops(file.read_bytes()):
            pass
    except (OSError, ValueError, EOFError):
        return False
    return True
