"""A cascade's previous stage: whose predictions the second stage sees, and whether they are there.

nnU-Net's form: the validation of a 3d_lowres model writes its predictions, resampled for the next stage, into
`predicted_next_stage/CONFIGURATION` of its model folder; all folds together cover the training cases.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names


def choose_previous_stage(trainer: nnUNetTrainer, model: str | None) -> None:
    """Take the predictions of this model of nnUNet_results in place of those of the same trainer and plans."""
    if trainer.is_cascaded and model is not None:
        folder = Path(trainer.output_folder_base).parent / model / "predicted_next_stage" / trainer.configuration_name
        trainer.folder_with_segs_from_previous_stage = str(folder)


def check_previous_stage(trainer: nnUNetTrainer, cases: Sequence[str]) -> None:
    """A cascade needs a prediction of the previous stage for every one of these cases.

    Raises:
        UserError: naming the folder, the cases and the command.
    """
    if trainer.is_cascaded:
        folder = trainer.folder_with_segs_from_previous_stage
        dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, sorted(set(cases)), folder)
        check_predictions(dataset, trainer.plans_manager.dataset_name)


def check_predictions(dataset: nnUNetBaseDataset, dataset_name: str) -> None:
    """Every case needs a prediction of the previous stage on the grid of its preprocessed image.

    Args:
        dataset: nnU-Net's, of the cases that are needed.
        dataset_name: for the command that makes the predictions.

    Raises:
        UserError: naming the folder, the cases and the command.
    """
    folder = Path(dataset.folder_with_segs_from_previous_stage)
    found = set(dataset.get_identifiers(str(folder)) if folder.is_dir() else ())
    missing = [case for case in dataset.identifiers if case not in found]
    if missing:
        raise UserError(
            f"Expected predictions of the previous stage in {folder}, found none for {some_names(missing)}. "
            f"{_command(folder, dataset_name)}"
        )
    for case in tqdm(dataset.identifiers, desc="Previous stage", unit="case", disable=None):
        try:
            image, _, previous, _ = dataset.load_case(case)
        except Exception as error:  # the file formats raise many kinds
            raise UserError(
                f"The previous stage's prediction for {case} in {folder}, or the preprocessed case, is damaged "
                f"({type(error).__name__}). {_command(folder, dataset_name)}"
            ) from error
        if tuple(image.shape[1:]) != tuple(previous.shape):
            raise UserError(
                f"The previous stage's prediction for {case} in {folder} has the shape {tuple(previous.shape)}, the "
                f"preprocessed image {tuple(image.shape[1:])}: the data have been preprocessed anew since. "
                f"{_command(folder, dataset_name)}"
            )


def _command(folder: Path, dataset_name: str) -> str:
    """The command that writes the predictions, and the setting that names others."""
    trainer, plans_name, configuration = folder.parent.parent.name.split("__")
    train = shlex.join(["nnUNetv2_train", dataset_name, configuration, "F", "-tr", trainer, "-p", plans_name])
    return (
        f"Each fold of that model writes those of its validation cases. Train all its folds F: {train} (a trained one: "
        f"the same with --val). Or name another trained model by the setting previous_stage: nnUNetv2_hlfd plan "
        f"-previous_stage {shlex.quote(f'TRAINER__PLANS__{configuration}')} ..."
    )
