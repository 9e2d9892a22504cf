"""Collect raw results of the scripts of this folder from nnU-Net's results folder: tables, records, curves.

python docs/benchmarks/collect_runs.py "$nnUNet_results" OUTPUT DATASET/CONFIGURATION/NAME...

NAME is that of the plans variant: nnUNetPlans_NAME. Every trainer that is finished with it is collected.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.text import without_folders

matplotlib.use("agg")
from matplotlib import pyplot as plt

FIRST = ("nnUNetTrainerTeacher", "nnUNetTrainerStudent", "nnUNetTrainerHLFD")


def main(results: Path, output: Path, runs: list[str]) -> None:
    """Write everything that is finished."""
    output.mkdir(parents=True, exist_ok=True)
    table = []
    for run in runs:
        dataset, configuration, name = run.split("/")
        ending = f"__nnUNetPlans_{name}__{configuration}"
        finished = (results / dataset).glob(f"*{ending}/fold_0/validation/summary.json")
        trainers = {summary.parts[-4].removesuffix(ending) for summary in finished}
        curves = {}
        for trainer in sorted(trainers, key=_rank):
            prefix = output / f"{dataset}_{configuration}_{name}_{trainer}"
            fold = results / dataset / f"{trainer}{ending}" / "fold_0"
            curves[trainer] = write_curve(fold, Path(f"{prefix}_epochs.csv"))
            table.append(
                {
                    "data set": dataset,
                    "configuration": configuration,
                    "plans": f"nnUNetPlans_{name}",
                    "trainer": trainer,
                    **_write_run(results, fold, prefix),
                    "epoch_seconds_median": round(float(np.median(curves[trainer]["seconds"])), 1),
                }
            )
        if curves:
            _plot(curves, f"{dataset} {configuration} {name}", output / f"{dataset}_{configuration}_{name}.png")
    write_json(output / "summary.json", table)
    print(json.dumps(table, indent=2))


def _rank(trainer: str) -> tuple[int, str]:
    """Those of FIRST in their order, then the others by name."""
    return FIRST.index(trainer) if trainer in FIRST else len(FIRST), trainer


def _write_run(results: Path, fold: Path, prefix: Path) -> dict[str, Any]:
    """Cases, record and terms of one run; what of it goes into the table."""
    row = _write_cases(fold / "validation" / "summary.json", Path(f"{prefix}_cases.csv"))
    predicted = results / "predicted" / prefix.name / "summary.json"
    if predicted.is_file():
        raw = _write_cases(predicted, Path(f"{prefix}_raw_cases.csv"))
        row |= {f"{label} (raw images)": value for label, value in raw.items()}
    write_record(fold, Path(f"{prefix}_record.json"))
    memory = fold / "peak_memory_KiB.txt"
    if memory.is_file():
        row["peak_memory_GiB"] = round(int(memory.read_text()) / 2**20, 2)
    log = fold / "distillation_log.csv"
    if log.is_file():
        Path(f"{prefix}_distillation_log.csv").write_bytes(log.read_bytes())
        Path(f"{prefix}_terms.png").write_bytes((fold / "distillation_progress.png").read_bytes())
        row |= first_and_last_quarter(log)
    return row


def write_curve(fold: Path, target: Path) -> dict[str, list[float]]:
    """Write and return loss, Dice and seconds of every epoch of a finished run."""
    logging = read_checkpoint(fold / "checkpoint_final.pth")["logging"]
    ends, starts = logging["epoch_end_timestamps"], logging["epoch_start_timestamps"]
    curve = {
        "train_loss": list(map(float, logging["train_losses"])),
        "val_loss": list(map(float, logging["val_losses"])),
        "pseudo_dice": list(map(float, logging["mean_fg_dice"])),
        "seconds": [round(end - start, 2) for start, end in zip(starts, ends, strict=False)],
    }
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *curve])
        writer.writerows([index, *values] for index, values in enumerate(zip(*curve.values(), strict=True)))
    return curve


def _write_cases(source: Path, target: Path) -> dict[str, Any]:
    summary = json.loads(source.read_text())
    labels = list(summary["mean"])
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *(f"Dice_{label}" for label in labels)])
        for case in summary["metric_per_case"]:
            name = Path(case["prediction_file"]).name.split(".")[0]
            writer.writerow([name, *(case["metrics"][label]["Dice"] for label in labels)])
    return {f"Dice_{label}": round(summary["mean"][label]["Dice"], 4) for label in labels}


def write_record(fold: Path, target: Path) -> None:
    """distillation.json without folders of the machine."""
    write_json(target, without_folders(read_json(fold / "distillation.json")))


def first_and_last_quarter(log: Path) -> dict[str, Any]:
    """Return the means of distillation_log.csv over its first and last quarter."""
    rows = list(csv.DictReader(log.open()))
    quarter = len(rows) // 4
    return {
        f"{term} (first, last quarter)": [
            round(float(np.mean([float(row[term]) for row in part])), 4) for part in (rows[:quarter], rows[-quarter:])
        ]
        for term in rows[0]
        if term != "epoch" and not term.endswith("_weighted")
    }


def _plot(curves: dict[str, dict[str, list[float]]], title: str, target: Path) -> None:
    figure, (dice, loss) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for trainer, curve in curves.items():
        label = trainer.removeprefix("nnUNetTrainer")
        dice.plot(curve["pseudo_dice"], label=label)
        loss.plot(curve["val_loss"], label=label)
    figure.suptitle(title)
    dice.set(title="pseudo Dice (validation patches)", xlabel="epoch", ylim=(0, 1))
    loss.set(title="validation loss (teacher: nnU-Net's, students: focal Dice)", xlabel="epoch")
    for axes in (dice, loss):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(target, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
