"""A case on its way into the network, read and preprocessed by nnU-Net."""

import gzip
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from torch import Tensor

from nnunetv2_hlfd.deploy.runtime.nifti_file import check_complete, is_compressed
from nnunetv2_hlfd.utilities.errors import UserError


def prepare_case(
    predictor: nnUNetPredictor, files: Sequence[Path], previous: Path | None
) -> tuple[Tensor, dict[str, Any]]:
    """Return the network's input (C, z, y, x) and nnU-Net's properties of the case.

    Args:
        predictor: whose plans say how.
        files: of the case.
        previous: prediction of the previous stage, whose labels become channels.

    Raises:
        UserError: for damaged files, too few or too many channels, or values that are not finite.
        Exception: of any kind, where nnU-Net cannot read a file.
    """
    for file in files:
        check_complete(file)
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    with as_named(files) as names:
        try:
            data, segmentation, properties = preprocessor.run_case(
                names,
                None if previous is None else str(previous),
                predictor.plans_manager,
                predictor.configuration_manager,
                predictor.dataset_json,
            )
        except Exception as error:
            if not str(error):  # nnU-Net prints it
                raise UserError(f"nnU-Net refuses {_listed(files)}; what differs is printed above") from error
            _check_channels(predictor, names)
            raise
        if len(data) != _expected_channels(predictor):
            _check_channels(predictor, names)
    if not np.isfinite(data).all():
        raise UserError(f"{_listed(files)}: NaN or infinite values after normalization")
    if previous is not None:
        labels = predictor.label_manager.foreground_labels
        data = np.vstack((data, convert_labelmap_to_one_hot(segmentation[0], labels, data.dtype)))
    return torch.from_numpy(np.ascontiguousarray(data, np.float32)), properties


@contextmanager
def as_named(files: Sequence[Path]) -> Iterator[list[str]]:
    """Name the files for nnU-Net; of a `.nii.gz` that is not compressed, which nibabel refuses, name a copy that is."""
    with tempfile.TemporaryDirectory() as temporary:
        names = [str(file) for file in files]
        for number, file in enumerate(files):
            if file.name.endswith(".nii.gz") and not is_compressed(file):
                copy = Path(temporary) / file.name
                with file.open("rb") as source, gzip.open(copy, "wb", compresslevel=1) as target:
                    shutil.copyfileobj(source, target)
                names[number] = str(copy)
        yield names


def _expected_channels(predictor: nnUNetPredictor) -> int:
    dataset_json = predictor.dataset_json
    return len(dataset_json.get("channel_names") or dataset_json["modality"])


def _check_channels(predictor: nnUNetPredictor, names: Sequence[str]) -> None:
    """Say so where a case has too few or too many channels. Only the reader knows: one file may hold several (RGB)."""
    found = len(predictor.plans_manager.image_reader_writer_class().read_images(names)[0])
    expected = _expected_channels(predictor)
    if found != expected:
        raise UserError(f"expected {expected} channels, got {found}: {_listed([Path(name) for name in names])}")


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
