"""A cascade's previous stage: whose predictions the second stage sees, and whether they are there.

nnU-Net's form: the validation of a 3d_lowres model writes its predictions, resampled for the next stage, into
`predicted_next_stage/CONFIGURATION` of its model folder; all folds together cover the training cases.
"""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names


class CascadeTrainer(nnUNetTrainer):
    """nnU-Net's trainer whose previous stage can be chosen and is looked at before anything needs it."""

    def choose_previous_stage(self, model: str | None) -> None:
        """Take the predictions of this model of nnUNet_results in place of those of the same trainer and plans."""
        if self.is_cascaded and model is not None:
            folder = Path(self.output_folder_base).parent / model / "predicted_next_stage" / self.configuration_name
            self.folder_with_segs_from_previous_stage = str(folder)

    def check_previous_stage(self) -> None:
        """A cascade needs a prediction of the previous stage for every case of its fold."""
        if self.is_cascaded:
            training, validation = self.do_split()
            self._check_predictions([*training, *validation])
            self.print_to_log_file(f"Previous stage: {self.folder_with_segs_from_previous_stage}", add_timestamp=False)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net; `--val` comes here without a start of training."""
        if self.is_cascaded:
            self._check_predictions(self.do_split()[1])
        super().perform_actual_validation(save_probabilities)

    def _check_predictions(self, cases: Sequence[str]) -> None:
        dataset = self.dataset_class(
            self.preprocessed_dataset_folder, sorted(set(cases)), self.folder_with_segs_from_previous_stage
        )
        check_predictions(dataset, self.plans_manager.dataset_name)


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
            f"{_way_out(folder, dataset_name)}"
        )
    for case in tqdm(dataset.identifiers, desc="Previous stage", unit="case", disable=None):
        try:
            image, _, previous, _ = dataset.load_case(case)
        except Exception as error:  # the file formats raise many kinds
            raise UserError(
                f"The previous stage's prediction for {case} in {folder}, or the preprocessed case, is damaged "
                f"({type(error).__name__}). {_way_out(folder, dataset_name)}"
            ) from error
        if tuple(image.shape[1:]) != tuple(previous.shape):
            raise UserError(
                f"The previous stage's prediction for {case} in {folder} has the shape {tuple(previous.shape)}, the "
                f"preprocessed image {tuple(image.shape[1:])}: the data have been preprocessed anew since. "
                f"{_way_out(folder, dataset_name)}"
            )


def _way_out(folder: Path, dataset_name: str) -> str:
    """The command that writes the predictions, and the setting that names others."""
    trainer, plans_name, configuration = folder.parent.parent.name.split("__")
    return (
        f"Each fold of that model writes those of its validation cases. Train all its folds F: nnUNetv2_train "
        f"{dataset_name} {configuration} F -tr {trainer} -p {plans_name} (a trained one: the same with --val). Or name "
        f"another trained model by the setting previous_stage: nnUNetv2_hlfd plan -previous_stage "
        f"TRAINER__PLANS__{configuration} ..."
    )
