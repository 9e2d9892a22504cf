"""Plans and preprocessed cases of a data set, found and checked before anything is trained on them."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.datasets.locations import preprocessed_folder
from nnunetv2_hlfd.plans.identity import base_plans_name
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json

_NO_PLANS = {"dataset", "dataset_fingerprint", "splits_final"}


def find_plans(dataset: str, name: str) -> Path:
    """The file of plans.

    Args:
        dataset: full name, `DatasetXXX_Name`.
        name: of the plans, or of a variant of them.

    Raises:
        UserError: for a data set that was not planned, or plans that it does not have.
    """
    folder = preprocessed_folder() / dataset
    file = folder / f"{name}.json"
    if file.is_file():
        return file
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("Dataset*"))
        raise UserError(
            f"Expected the planned data set in {folder}, found none.{nearest(dataset, others) if others else ''} Make "
            f"it with: nnUNetv2_plan_and_preprocess -d {dataset[7:10]}"
        )
    plans = sorted(path.stem for path in folder.glob("*.json") if path.stem not in _NO_PLANS)
    raise UserError(
        f"Expected plans at {file}, found none.{nearest(name, plans) if plans else ''} nnU-Net makes its plans with: "
        f"nnUNetv2_plan_and_preprocess -d {dataset[7:10]}; plans with settings of your own are made from them with: "
        f"nnUNetv2_hlfd plan -d {dataset[7:10]} -name NAME"
    )


def check_preprocessed(plans: Mapping[str, Any], configuration: str) -> None:
    """The plans have the configuration, and its cases are preprocessed with them.

    One case is looked at: its size tells the spacing that it was resampled to.

    Raises:
        UserError: naming the nearest configuration, or nnU-Net's command that makes the cases.
    """
    if configuration not in plans["configurations"]:
        names = [*plans["configurations"]]
        raise UserError(f"{plans['plans_name']} has no configuration '{configuration}'.{nearest(configuration, names)}")
    manager = PlansManager(dict(plans))
    folder = preprocessed_folder() / manager.dataset_name / manager.get_configuration(configuration).data_identifier
    command = _command(plans, configuration)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise UserError(f"Expected preprocessed cases in {folder}, found none. Make them with: {command}")
    _check_one_case(manager, configuration, folder, command)


def _command(plans: Mapping[str, Any], configuration: str) -> str:
    """nnU-Net's command that preprocesses; a cascade's second stage has the data of the plans that it inherits from."""
    entry = plans["configurations"][configuration]
    while "data_identifier" not in entry and "inherits_from" in entry:
        configuration = entry["inherits_from"]
        entry = plans["configurations"][configuration]
    number = plans["dataset_name"][7:10]
    return shlex.join(["nnUNetv2_preprocess", "-d", number, "-plans_name", base_plans_name(plans), "-c", configuration])


def _check_one_case(manager: PlansManager, configuration: str, folder: Path, command: str) -> None:
    config = manager.get_configuration(configuration)
    dataset = infer_dataset_class(str(folder))(str(folder))
    case = min(dataset.identifiers)
    data, _, _, properties = dataset.load_case(case)
    dataset_json = read_json(folder.parent / "dataset.json")
    channels = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    expected = [len(channels), *data.shape[1:]]
    if config.preprocessor_class is DefaultPreprocessor:
        expected[1:] = _size(manager, config.spacing, properties)
    if list(data.shape) != expected:
        there, here = ("x".join(map(str, shape)) for shape in (data.shape, expected))
        raise UserError(
            f"The preprocessed cases in {folder} were made with other plans or from other images: {case} has the shape "
            f"{there}, and with {manager.plans_name} it would have {here}. Make them again with: {command}"
        )


def _size(manager: PlansManager, spacing: list[float], properties: Mapping[str, Any]) -> list[int]:
    """Size of a case at the plans' spacing, as nnU-Net's preprocessor rounds it; 2d keeps its slices."""
    own = [properties["spacing"][axis] for axis in manager.transpose_forward]
    cropped = properties["shape_after_cropping_and_before_resampling"]
    target = [*own[: len(cropped) - len(spacing)], *spacing]
    return [int(extent) for extent in compute_new_shape(cropped, own, target)]
