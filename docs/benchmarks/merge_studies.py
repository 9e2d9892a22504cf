"""Put together what collect_study.py has collected of one study on several machines: tables and report over all runs.

python docs/benchmarks/merge_studies.py STUDY.yaml FOLDER... OUTPUT

Only the study's arms, seeds and folds are taken; what several folders have of a run is taken from the last one. OUTPUT
may be one of the folders. Prints the table of arms that the study's page shows. Pictures of the report (--pictures) are
not merged.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.costs import Cost, Curve
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.formatting import format_interval, format_spread
from nnunetv2_hlfd.report.lesions import COLUMNS, lesion_recall
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.page import to_markdown, to_png
from nnunetv2_hlfd.report.sections import compose
from nnunetv2_hlfd.report.summary import MEAN, Summary, summarize
from nnunetv2_hlfd.report.verdict import MARGIN
from nnunetv2_hlfd.report.write import tables_of
from nnunetv2_hlfd.study.spec import read_study
from nnunetv2_hlfd.utilities.atomic import write_bytes, write_text
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.markdown import markdown_table


def main(study: Path, folders: list[Path], output: Path) -> None:
    """Write the tables and the report of all runs."""
    title = (folders[0] / "report.md").read_text().split("\n")[0].removeprefix("# ").split(",")[0]
    chosen = read_study(study)
    order = ["teacher", *(arm.name for arm in chosen.arms)]
    cases = _merge(folders, "cases.csv", ["run", "case"])
    cases = cases[cases["arm"].isin(order) & cases["fold"].isin(chosen.folds)]
    cases = cases[cases["seed"].isin(chosen.seeds) | (cases["arm"] == "teacher")]
    lesions = _merge(folders, "lesions.csv", ["run", "case"]).merge(cases[["run", "case"]].drop_duplicates())
    lesions = lesions.reindex(columns=COLUMNS)  # tables of earlier versions have no matches
    runs = cases["run"].str.rsplit("__", n=1).str[0] + "__fold_" + cases["fold"].astype(str)
    terms, networks = _merge(folders, "terms.csv", ["run"]), _merge(folders, "networks.csv", ["arm"])
    terms = terms[terms["run"].isin(runs)]
    _copy(set(runs), folders, output / "runs")
    names = sorted(cases["arm"].unique(), key=order.index)
    arms = [Arm(name=name, models=_models(cases[cases["arm"] == name], title, output / "runs")) for name in names]
    folds = sorted(cases["fold"].unique().tolist())
    summary = summarize(arms[0], arms[1:], folds)
    recall = lesion_recall(lesions)
    costs = {str(row["arm"]): _cost(row) for _, row in networks.iterrows() if row["arm"] in names}
    found = Findings(
        teacher=arms[0],
        students=arms[1:],
        folds=folds,
        summary=summary,
        recall=recall,
        without_lesions=(),
        costs={name: costs[name] for name in names},
        curves={
            arm.name: [_curve(model, fold, output / "runs") for model in arm.models for fold in model.folds]
            for arm in arms
        },
        margin=MARGIN,
    )
    page = compose(found)
    for picture in page.pictures:
        write_bytes(output / picture.name, to_png(picture.figure))
    write_text(output / "report.md", to_markdown(page))
    for name, table in {**tables_of(found, lesions), "terms": terms}.items():
        write_text(output / f"{name}.csv", table.to_csv(index=False))
    print(_table(summary, recall))


def _merge(folders: list[Path], name: str, key: list[str]) -> pd.DataFrame:
    """Rows of all folders; those of a key from the last folder that has it."""
    tables = [pd.read_csv(folder / name) for folder in folders]
    merged = tables[0]
    for table in tables[1:]:
        again = pd.MultiIndex.from_frame(merged[key]).isin(pd.MultiIndex.from_frame(table[key]))
        merged = pd.concat([merged[~again], table], ignore_index=True)
    return merged


def _copy(runs: set[str], folders: list[Path], target: Path) -> None:
    """Curves, terms and records."""
    target.mkdir(parents=True, exist_ok=True)
    for file in (file for folder in folders for file in (folder / "runs").iterdir()):
        if file.name.rsplit("_", 1)[0] in runs and file.parent != target:
            shutil.copyfile(file, target / file.name)


def _models(cases: pd.DataFrame, dataset: str, runs: Path) -> list[Model]:
    models = []
    for run, rows in cases.groupby("run", sort=False):
        trainer, plans, configuration = str(run).split("__")
        labels = [label for label in dict.fromkeys(rows["label"]) if label != MEAN]
        records = {fold: read_json(runs / f"{trainer}__{plans}__fold_{fold}_record.json") for fold in set(rows["fold"])}
        settings = dict(next(iter(records.values()))["settings"])
        settings.pop("seed")
        folder = ModelFolder(
            path=Path(str(run)),
            plans=PlansManager({"dataset_name": dataset, "plans_name": plans}),
            dataset_json={},
            configuration=configuration,
            trainer=trainer,
            network_trainer=trainer,
            mirror_axes=None,
        )
        models.append(
            Model(
                folder=folder,
                run=str(run),
                title="",
                settings=settings,
                seed=int(rows["seed"].iloc[0]),
                records=records,
                checkpoints={},
                labels={name: index for index, name in enumerate(labels, start=1)},
                cases=rows[rows["label"] != MEAN]
                .drop(columns=["arm", "run", "seed"])
                .assign(reference="", prediction=""),
            )
        )
    return sorted(models, key=lambda model: model.seed or 0)


def _cost(row: "pd.Series[float]") -> Cost:
    return Cost(
        size=Size(parameters=int(row["parameters"]), macs=int(row["macs"])),
        checkpoint_bytes=int(row["checkpoint_bytes"]),
        latency=float(row["latency_seconds"]),
    )


def _curve(model: Model, fold: int, runs: Path) -> Curve:
    epochs = pd.read_csv(runs / f"{model.folder.trainer}__{model.folder.plans.plans_name}__fold_{fold}_epochs.csv")
    values = {"mean_fg_dice": epochs["pseudo_dice"].tolist(), "val_losses": epochs["val_loss"].tolist()}
    return Curve(fold=fold, values=values)


def _table(summary: Summary, recall: pd.DataFrame) -> str:
    """The table of the only label, or of the mean of all labels; its lesions are those of the last label."""
    label = summary.arms["label"].iloc[-1]
    last = [name for name in summary.arms["label"].unique() if name != MEAN][-1]
    lesions = recall[recall["label"] == last].merge(summary.runs[["run", "arm"]].drop_duplicates(), on="run")
    found = lesions.groupby("arm")[["recall", "small_recall", "false_positives"]].mean()
    differences = {
        comparison.arm: comparison
        for comparison in summary.comparisons
        if comparison.label == label and comparison.reference == "alone"
    }
    rows = []
    for row in summary.arms[summary.arms["label"] == label].to_dict("records"):
        name, difference = row["arm"], differences.get(row["arm"])
        rows.append(
            [
                f"`{name}`",
                str(row["runs"]),
                format_spread(row["dice_mean"], row["dice_std"]),
                format_interval(difference.difference) if difference else "-",
                f"{100 * difference.losing:.0f} %" if difference else "-",
                f"{found.loc[name, 'recall']:.2f}, {found.loc[name, 'small_recall']:.2f}",
                f"{found.loc[name, 'false_positives']:.1f}",
                f"{row['absolute_rvd_mean']:.2f}",
            ]
        )
    head = [
        "",
        "Runs",
        "Dice",
        "Difference to the student alone",
        "Lose > 0.05",
        "Lesion recall, smaller half",
        "False positives per case",
        "Absolute RVD",
    ]
    return markdown_table(head, rows)


if __name__ == "__main__":
    study, *folders, output = map(Path, sys.argv[1:])
    main(study, folders, output)
