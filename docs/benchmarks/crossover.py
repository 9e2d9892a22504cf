"""Raw results and tables of crossover.sh: every case's Dice in every arm, and what protocol.md compares.

python docs/benchmarks/crossover.py DATA_SET [NNUNET_RESULTS]

DATA_SET is lgg or hippocampus; its folder DATA_SET_crossover gets cases.csv, runs.csv and, in runs/, curve and record
of every finished run. Without NNUNET_RESULTS the tables are printed from the folder as it is. A case's Dice is the mean
over the labels. Only cases that every arm has judged are compared.
"""

import sys
from pathlib import Path

import pandas as pd
from collect_runs import write_curve, write_record

from nnunetv2_hlfd.report.bootstrap import Bootstrap
from nnunetv2_hlfd.report.formatting import format_interval, format_p
from nnunetv2_hlfd.report.statistics import holm, wilcoxon_p
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.markdown import markdown_table

HERE = Path(__file__).parent
# the true labels, the teacher's segmentations, configuration
DATA_SETS = {
    "lgg": ("Dataset112_LGGFlair", "Dataset212_LGGHard", "2d"),
    "hippocampus": ("Dataset004_Hippocampus", "Dataset204_HippocampusHard", "3d_fullres"),
}
# arm: whose labels (0: the true ones), trainer, plans, folds
ARMS = {
    "teacher": (0, "nnUNetTrainerStudent", "halfteacher", (0, 1)),
    "true labels": (0, "nnUNetTrainerStudent", "w8.s1", (2, 3, 4, 5)),
    "6 true labels": (0, "nnUNetTrainerStudent", "w8.s1", (6, 7, 8, 9)),
    "hard labels": (1, "nnUNetTrainerStudent", "w8.s1", (2, 3, 4, 5)),
    "soft labels": (1, "nnUNetTrainerSoftLabel", "soft.s1.t*", (2, 3, 4, 5)),
    "HLFD balanced": (1, "nnUNetTrainerHLFD_balanced", "soft.s1.t*", (2, 3, 4, 5)),
}
FAMILY = ("hard labels", "soft labels", "HLFD balanced")  # against the true labels of the same images
OTHERS = (("soft labels", "6 true labels"), ("soft labels", "hard labels"), ("true labels", "6 true labels"))


def collect(data_set: str, results: Path, output: Path) -> None:
    """Write what is finished."""
    *datasets, configuration = DATA_SETS[data_set]
    (output / "runs").mkdir(parents=True, exist_ok=True)
    cases, runs = [], []
    for arm, (labels, trainer, plans, folds) in ARMS.items():
        for fold in folds:
            model = f"{datasets[labels]}/{trainer}__nnUNetPlans_{plans}__{configuration}"
            for file in results.glob(f"{model}/fold_{fold}/validation/summary.json"):
                folder = file.parents[1]
                name = f"{arm.replace(' ', '_')}__fold_{fold}"
                curve = write_curve(folder, output / "runs" / f"{name}_epochs.csv")
                write_record(folder, output / "runs" / f"{name}_record.json")
                cases += [
                    {"arm": arm, "fold": fold, "case": Path(case["reference_file"]).name.split(".")[0], "label": label}
                    | {key: metrics[key] for key in ("Dice", "n_ref", "n_pred")}
                    for case in read_json(file)["metric_per_case"]
                    for label, metrics in case["metrics"].items()
                ]
                runs.append({"arm": arm, "fold": fold, "training_seconds": round(sum(curve["seconds"]))})
    pd.DataFrame(cases).to_csv(output / "cases.csv", index=False)
    pd.DataFrame(runs).to_csv(output / "runs.csv", index=False)


def tables(output: Path) -> None:
    """Print the page's tables."""
    dice = pd.read_csv(output / "cases.csv").pivot_table(index="case", columns="arm", values="Dice")
    dice = dice[[arm for arm in ARMS if arm in dice]].dropna()
    bootstrap = Bootstrap(len(dice))

    def difference(first: str, second: str) -> str:
        return format_interval(bootstrap.mean((dice[first] - dice[second]).to_numpy()).cut(1))

    family = [arm for arm in FAMILY if arm in dice]
    p_values = [wilcoxon_p((dice[arm] - dice["true labels"]).to_numpy()) for arm in family]
    adjusted = dict(zip(family, holm(p_values), strict=True))
    rows = [
        [
            arm,
            f"{dice[arm].mean():.3f}",
            difference(arm, "true labels") if arm != "true labels" else "-",
            format_p(adjusted[arm]) if arm in adjusted else "-",
            difference(arm, "teacher") if arm != "teacher" else "-",
        ]
        for arm in dice
    ]
    print(f"{len(dice)} cases\n")
    print(markdown_table(["Arm", "Dice", "To the true labels", "Holm p", "To the teacher"], rows))
    for first, second in OTHERS:
        if {first, second} <= set(dice):
            print(f"{first} minus {second}: {difference(first, second)}")


if __name__ == "__main__":
    name, *source = sys.argv[1:]
    if source:
        collect(name, Path(source[0]), HERE / f"{name}_crossover")
    tables(HERE / f"{name}_crossover")
