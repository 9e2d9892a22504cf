"""The demo's result: a table of scores and sizes, and a picture of held-out slices."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunetv2_hlfd.models.fold import FINAL, FoldFolder
from nnunetv2_hlfd.utilities.atomic import write_files
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.markdown import markdown_table

Array = npt.NDArray[Any]

CONDITION = "mechanics, not evidence: synthetic phantom, one seed, short training"
COLORS = {"kidney": "#1f9bff", "tumor": "#ffb000"}
LABELS = {"kidney": 1, "tumor": 2}
_WINDOW_HU = (-200, 300)
_AIR_HU = -500
_PANEL_INCHES = 2.1
_BYTES_PER_PARAMETER = 4  # fp32


@dataclass(frozen=True)
class Model:
    """A trained network of the demo: its short name, its trainer class, its name for the reader."""

    name: str
    trainer: str
    title: str

    def fold_folder(self, results: Path, plans: str) -> FoldFolder:
        """Where nnU-Net writes fold 0."""
        return FoldFolder(results / f"{self.trainer}__{plans}__2d" / "fold_0")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured of one model. `case_dice`: case -> label -> Dice; `dice`: label -> nnU-Net's mean."""

    title: str
    dice: Mapping[str, float]
    case_dice: Mapping[str, Mapping[str, float]]
    parameters: int
    macs: int
    checkpoint_bytes: int
    seconds_per_case: float


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One slice: image in HU, true labels, and each model's labels; `captions` stand above the models' panels."""

    name: str
    image: Array
    truth: Array
    predictions: Sequence[Array]
    captions: Sequence[str]


def write_report(folder: Path, dataset: str, plans: str, models: Sequence[Model], seconds: Mapping[str, float]) -> str:
    """Write result.md and result.png into the demo's folder; returns the text of result.md."""
    results = read_results(folder, dataset, plans, models, seconds)
    num_cases = len(results[0].case_dice)
    text = (
        f"# nnUNetv2_hlfd demo\n\n**{CONDITION}**\n\n{result_table(results)}\n\n"
        f"Dice: mean over {num_cases} held-out cases, by nnU-Net's own evaluation. GMAC: multiply-accumulates of one "
        f"patch. Weights: parameters as fp32; the checkpoint also holds the optimizer's state. Seconds per case: the "
        f"whole command nnUNetv2_predict, program start and mirroring included, divided by {num_cases} cases.\n\n"
        f"![Held-out slices](result.png)\n"
    )
    rows = read_rows(folder / "raw" / dataset, [folder / "predictions" / model.name for model in models], results)
    picture = io.BytesIO()
    with style.context("default"):
        draw_picture(rows, [model.title for model in models]).savefig(picture, format="png", dpi=100)
    write_files(folder, {"result.png": picture.getvalue(), "result.md": text.encode()})
    return text


def read_results(
    folder: Path, dataset: str, plans: str, models: Sequence[Model], seconds: Mapping[str, float]
) -> list[Result]:
    """Collect scores from nnU-Net's summary.json and sizes from the record of the distilled student."""
    folds = [model.fold_folder(folder / "results" / dataset, plans) for model in models]
    sizes = folds[-1].record()
    results = []
    for model, fold in zip(models, folds, strict=True):
        size = sizes["teacher" if model is models[0] else "student"]
        summary = read_json(folder / "predictions" / model.name / "summary.json")
        cases = {_case(case["reference_file"]): _dice(case["metrics"]) for case in summary["metric_per_case"]}
        results.append(
            Result(
                title=model.title,
                dice=_dice(summary["mean"]),
                case_dice=cases,
                parameters=size["parameters"],
                macs=size["macs"],
                checkpoint_bytes=fold.file(FINAL).stat().st_size,
                seconds_per_case=seconds[f"predict_{model.name}"] / len(cases),
            )
        )
    return results


