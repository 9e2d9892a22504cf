"""The check that no preprocessed image has values that would end a training at some later step."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names

_THREADS = 4
_SILENT_SECONDS = 5


def check_finite_data(trainer: nnUNetTrainer) -> None:
    """Read every image of the fold once.

    nnU-Net hands the images out in random patches: a NaN would be met after hours, or never and yet be learned around.
    Reading takes seconds for hundreds of images, little beside a training.

    Args:
        trainer: initialized.

    Raises:
        UserError: naming the cases with NaN or infinite values.
    """
    datasets = nnUNetTrainer.get_tr_and_val_datasets(trainer)  # a taught student's would carry maps
    cases = {case: dataset for dataset in datasets for case in dataset.identifiers}
    with ThreadPoolExecutor(_THREADS) as readers:
        finite = readers.map(_is_finite, cases.values(), cases)
        bar = tqdm(finite, "Checking images", len(cases), delay=_SILENT_SECONDS, disable=None)
        bad: Sequence[str] = [case for case, is_finite in zip(cases, bar, strict=True) if not is_finite]
    if bad:
        raise UserError(
            f"The preprocessed images of {some_names(bad)} in {datasets[0].source_folder} have NaN or infinite values. "
            f"Mend the images and preprocess them again, or take the cases out of the data set."
        )


def _is_finite(dataset: Any, case: str) -> bool:
    image = dataset.load_case(case)[0]
    return all(bool(np.isfinite(image[channel]).all()) for channel in range(image.shape[0]))
