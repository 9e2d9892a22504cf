"""A case on its way into the network, read and preprocessed by nnU-Net."""

import gzip
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_hlfd.deploy.runtime.checks import check_image
from nnunetv2_hlfd.deploy.runtime.nifti_file import is_compressed
from nnunetv2_hlfd.deploy.runtime.resample import new_shape
from nnunetv2_hlfd.utilities.atomic import scratch_folder, writing
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
        UserError: for damaged files, too few or too many channels, voxels that make the image larger than
            any, or values that are not finite or become so.
        Exception: of any kind, where nnU-Net cannot read a file.
    """
    for file in files:
        check_image(file)
    try:
        with as_named(files) as names, np.errstate(over="raise"):  # an infinite deviation would make all values 0
            data, segmentation, properties = _preprocess(predictor, names, previous)
    except FloatingPointError as error:
        raise UserError(f"{_listed(files)}: the values overflow when they are scaled ({error})") from error
    if not np.isfinite(data).all():
        raise UserError(f"{_listed(files)}: NaN or infinite values after normalization")
    if previous is not None:
        labels = predictor.label_manager.foreground_labels
        data = np.vstack((data, convert_labelmap_to_one_hot(segmentation[0], labels, data.dtype)))
    return torch.from_numpy(np.ascontiguousarray(data, np.float32)), properties


def _preprocess(
    predictor: nnUNetPredictor, names: Sequence[str], previous: Path | None
) -> tuple[NDArray[np.floating], NDArray[Any], dict[str, Any]]:
    """Read and preprocess as nnU-Net does, with a look at the image in between: clipping hides what is infinite."""
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    reader, preprocessor = plans.image_reader_writer_class(), configuration.preprocessor_class(verbose=False)
    try:
        image, properties = reader.read_images(names)
    except Exception as error:
        if not str(error):  # nnU-Net prints it
            raise UserError(f"nnU-Net refuses {_listed(names)}; what differs is printed above") from error
        raise
    if len(image) != (expected := _expected_channels(predictor)):  # one file may hold several (RGB)
        raise UserError(f"expected {expected} channels, got {len(image)}: {_listed(names)}")
    if not np.isfinite(image).all():
        raise UserError(f"{_listed(names)}: NaN, or values that are infinite in float32")
    _check_size(predictor, image.shape[1:], properties["spacing"])
    if type(preprocessor).run_case is not DefaultPreprocessor.run_case:
        seg_file = None if previous is None else str(previous)
        return preprocessor.run_case(list(names), seg_file, plans, configuration, predictor.dataset_json)
    labels = None if previous is None else reader.read_seg(str(previous))[0]
    return preprocessor.run_case_npy(image, labels, properties, plans, configuration, predictor.dataset_json)


def _check_size(predictor: nnUNetPredictor, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """Refuse an image whose header makes it fill the memory once it is resampled to the model's spacing."""
    axes, target = predictor.plans_manager.transpose_forward, predictor.configuration_manager.spacing
    own = [spacing[axis] for axis in axes]
    new_shape([shape[axis] for axis in axes], own, [*own[: len(own) - len(target)], *target])


@contextmanager
def as_named(files: Sequence[Path]) -> Iterator[list[str]]:
    """Name the files for nnU-Net; of a `.nii.gz` that is not compressed, which nibabel refuses, name a copy that is."""
    with ExitStack() as stack:
        yield [
            str(_compressed_copy(file, stack.enter_context(scratch_folder())))
            if file.name.endswith(".nii.gz") and not is_compressed(file)
            else str(file)
            for file in files
        ]


def _compressed_copy(file: Path, folder: Path) -> Path:
    copy = folder / file.name
    with writing(copy), file.open("rb") as source, gzip.open(copy, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target)
    return copy


def _expected_channels(predictor: nnUNetPredictor) -> int:
    dataset_json = predictor.dataset_json
    return len(dataset_json.get("channel_names") or dataset_json["modality"])


def _listed(files: Iterable[Path | str]) -> str:
    return ", ".join(Path(file).name for file in files)
