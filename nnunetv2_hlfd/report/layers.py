"""What the networks' layers look at, on the patch with the lesion: one row for each arm."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.report.focus import focus_share
from nnunetv2_hlfd.report.maps import ATTENTION, CAM, PIXEL, Seen
from nnunetv2_hlfd.report.overlays import PREDICTION_COLOR, TRUTH_COLOR, show_contour, show_gray
from nnunetv2_hlfd.report.patches import Patch

Values = npt.NDArray[np.float32]
_SMALLEST = 1e-12
_LETTERS = 22  # of a row's name beside its panels


@dataclass(frozen=True, kw_only=True)
class View:
    """The shown slice of a patch with a network's maps.

    Attributes:
        maps: kind and stage -> values on the patch's grid, and the share of the mass of the whole map in the lesion.
        aspect: height of a pixel over its width.
    """

    image: Values
    lesion: npt.NDArray[np.bool_]
    prediction: npt.NDArray[np.bool_]
    maps: Mapping[tuple[str, str], tuple[Values, float]]
    aspect: float


def make_view(patch: Patch, seen: Seen, aspect: float) -> View:
    """Keep of a patch what pictures show."""
    size = patch.lesion.shape

    def shown(values: Tensor) -> npt.NDArray:
        return (values if patch.shown is None else values[patch.shown]).numpy()

    return View(
        image=shown(patch.data[0, 0]),
        lesion=shown(patch.lesion),
        prediction=shown(seen.prediction),
        aspect=aspect,
        maps={
            (layer.kind, layer.stage): (
                shown(resize(layer.values[None, None], size)[0, 0]),
                focus_share(layer.values, patch.lesion, patch.valid).share,
            )
            for layer in seen.maps
        },
    )


def draw_layers(views: Mapping[str, View]) -> Figure:
    """Rows: arms, and the pixel maps of those that have learned heads. Columns: the patch, then the layers."""
    stages = dict.fromkeys(key for view in views.values() for key in view.maps if key[0] != PIXEL)
    rows = [row for arm, view in views.items() for row in _rows(arm, view)]
    figure = Figure(figsize=(1.75 * (len(stages) + 1) + 0.6, 1.85 * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(stages) + 1, squeeze=False)
    for axes, (name, view, kinds) in zip(grid, rows, strict=True):
        _show_patch(axes[0], view, name)
        for axis, (kind, stage) in zip(axes[1:], stages, strict=True):
            _show_map(axis, view, kinds.get(kind), stage)
    for axis, title in zip(grid[0], ("segmentation", *("\n".join(key) for key in stages)), strict=True):
        axis.set_title(title, fontsize=8)
    return figure


def _rows(arm: str, view: View) -> list[tuple[str, View, dict[str, str]]]:
    """Name, maps, and which kind of map stands in the column of which."""
    rows = [(arm, view, {CAM: CAM, ATTENTION: ATTENTION})]
    if any(kind == PIXEL for kind, _ in view.maps):
        rows.append((f"{arm}: pixel maps", view, {ATTENTION: PIXEL}))
    return rows


def _show_patch(axis: Axes, view: View, name: str) -> None:
    axis.set(xticks=[], yticks=[])
    axis.set_ylabel(fill(name, _LETTERS), fontsize=8)
    show_gray(axis, view.image, view.aspect)
    show_contour(axis, view.lesion, TRUTH_COLOR)
    show_contour(axis, view.prediction, PREDICTION_COLOR)


def _show_map(axis: Axes, view: View, kind: str | None, stage: str) -> None:
    """Color and opacity tell the value; the strongest is the map's largest."""
    axis.set_axis_off()
    if kind is None or (kind, stage) not in view.maps:
        return
    values, share = view.maps[kind, stage]
    scaled = values / max(float(values.max()), _SMALLEST)
    show_gray(axis, view.image, view.aspect)
    axis.imshow(scaled, cmap="inferno", vmin=0, vmax=1, alpha=scaled, aspect=view.aspect, interpolation="nearest")
    show_contour(axis, view.lesion, TRUTH_COLOR)
    text = "none" if np.isnan(share) else f"{100 * share:.0f} %"
    if kind == PIXEL:
        text += f", largest {values.max():.2g}"
    axis.text(
        0.03,
        0.03,
        text,
        transform=axis.transAxes,
        color="white",
        fontsize=7,
        bbox={"facecolor": "black", "edgecolor": "none", "pad": 1.5, "alpha": 0.7},
    )
