"""Which cases a trained fold has held out, as far as the files of its model and its data set tell.

What was validated was not necessarily held out: nnU-Net validates fold `all` on its training cases, and a
splits_final.json may list a case for both.
"""

from nnunetv2_hlfd.datasets.locations import preprocessed_folder
from nnunetv2_hlfd.datasets.splits import read_splits
from nnunetv2_hlfd.models.fold import FoldFolder
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.errors import UserError

SPLIT_FILE = "splits_final.json"
_NUM_FOLDS = 5  # that nnU-Net makes


def validated_cases(fold: FoldFolder, file_ending: str) -> list[str]:
    """Return the sorted names of the cases in a fold's validation, from summary.json, else from its files.

    Args:
        fold: Of the model.
        file_ending: Of the model's own images. Names of cases may have dots, so the file names do not tell it.

    Raises:
        UserError: for a damaged summary.json.
    """
    predictions = fold.file("validation").glob(f"*{file_ending}")
    names = fold.results() if fold.is_validated else [prediction.name for prediction in predictions]
    return sorted(name.removesuffix(file_ending) for name in names)


def held_out_cases(model: ModelFolder, fold: str) -> list[str]:
    """Return the sorted names of the cases that a fold was certainly not trained on; what is unknown is left out.

    They are the validated cases without those that the data set's splits_final.json, where it is on this machine,
    names among the training cases of the fold. Fold `all` has held out none, and neither has one that was validated on
    as many cases as the data set has.

    Args:
        model: Its plans name the data set.
        fold: Such as 0 or all.

    Raises:
        UserError: for a damaged summary.json, dataset.json or splits_final.json.
    """
    total = model.dataset_json.get("numTraining", 0)
    validated = validated_cases(model.fold(fold), model.file_ending)
    if fold == "all" or 0 < total <= len(validated):
        return []
    trained = set(split_of(model.plans.dataset_name, fold)[0])
    return [case for case in validated if case not in trained]


def check_fold(dataset: str, fold: int | str) -> None:
    """The data set's split has the fold; nnU-Net would draw other cases for one that is beyond it.

    Args:
        dataset: Its name. Before its first training nnU-Net has made no split, and will make five folds.
        fold: A number or 'all'.

    Raises:
        UserError: naming the split's file.
    """
    file = preprocessed_folder() / dataset / SPLIT_FILE
    number = len(read_splits(file)) if file.is_file() else _NUM_FOLDS
    if isinstance(fold, int) and fold >= number:
        raise UserError(f"Expected folds 0-{number - 1}, those of {file}, or 'all', got {fold}.")


def split_of(dataset: str, fold: str) -> tuple[list[str], list[str]]:
    """Return the training and the validation cases of a numbered fold in the data set's splits_final.json.

    Args:
        dataset: Its name.
        fold: A number.

    Returns:
        Two empty lists where the file is not on this machine or has no such fold.

    Raises:
        UserError: for a damaged file.
    """
    try:
        file = preprocessed_folder() / dataset / SPLIT_FILE
    except UserError:
        return [], []
    try:
        splits = read_splits(file)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    if not fold.isdecimal() or int(fold) >= len(splits):
        return [], []
    return splits[int(fold)]["train"], splits[int(fold)]["val"]
