"""Finished model folders of nnU-Net as they lie on disk: validation results, settings, records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region

from nnunetv2_hlfd.plans.identity import RECORD_FILE
from nnunetv2_hlfd.settings.settings import PLANS_KEY
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.text import some_names

LabelValue = int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model folder (TRAINER__PLANS__CONFIGURATION): one run, with one seed.

    Attributes:
        run: its name in the report: that of the folder, the whole path where several are called the same.
        trainer: the class that trained it.
        title: of its method, for the reader.
        settings: those of the training, without the seed; empty for a stock nnU-Net model.
        records: fold -> distillation.json; only folds of this package's trainers have one.
        labels: name -> value, or values of a region.
        cases: one row for each validation case and label: fold, case, label, dice, n_pred, n_ref, reference,
            prediction. Dice is NaN where neither truth nor prediction has the label.
    """

    folder: Path
    run: str
    trainer: str
    plans_name: str
    configuration: str
    title: str
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int | None
    records: Mapping[int, Mapping[str, Any]]
    labels: Mapping[str, LabelValue]
    cases: pd.DataFrame

    @property
    def folds(self) -> list[int]:
        """Folds that are validated."""
        return sorted(self.cases["fold"].unique().tolist())


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
    return [replace(model, run=str(model.folder)) if runs.count(model.run) > 1 else model for model in models]


def read_model(folder: Path) -> Model:
    """Read a model folder.

    Raises:
        UserError: for another folder, one without a validated fold, or damaged files.
    """
    words = folder.resolve().name.split("__")
    if len(words) != 3:
        raise UserError(
            f"Expected a model folder of nnU-Net, named TRAINER__PLANS__CONFIGURATION, got {folder}. They lie in "
            f"nnUNet_results/DATASET."
        )
    trainer, plans_name, configuration = words
    plans, dataset_json = _read(folder, "plans.json"), _read(folder, "dataset.json")
    folds = _validated_folds(folder, dataset_json, words)
    records = {fold: read_json(file) for fold in folds if (file := folder / f"fold_{fold}" / RECORD_FILE).is_file()}
    labels = _labels(dataset_json, folder)
    recorded = next(iter(records.values()), {})
    settings = {**plans.get(PLANS_KEY, {}).get("settings", {}), **recorded.get("settings", {})}
    seed = settings.pop("seed", None)
    return Model(
        folder=folder,
        run=folder.resolve().name,
        trainer=trainer,
        plans_name=plans_name,
        configuration=configuration,
        title=_title(trainer, recorded),
        plans=plans,
        dataset_json=dataset_json,
        settings=settings,
        seed=seed,
        records=records,
        labels=labels,
        cases=_read_cases(folder, folds, labels),
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
                f"Expected models with the same labels, {first.folder} has {dict(first.labels)}, {model.folder} has "
                f"{dict(model.labels)}."
            )
    folds = sorted(set.intersection(*(set(model.folds) for model in models)))
    if not folds:
        listed = "\n  ".join(f"{model.folder}: {', '.join(map(str, model.folds))}" for model in models)
        raise UserError(f"Expected models with a common validated fold, got folds\n  {listed}")
    for fold in folds:
        expected = _cases_of(first, fold)
        for model in models[1:]:
            found = _cases_of(model, fold)
            if found != expected:
                raise UserError(
                    f"Fold {fold} of {model.folder} was validated on other cases than that of {first.folder}: only "
                    f"there {some_names(found - expected)}, only here {some_names(expected - found)}. Train all models "
                    f"with the same splits_final.json."
                )
    return folds


def _cases_of(model: Model, fold: int) -> set[str]:
    return set(model.cases.loc[model.cases["fold"] == fold, "case"])


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        return read_json(folder / name)
    except FileNotFoundError as error:
        raise UserError(f"Expected a model folder of nnU-Net with {name}, got {folder}.") from error


def _validated_folds(folder: Path, dataset_json: Mapping[str, Any], words: Sequence[str]) -> list[int]:
    """Numbers of the folds with results; fold `all` is validated on its training cases and does not count."""
    numbers = [each.name.removeprefix("fold_") for each in folder.glob("fold_*") if each.is_dir()]
    folds = sorted(int(each) for each in numbers if each.isdigit() and _summary(folder, int(each)).is_file())
    if folds:
        return folds
    if numbers == ["all"]:
        raise UserError(
            f"{folder} has fold_all alone, which is validated on its training cases. Expected folds of a "
            f"cross-validation."
        )
    trainer, plans_name, configuration = words
    fold = min((int(each) for each in numbers if each.isdigit()), default=0)
    raise UserError(
        f"Expected validation results in {_summary(folder, fold)}, found none. Make them with: nnUNetv2_train "
        f"{folder.resolve().parent.name} {configuration} {fold} -tr {trainer} -p {plans_name} --val"
    )


def _summary(folder: Path, fold: int) -> Path:
    return folder / f"fold_{fold}" / "validation" / "summary.json"


def _labels(dataset_json: Mapping[str, Any], folder: Path) -> dict[str, LabelValue]:
    """Name -> value of every label or region but background and ignore, as summary.json keys them."""
    try:
        return {
            name: tuple(value) if isinstance(value, list | tuple) else int(value)
            for name, value in dataset_json["labels"].items()
            if name not in ("background", "ignore")
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'dataset.json'} is damaged: {error!r}") from error


def _read_cases(folder: Path, folds: Sequence[int], labels: Mapping[str, LabelValue]) -> pd.DataFrame:
    names = {value: name for name, value in labels.items()}
    rows = []
    for fold in folds:
        file = _summary(folder, fold)
        try:
            for case in read_json(file)["metric_per_case"]:
                prediction = Path(case["prediction_file"]).name
                for key, metrics in case["metrics"].items():
                    rows.append(
                        {
                            "fold": fold,
                            "case": prediction.split(".")[0],
                            "label": names[_value(key)],
                            "dice": float(metrics["Dice"]),
                            "n_pred": int(metrics["n_pred"]),
                            "n_ref": int(metrics["n_ref"]),
                            "reference": case["reference_file"],
                            "prediction": str(file.parent / prediction),
                        }
                    )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{file} is damaged or of another data set: {error!r}") from error
    table = pd.DataFrame(rows)
    twice = table[table.duplicated(["case", "label"])]
    if len(twice):
        raise UserError(f"{folder} was validated on {twice['case'].iloc[0]} in more than one fold.")
    return table


def _value(key: str) -> LabelValue:
    value = key_to_label_or_region(key)
    return value if isinstance(value, tuple) else int(value)


def _title(trainer: str, record: Mapping[str, Any]) -> str:
    if trainer == "nnUNetTrainerStudent":
        return "student alone"
    return record.get("method", {}).get("title") or trainer.removeprefix("nnUNetTrainer") or "nnU-Net"
