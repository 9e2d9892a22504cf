"""`--pictures`: segmentations over images, what the networks look at, and how much of it lies in the lesion."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.examples import cases_with, choose_examples
from nnunetv2_hlfd.report.focus import focus_share, summarize_focus
from nnunetv2_hlfd.report.formatting import format_number, format_spread
from nnunetv2_hlfd.report.layers import View, draw_layers, make_view
from nnunetv2_hlfd.report.maps import ATTENTION, CAM, PIXEL, Seen, TrainedFold, has_stages, restore_fold, see
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.overlays import Overlay, draw_overlay, read_overlay
from nnunetv2_hlfd.report.page import Picture, Section, Table
from nnunetv2_hlfd.report.patches import Patch, check_cases, open_cases, read_patch
from nnunetv2_hlfd.report.target import Target, choose_target
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed

_FOCUS_COLUMNS = ["arm", "run", "seed", "fold", "case", "map", "stage", "stride", "share", "uniform", "largest"]
_FOCUS_NOTE = (
    "Share of the mass of a map that lies inside the true label, on the patch with the lesion: mean ± standard "
    "deviation over the cases, each averaged over the seeds first; in parentheses the number of cases, where some have "
    "no Grad-CAM, because nothing is predicted or no channel speaks for the label. Uniform map: the label's share of "
    "the patch, what a network that looks everywhere alike would have. Largest possible: at the deepest of the stages, "
    "whose cells are so large that a lesion fills few of them. ± is the spread over cases; that over seeds, which "
    "focus.csv shows, can be larger than what lies between arms."
)
_EXAMPLE_NOTE = (
    "First run of each arm. Above: the slice with most of the true label. Below, on the network's own grid: Grad-CAM "
    "of the encoder's first and last stage for the label's logits over its predicted region; channel mean of the "
    "absolute activations (attention) of early and middle stages; where HLFD has trained pixel heads on them, their "
    "probability of the label, too. One forward pass without mirroring. Each map is scaled by its own largest value. "
    "The number is the share of its mass inside the true label."
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Everything that --pictures adds to a report.

    Attributes:
        target: the label that is shown.
        examples: worst, median, best -> case and its mean Dice.
        overlays: worst, median, best -> segmentations.
        views: worst, median, best -> arm -> maps of its first run.
        focus: a row for each run, case and map; `summary`: for each arm and map.
        without_maps: arm -> class of its network, which has no encoder with stages.
    """

    target: Target
    examples: Mapping[str, tuple[str, float]]
    overlays: Mapping[str, Overlay]
    views: Mapping[str, Mapping[str, View]]
    focus: pd.DataFrame
    summary: pd.DataFrame
    without_maps: Mapping[str, str]


def check_pictures(models: Sequence[Model], folds: Sequence[int], label: str, device: str) -> None:
    """Refuse what pictures cannot be made of, before anything is measured.

    Raises:
        UserError: naming what is missing and how to mend it.
    """
    needed("captum.attr", "pictures")
    choose_device(device)
    target = choose_target(models[0], label)
    for model in models:
        cases = model.cases[model.cases["fold"].isin(folds)]
        if not cases_with(cases, target.name):
            raise UserError(f"No validation case has the label '{target.name}', which --pictures is to show.")
        check_cases(open_cases(model.folder), cases["case"])
        for fold in folds:
            if fold not in model.checkpoints:
                raise UserError(f"--pictures needs a checkpoint in {model.folder.fold(fold).path}, found none.")