def result_table(results: Sequence[Result]) -> str:
    """A Markdown table, one row for each model."""
    head = ["", *(f"Dice {label}" for label in LABELS), "Parameters", "GMAC", "Weights", "Checkpoint", "s per case"]
    rows = [
        [
            result.title,
            *(f"{result.dice[label]:.3f}" for label in LABELS),
            f"{result.parameters / 1e6:.3g} M",
            f"{result.macs / 1e9:.3g}",
            f"{result.parameters * _BYTES_PER_PARAMETER / 1e6:.1f} MB",
            f"{result.checkpoint_bytes / 1e6:.1f} MB",
            f"{result.seconds_per_case:.2f}",
        ]
        for result in results
    ]
    return markdown_table(head, rows)


def read_rows(raw: Path, predictions: Sequence[Path], results: Sequence[Result]) -> list[PictureRow]:
    """Of every held-out case the slice with the most tumor, all cut to the rows that the bodies fill."""
    rows = []
    for file in sorted((raw / "labelsTs").glob("*.nii.gz")):
        case = _case(str(file))
        truth = _load(file)
        index = int((truth == LABELS["tumor"]).sum(axis=(1, 2)).argmax())
        rows.append(
            PictureRow(
                name=f"{case}, slice {index + 1} of {len(truth)}",
                image=_load(raw / "imagesTs" / f"{case}_0000.nii.gz")[index],
                truth=truth[index],
                predictions=[_load(folder / file.name)[index] for folder in predictions],
                captions=[_caption(result.case_dice[case]) for result in results],
            )
        )
    filled = np.flatnonzero(np.any([row.image > _AIR_HU for row in rows], axis=(0, 2)))
    return [_cut(row, slice(filled[0], filled[-1] + 1)) for row in rows]


def _cut(row: PictureRow, lines: slice) -> PictureRow:
    return replace(
        row, image=row.image[lines], truth=row.truth[lines], predictions=[labels[lines] for labels in row.predictions]
    )


def draw_picture(rows: Sequence[PictureRow], titles: Sequence[str]) -> Figure:
    """Rows: cases; columns: image, truth, one for each model."""
    columns = ["Image", "Truth", *titles]
    height, width = rows[0].image.shape
    row_inches = _PANEL_INCHES * height / width + 0.15
    figure = Figure(figsize=(_PANEL_INCHES * len(columns), row_inches * len(rows) + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        panels = [np.zeros_like(row.truth), row.truth, *row.predictions]
        for axis, labels, caption in zip(axes, panels, ["", "", *row.captions], strict=True):
            _draw_panel(axis, row.image, labels)
            axis.set_xlabel(caption, fontsize=8)
        axes[0].set_ylabel(row.name, fontsize=8)
    for axis, title in zip(grid[0], columns, strict=True):
        axis.set_title(title, fontsize=10)
    figure.suptitle(f"nnUNetv2_hlfd demo: held-out cases, slice with the most tumor\n{CONDITION}", fontsize=11)
    handles = [Patch(facecolor=to_rgba(color, 0.45), edgecolor=color, label=label) for label, color in COLORS.items()]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        title="Numbers: Dice of the whole case; window -200 to 300 HU",
        title_fontsize=8,
    )
    return figure


def _draw_panel(axis: Axes, image: Array, labels: Array) -> None:
    axis.imshow(image, cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1], interpolation="bilinear")
    for label, color in COLORS.items():
        mask = labels == LABELS[label]
        if mask.any():
            axis.imshow(np.where(mask[..., None], to_rgba(color, 0.35), 0.0), interpolation="nearest")
            axis.contour(mask, levels=[0.5], colors=[color], linewidths=1)
    axis.set(xticks=[], yticks=[])


def _caption(dice: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {value:.2f}" for label, value in dice.items())


def _dice(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {label: metrics[str(value)]["Dice"] for label, value in LABELS.items()}


def _case(file: str) -> str:
    return Path(file).name.removesuffix(".nii.gz")


def _load(file: Path) -> Array:
    array: Array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    return array
