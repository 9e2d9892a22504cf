"""Finished models as a report compares them: validation results, settings, records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_hlfd.models.fold import BEST, FINAL, SUMMARY, folds_with
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.report.cases import LabelValue, read_cases, read_labels
from nnunetv2_hlfd.settings.settings import PLANS_KEY
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names

STUDENT_ALONE = "nnUNetTrainerStudent"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model folder: one run, with one seed.

    Attributes:
        folder: What nnU-Net and this package have written.
        run: Its name in the report: that of the folder, the whole path where several are called the same.
        title: Of its method, for the reader.
        settings: Those of the training, without the seed; empty for a stock nnU-Net model.
        seed: Of the training; None for a stock nnU-Net model.
        records: Fold -> distillation.json; only folds of this package's trainers have one.
        checkpoints: Fold -> the checkpoint that is measured; folds without one are left out.
        labels: Name -> value, or values of a region.
        cases: One row for each validation case and label: fold, case, label, dice, n_pred, n_ref, reference,
            prediction. Dice is NaN where neither truth nor prediction has the label.
    """

    folder: ModelFolder
    run: str
    title: str
    settings: Mapping[str, Any]
    seed: int | None
    records: Mapping[int, Mapping[str, Any]]
    checkpoints: Mapping[int, Path]
    labels: Mapping[str, LabelValue]
    cases: pd.DataFrame

    @property
    def folds(self) -> list[int]:
        """Folds that are validated."""
        return sorted(self.cases["fold"].unique().tolist())

    def checkpoint_names(self, folds: Sequence[int]) -> list[str]:
        """Names of the checkpoints that are measured in these folds, each once; `none` for a fold without one."""
        return list(
            dict.fromkeys(self.checkpoints[fold].name if fold in self.checkpoints else "none" for fold in folds)
        )

    @property
    def architecture(self) -> tuple[Any, ...]:
        """Of the network that is trained: its recorded size, else the setting that chose it."""
        sizes = (record.get("student") for record in self.records.values())
        size = next((size for size in sizes if isinstance(size, Mapping)), None)
        chosen = sorted(size.items()) if size else [self.settings.get("student")]
        return (self.folder.configuration, *chosen)

    @property
    def is_student_alone(self) -> bool:
        """Whether it was trained as a student without a teacher."""
        return self.folder.trainer == STUDENT_ALONE


def read_models(folders: Sequence[Path]) -> list[Model]:
    """Read model folders.

    Raises:
        UserError: for a folder that is given twice, and as `read_model` does.
    """
    paths = [folder.resolve() for folder in folders]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise UserError(f"Expected different model folders, {twice} is given twice.")
    models = [read_model(folder) for folder in folders]
    runs = [model.run for model in models]
    return [replace(model, run=str(model.folder.path)) if runs.count(model.run) > 1 else model for model in models]


def read_model(path: Path) -> Model:
    """Read a model folder.

    Raises:
        UserError: for another folder, one without a validated fold, or damaged files.
    """
    folder = ModelFolder.open(path)
    folds = _validated_folds(folder)
    records = {fold: record for fold in folds if (record := folder.fold(fold).record())}
    checkpoints = {fold: file for fold in folds if (file := folder.fold(fold).first_file(FINAL, BEST))}
    labels = read_labels(folder)
    recorded = next(iter(records.values()), {})
    settings = {**folder.plans.plans.get(PLANS_KEY, {}).get("settings", {}), **recorded.get("settings", {})}
    seed = settings.pop("seed", None)
    return Model(
        folder=folder,
        run=folder.name,
        title=_title(folder.trainer, recorded),
        settings=settings,
        seed=seed,
        records=records,
        checkpoints=checkpoints,
        labels=labels,
        cases=read_cases(folder, folds, labels),
    )


def check_same_cases(models: Sequence[Model]) -> list[int]:
    """The folds that all models have validated.

    Raises:
        UserError: for models of other data, without a common fold, or whose folds hold other cases.
    """
    first = models[0]
    for model in models[1:]:
        if dict(model.labels) != dict(first.labels):
            raise UserError(
                f"Expected models with the same labels, {first.folder.path} has {dict(first.labels)}, "
                f"{model.folder.path} has {dict(model.labels)}."
            )
    folds = sorted(set.intersection(*(set(model.folds) for model in models)))
    if not folds:
        listed = "\n  ".join(f"{model.folder.path}: {', '.join(map(str, model.folds))}" for model in models)
        raise UserError(f"Expected models with a common validated fold, got folds\n  {listed}")
    for fold in folds:
        expected = _cases_of(first, fold)
        for model in models[1:]:
            found = _cases_of(model, fold)
            if found != expected:
                raise UserError(
                    f"Fold {fold} of {model.folder.path} was validated on other cases than that of "
                    f"{first.folder.path}: only there {some_names(found - expected)}, only here "
                    f"{some_names(expected - found)}. Train all models with the same splits_final.json."
                )
    return folds


def _cases_of(model: Model, fold: int) -> set[str]:
    return set(model.cases.loc[model.cases["fold"] == fold, "case"])


def _validated_folds(folder: ModelFolder) -> list[int]:
    """Numbers of the folds with results; fold `all` is validated on its training cases and does not count."""
    validated = [int(fold) for fold in folds_with(folder.path, SUMMARY) if fold != "all"]
    if validated:
        return validated
    folds = [found.name.removeprefix("fold_") for found in folder.path.glob("fold_*") if found.is_dir()]
    if folds == ["all"]:
        raise UserError(
            f"{folder.path} has fold_all alone, which is validated on its training cases. Expected folds of a "
            f"cross-validation."
        )
    fold = min((int(name) for name in folds if name.isdecimal()), default=0)
    raise UserError(
        f"Expected validation results in {folder.fold(fold).file(SUMMARY)}, found none. Make them with: "
        f"{folder.train_command(fold, '--val')}"
    )


def _title(trainer: str, record: Mapping[str, Any]) -> str:
    if trainer == STUDENT_ALONE:
        return "student alone"
    return record.get("method", {}).get("title") or trainer.removeprefix("nnUNetTrainer") or "nnU-Net"