def make_pictures(arms: Sequence[Arm], folds: Sequence[int], cases: pd.DataFrame, label: str, device: str) -> Pictures:
    """Choose the cases, read their segmentations, run every network on every case that has the label.

    Args:
        arms: the teacher first.
        folds: to look at.
        cases: of the summary.
        label: to show, "" for the last of dataset.json.
        device: where networks run, one at a time.

    Raises:
        UserError: for missing or damaged files.
    """
    target = choose_target(arms[0].models[0], label)
    examples = choose_examples(cases, target.name, arms[1:])
    preprocessed = open_cases(arms[0].models[0].folder)
    overlays = {name: read_overlay(case, arms, target, preprocessed) for name, (case, _) in examples.items()}
    wanted = {case: name for name, (case, _) in examples.items()}
    views: dict[str, dict[str, View]] = {name: {} for name in examples}
    rows: list[dict[str, Any]] = []
    without_maps: dict[str, str] = {}
    jobs = [(arm, model, fold) for arm in arms for model in arm.models for fold in folds]
    for arm, model, fold in tqdm(jobs, desc="pictures", unit="network"):
        trained = restore_fold(model, fold)
        if not has_stages(trained.network):
            without_maps[arm.name] = type(trained.network).__name__
            continue
        for case, patch, seen, aspect in _see_cases(trained, model, fold, target, torch.device(device)):
            key = {"arm": arm.name, "run": model.run, "seed": model.seed, "fold": fold, "case": case}
            for layer in seen.maps:
                if layer.kind != PIXEL:
                    share = focus_share(layer.values, patch.lesion, patch.valid)
                    stride = "x".join(map(str, layer.stride))
                    rows.append({**key, "map": layer.kind, "stage": layer.stage, "stride": stride, **vars(share)})
            if case in wanted and model is arm.models[0]:
                views[wanted[case]][arm.name] = make_view(patch, seen, aspect)
    focus = pd.DataFrame(rows, columns=_FOCUS_COLUMNS)
    return Pictures(
        target=target,
        examples=examples,
        overlays=overlays,
        views=views,
        focus=focus,
        summary=summarize_focus(focus, [arm.name for arm in arms]),
        without_maps=without_maps,
    )


def _see_cases(
    trained: TrainedFold, model: Model, fold: int, target: Target, device: torch.device
) -> Iterator[tuple[str, Patch, Seen, float]]:
    """Each case of a fold that has the label: its patch, what the network makes of it, and the aspect of a pixel."""
    trained.network.to(device)
    dataset = open_cases(model.folder)
    configuration = model.folder.configuration_manager
    aspect = configuration.spacing[-2] / configuration.spacing[-1]
    for case in cases_with(model.cases[model.cases["fold"] == fold], target.name):
        patch = read_patch(dataset, case, target.value, target.ignore, configuration.patch_size)
        yield case, patch, see(trained, patch, target), aspect


def picture_sections(pictures: Pictures) -> list[Section]:
    """What the report shows of them."""
    label = pictures.target.name
    focus: list[Table | Picture | str] = [_without_maps(pictures)] if pictures.without_maps else []
    if len(pictures.focus):
        focus += [_focus_table(pictures, kind) for kind in (CAM, ATTENTION)]
    sections = [Section(title=f"Focus on {label}", content=focus, note=_FOCUS_NOTE)]
    for name, (case, dice) in pictures.examples.items():
        content: list[Table | Picture | str] = [
            f"{case}: Dice ({label}) {dice:.3f}, mean of the students.",
            Picture(
                figure=draw_overlay(pictures.overlays[name], label),
                name=f"overlay_{name}.png",
                text=f"Segmentations of {label} in {case} by every arm over the image",
            ),
        ]
        if pictures.views[name]:
            layers = Picture(
                figure=draw_layers(pictures.views[name]),
                name=f"layers_{name}.png",
                text=f"Grad-CAM, attention and pixel maps of every arm in {case}, patch around {label}",
            )
            content.append(layers)
        sections.append(Section(title=f"{name.capitalize()} case", content=content, note=_EXAMPLE_NOTE))
    return sections


def _without_maps(pictures: Pictures) -> str:
    networks = ", ".join(f"{arm} ({network})" for arm, network in pictures.without_maps.items())
    return f"Without maps, because the network has no encoder that describes its stages: {networks}."


def _focus_table(pictures: Pictures, kind: str) -> Table:
    """A row for each arm, a column for each stage, and what the shares are to be read against."""
    summary = pictures.summary[pictures.summary["map"] == kind]
    stages = list(dict.fromkeys(summary["stage"]))
    cells = summary.set_index(["arm", "stage"])
    bounds = pictures.focus[pictures.focus["map"] == kind].groupby(["arm", "stage"])[["uniform", "largest"]].mean()
    total = pictures.focus["case"].nunique()
    rows = []
    for arm in dict.fromkeys(summary["arm"]):
        own = [stage for stage in stages if (arm, stage) in cells.index]
        rows.append(
            [
                arm,
                *(_cell(cells.loc[(arm, stage)], total) if stage in own else "-" for stage in stages),
                *(format_number(value, 3) for value in bounds.loc[(arm, own[-1])]),
            ]
        )
    return Table(head=[kind, *stages, "Uniform map", "Largest possible"], rows=rows)


def _cell(row: pd.Series, total: int) -> str:
    text = format_spread(row["share_mean"], row["share_std"])
    return text if row["cases"] in (0, total) else f"{text} ({row['cases']})"
