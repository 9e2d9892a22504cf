"""8-bit post-training quantization, calibrated on training patches, its cost measured on validation cases."""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_hlfd.deploy.runtime.description import Description
from nnunetv2_hlfd.deploy.runtime.network import Network, Run, compile_openvino
from nnunetv2_hlfd.deploy.runtime.predict import predict_logits
from nnunetv2_hlfd.models.fold import SUMMARY
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.split import held_out_cases, split_of, validated_cases
from nnunetv2_hlfd.utilities.dice import dice
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed

if TYPE_CHECKING:
    from openvino import Model

CALIBRATION_PATCHES = 300  # NNCF's own default


@dataclass(frozen=True, kw_only=True)
class DiceCost:
    """Mean Dice over cases and labels on the network's grid, without mirroring."""

    before: float
    after: float
    cases: int

    @property
    def drop(self) -> float:
        """Dice lost by 8 bits."""
        return self.before - self.after


@dataclass(frozen=True, kw_only=True)
class FoldCases:
    """The preprocessed cases that 8 bits of a fold are made from and judged by.

    Attributes:
        calibration: its training cases.
        judged: its validation cases.
        learned: those of `judged` that it may have been trained on.
    """

    calibration: Sequence[str]
    judged: Sequence[str]
    learned: Sequence[str]


def fold_cases(model: ModelFolder, fold: str) -> FoldCases:
    """Find the cases of a fold; for fold all, all cases for both.

    Raises:
        UserError: without preprocessed data, or a fold of which neither the split nor a validation is known.
    """
    folder = str(_preprocessed(model))
    names = sorted(infer_dataset_class(folder)(folder).identifiers)
    if fold == "all":
        return FoldCases(calibration=names, judged=names, learned=names)
    calibration, judged = split_of(model.plans.dataset_name, fold)
    if not judged:  # a fold beyond the split, whose cases nnU-Net has drawn
        judged = validated_cases(model.fold(fold), model.file_ending)
        calibration = [name for name in names if name not in judged]
    if not calibration or not judged:
        raise UserError(
            f"8 bits are calibrated on training cases and judged on validation cases: expected fold {fold} in "
            f"{_data_set(model) / 'splits_final.json'} or its validation results in {model.fold(fold).file(SUMMARY)}, "
            f"found neither."
        )
    held_out = held_out_cases(model, fold)
    return FoldCases(calibration=calibration, judged=judged, learned=[name for name in judged if name not in held_out])


def quantize(network: "Model", model: ModelFolder, cases: Sequence[str]) -> "Model":
    """Quantize an OpenVINO model to 8 bits (weights and activations), by NNCF.

    Args:
        network: float32.
        model: tells the data set; its preprocessed cases are needed.
        cases: that calibrate.

    Raises:
        UserError: without NNCF or preprocessed data.
    """
    nncf = needed("nncf", "openvino")
    return nncf.quantize(network, nncf.Dataset(list(_patches(model, cases))), subset_size=CALIBRATION_PATCHES)


def dice_cost(
    before: "Model", after: "Model", model: ModelFolder, cases: Sequence[str], description: Description
) -> DiceCost:
    """Compare two OpenVINO models on preprocessed cases."""
    runs = [compile_openvino(network) for network in (before, after)]
    scores: list[list[float]] = [[], []]
    for data, truth in tqdm(_cases(model, cases), total=len(cases), desc="Dice in 8 bits"):
        for run, values in zip(runs, scores, strict=True):
            values += _case_dice(run, data, truth, model, description)
    means = [float(np.nanmean(values)) for values in scores]
    return DiceCost(before=means[0], after=means[1], cases=len(cases))


def _case_dice(
    run: Run, data: NDArray[np.float32], truth: NDArray[Any], model: ModelFolder, description: Description
) -> list[float]:
    network = Network(run=run, description=description)
    logits = predict_logits(data, [network], step_size=0.5, mirroring=False)
    labels = model.plans.get_label_manager(model.dataset_json)
    valid = truth != labels.ignore_label if labels.has_ignore_label else np.ones_like(truth, bool)
    winners = logits.argmax(0)
    values = []
    for index, label in enumerate(labels.foreground_regions if labels.has_regions else labels.foreground_labels):
        predicted = valid & ((logits[index] > 0) if labels.has_regions else winners == label)
        values.append(dice(predicted, valid & np.isin(truth, label)))
    return values


def _data_set(model: ModelFolder) -> Path:
    root = os.environ.get("nnUNet_preprocessed")
    folder = Path(root or "") / model.plans.dataset_name
    if not root or not folder.is_dir():
        raise UserError(
            f"8 bits are calibrated on preprocessed cases: expected {model.plans.dataset_name} in the folder that "
            f"the environment variable nnUNet_preprocessed names ({root or 'not set'})."
        )
    return folder


def _preprocessed(model: ModelFolder) -> Path:
    folder = _data_set(model) / model.configuration_manager.data_identifier
    if not folder.is_dir():
        raise UserError(
            f"Expected preprocessed cases in {folder}. Make them with: nnUNetv2_preprocess -d "
            f"{shlex.quote(model.plans.dataset_name)} -c {shlex.quote(model.configuration)}"
        )
    return folder


def _cases(model: ModelFolder, names: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    folder = str(_preprocessed(model))
    data_set = infer_dataset_class(folder)(folder, list(names))
    for name in names:
        data, truth, *_ = data_set.load_case(name)
        yield np.asarray(data[:], np.float32), np.asarray(truth[:])[0]


def _patches(model: ModelFolder, names: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """Yield training patches (1, C, *patch) as nnU-Net's loader cuts them: a third around foreground, not augmented."""
    folder = str(_preprocessed(model))
    patch = model.configuration_manager.patch_size
    loader = nnUNetDataLoader(
        infer_dataset_class(folder)(folder, list(names)),
        1,
        patch,
        patch,
        model.plans.get_label_manager(model.dataset_json),
        oversample_foreground_percent=0.33,
        probabilistic_oversampling=True,
    )
    state = np.random.get_state()
    np.random.seed(0)  # the loader draws from NumPy's global generator
    for _ in range(CALIBRATION_PATCHES):
        yield np.asarray(next(loader)["data"], np.float32)
    np.random.set_state(state)
