"""Collect the raw results of a study: its report, and the curves, terms and record of every finished run.

python docs/benchmarks/collect_study.py STUDY.yaml OUTPUT

OUTPUT gets the report's files and, in runs/, NAME_epochs.csv, NAME_terms.csv and NAME_record.json; terms.csv says how
each raw term of each run fell, terms.png shows it.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from collect_runs import first_and_last_quarter, write_curve, write_record

from nnunetv2_hlfd.study.plan import plan_runs, study_folder
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.study.spec import read_study

matplotlib.use("agg")
from matplotlib import pyplot as plt

_COLUMNS = 4


def main(file: Path, output: Path) -> None:
    """Write everything that is finished."""
    study = read_study(file)
    runs = plan_runs(study)
    report = study_folder(study, runs) / "report"
    if report.is_dir():
        shutil.copytree(report, output, dirs_exist_ok=True)
    (output / "runs").mkdir(parents=True, exist_ok=True)
    finished = [run for run in runs if run.is_finished]
    for run in finished:
        write_curve(run.fold_folder.path, output / "runs" / f"{run.name}_epochs.csv")
        write_record(run.fold_folder.path, output / "runs" / f"{run.name}_record.json")
    distilled = [run for run in finished if (run.fold_folder.path / "distillation_log.csv").is_file()]
    for run in distilled:
        shutil.copyfile(run.fold_folder.path / "distillation_log.csv", output / "runs" / f"{run.name}_terms.csv")
    _write_terms(distilled, _peak_memory(study_folder(study, runs) / "runs.csv"), output)
    if first := [run for run in distilled if run.settings.seed == study.seeds[0]]:
        _plot_terms(first, output / "terms.png")


def _peak_memory(file: Path) -> dict[str, float]:
    """Run -> GiB of its largest start, by the study's own record."""
    if not file.is_file():
        return {}
    table = pd.read_csv(file)
    return (table.groupby("run")["peak_memory_bytes"].max() / 2**30).round(2).dropna().to_dict()


def _write_terms(runs: list[Run], memory: dict[str, float], output: Path) -> None:
    """How each raw term fell, and the peak memory."""
    rows = []
    for run in runs:
        for name, (first, last) in first_and_last_quarter(run.fold_folder.path / "distillation_log.csv").items():
            rows.append(
                [run.name, run.arm, run.settings.seed, name.split(" ")[0], first, last, memory.get(run.name, "")]
            )
    with (output / "terms.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["run", "arm", "seed", "term", "first_quarter", "last_quarter", "peak_memory_GiB"])
        writer.writerows(rows)


def _plot_terms(runs: list[Run], target: Path) -> None:
    """Every raw term of every arm, relative to its first epoch."""
    lines = (len(runs) + _COLUMNS - 1) // _COLUMNS
    figure, axes = plt.subplots(lines, _COLUMNS, figsize=(14, 2.8 * lines), layout="constrained", squeeze=False)
    for axis, run in zip(axes.ravel(), runs, strict=False):
        with (run.fold_folder.path / "distillation_log.csv").open() as opened:
            rows = list(csv.DictReader(opened))
        for name in rows[0]:
            if name != "epoch" and not name.endswith("_weighted"):
                values = np.array([float(row[name]) for row in rows])
                axis.plot(values / values[0], label=name, linewidth=2 if name == "segmentation" else 1.3)
        axis.set(title=run.arm, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    for axis in axes.ravel()[len(runs) :]:
        axis.remove()
    figure.supxlabel("epoch")
    figure.supylabel("raw term relative to the first epoch")
    figure.savefig(target, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(sorted(path.name for path in Path(sys.argv[2]).iterdir()), indent=1))
