"""Collect the raw results of first_runs.sh from nnU-Net's results folder: tables, records, curves.

python docs/benchmarks/collect_first_runs.py "$nnUNet_results" docs/benchmarks/first_runs
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from nnunetv2_hlfd.checkpoints import read_checkpoint

matplotlib.use("agg")
from matplotlib import pyplot as plt

RUNS = (
    ("Dataset112_LGGFlair", "2d", "short"),
    ("Dataset004_Hippocampus", "2d", "short2d"),
    ("Dataset004_Hippocampus", "3d_fullres", "short3d"),
    ("Dataset004_Hippocampus", "3d_fullres", "short3d_long"),
    ("Dataset112_LGGFlair", "2d", "short_image"),
)
TRAINERS = ("nnUNetTrainerTeacher", "nnUNetTrainerStudent", "nnUNetTrainerHLFD")


def main(results: Path, output: Path) -> None:
    """Write everything that is finished."""
    output.mkdir(parents=True, exist_ok=True)
    table = []
    for dataset, configuration, name in RUNS:
        curves = {}
        for trainer in TRAINERS:
            fold = results / dataset / f"{trainer}__nnUNetPlans_{name}__{configuration}" / "fold_0"
            if not (fold / "validation" / "summary.json").is_file():
                continue
            prefix = f"{dataset}_{configuration}_{name}_{trainer}"
            curves[trainer] = _write_curve(fold, output / f"{prefix}_epochs.csv")
            cases = _write_cases(fold / "validation" / "summary.json", output / f"{prefix}_cases.csv")
            predicted = results / "predicted" / f"{dataset}_{configuration}_{name}_{trainer}" / "summary.json"
            if predicted.is_file():
                raw = _write_cases(predicted, output / f"{prefix}_raw_cases.csv")
                cases |= {f"{label} (raw images)": value for label, value in raw.items()}
            _write_record(fold, output / f"{prefix}_record.json")
            log = fold / "distillation_log.csv"
            row = {"data set": dataset, "configuration": configuration, "plans": f"nnUNetPlans_{name}",
                   "trainer": trainer, **cases,
                   "epoch_seconds_median": round(float(np.median(curves[trainer]["seconds"])), 1)}  # fmt: skip
            if log.is_file():
                (output / f"{prefix}_distillation_log.csv").write_bytes(log.read_bytes())
                (output / f"{prefix}_terms.png").write_bytes((fold / "distillation_progress.png").read_bytes())
                row |= _first_and_last_quarter(log)
            table.append(row)
        if curves:
            _plot(curves, f"{dataset} {configuration} {name}", output / f"{dataset}_{configuration}_{name}.png")
    (output / "summary.json").write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table, indent=2))


def _write_curve(fold: Path, target: Path) -> dict[str, list[float]]:
    logging = read_checkpoint(fold / "checkpoint_final.pth")["logging"]
    ends, starts = logging["epoch_end_timestamps"], logging["epoch_start_timestamps"]
    curve = {
        "train_loss": [float(each) for each in logging["train_losses"]],
        "val_loss": [float(each) for each in logging["val_losses"]],
        "pseudo_dice": [float(each) for each in logging["mean_fg_dice"]],
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


def _write_record(fold: Path, target: Path) -> None:
    """distillation.json without the absolute path of the teacher."""
    record = json.loads((fold / "distillation.json").read_text())
    for network in record.get("teacher", {}).get("networks", []):
        network["folder"] = Path(network["folder"]).name
    target.write_text(json.dumps(record, indent=2) + "\n")


def _first_and_last_quarter(log: Path) -> dict[str, Any]:
    rows = list(csv.DictReader(log.open()))
    quarter = len(rows) // 4
    return {
        f"{term} (first, last quarter)": [
            round(float(np.mean([float(row[term]) for row in part])), 4) for part in (rows[:quarter], rows[-quarter:])
        ]
        for term in ("segmentation", "ufd", "ifd", "upd", "ipd")
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
    main(Path(sys.argv[1]), Path(sys.argv[2]))
