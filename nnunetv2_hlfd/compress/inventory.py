"""What there is to learn from: the images that can be read, their labels, and what the teacher knows already."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.deploy.case import as_named
from nnunetv2_hlfd.deploy.runtime.checks import check_complete, check_image
from nnunetv2_hlfd.deploy.runtime.errors import last_line
from nnunetv2_hlfd.deploy.runtime.images import find_cases
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.labels import channel_names
from nnunetv2_hlfd.models.split import held_out_cases, validated_cases
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage
from nnunetv2_hlfd.utilities.text import some_names

FEWEST = 5
_FEW = 20
_READERS = 3


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What was found.

    Attributes:
        images: Case -> its image files, in the order of the channels.
        shapes: Case -> voxels along the axes of nnU-Net's arrays.
        spacings: Case -> mm along these axes.
        labels: Case -> its true label map.
        failed: Case -> why it cannot be used.
        own: Cases of the teacher's data set that one of its folds was trained on.
    """

    images: Mapping[str, Sequence[str]]
    shapes: Mapping[str, Sequence[int]]
    spacings: Mapping[str, Sequence[float]]
    labels: Mapping[str, str]
    failed: Mapping[str, str]
    own: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def take_inventory(source: Source, options: CompressOptions) -> Inventory:
    """Read all images and labels, and refuse what cannot be compressed, or not with these images.

    Raises:
        UserError: saying what was expected and what came.
    """
    model = source.model
    _refuse_second_stage(model)
    cases = _find_cases(model, options.images)
    images, failed = _read_images(model, cases)
    _refuse_few(options.images, images, failed)
    labels = _find_labels(model, options.labels, images) if options.labels else {}
    return Inventory(
        images={case: [str(file.absolute()) for file in cases[case]] for case in images},
        shapes={case: list(shape) for case, (shape, _) in images.items()},
        spacings={case: list(spacing) for case, (_, spacing) in images.items()},
        labels={case: str(file.absolute()) for case, file in labels.items()},
        failed=failed,
        own=sorted(trained_on(source) & images.keys()),
    )


def trained_on(source: Source) -> set[str]:
    """Cases of the teacher's data set, as its validations name them, without those that every fold has held out."""
    model = source.model
    folds = [folder.name.removeprefix("fold_") for folder in model.path.glob("fold_*")]
    known = {case for fold in folds for case in validated_cases(model.fold(fold), model.file_ending)}
    held_out = [set(held_out_cases(model, fold)) for fold in source.folds]
    return known - held_out[0].intersection(*held_out[1:])


def warnings(inventory: Inventory) -> list[str]:
    """What the user should know of the images before the work begins."""
    found = []
    if inventory.failed:
        found.append(f"{len(inventory.failed)} images cannot be used (failed.csv): {some_names(inventory.failed)}.")
    if len(inventory.images) < _FEW:
        found.append(f"{len(inventory.images)} images are few: the student knows only what they show.")
    if inventory.own:
        found.append(
            f"{len(inventory.own)} of {len(inventory.images)} images have the names of cases that the teacher was "
            f"trained on: its maps of them are better than those of new images."
        )
    return found


def _refuse_second_stage(model: ModelFolder) -> None:
    previous = model.configuration_manager.previous_stage_name
    if previous:
        raise UserError(
            f"{model.configuration} takes the segmentation of {previous} as input and cannot be compressed alone. "
            f"Compress 3d_fullres or 3d_lowres of that model."
        )


def _find_cases(model: ModelFolder, folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UserError(f"Expected a folder with images, no folder {folder}. Name it with -i.")
    if not any(folder.glob(f"*_[0-9][0-9][0-9][0-9]{model.file_ending}")):
        endings = Counter("".join(Path(file.name).suffixes[-2:]) for file in folder.iterdir() if file.is_file())
        found = ", ".join(f"*{ending}" for ending, _ in endings.most_common(3)) or "no files"
        raise UserError(
            f"Expected files CASE_0000{model.file_ending} in {folder}, as the teacher was trained on, found {found}."
        )
    return find_cases(folder, model.file_ending)


Found = tuple[Sequence[int], Sequence[float]]


class ChannelsError(UserError):
    """An image has too few or too many channels."""


def _read_images(model: ModelFolder, cases: Mapping[str, Sequence[Path]]) -> tuple[dict[str, Found], dict[str, str]]:
    """Shape and spacing of every image by nnU-Net's own reader, and the reasons of those that it cannot read."""
    with refuse_damage(model.path / "dataset.json"):
        channels = channel_names(model.dataset_json)
    found: dict[str, Found] = {}
    errors: dict[str, Exception] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        pending = {case: readers.submit(_read_image, model, files, len(channels)) for case, files in cases.items()}
        for case, future in tqdm(pending.items(), desc="Checking images", disable=None):
            try:
                found[case] = future.result()
            except Exception as error:  # one bad image must not cost the others; readers raise many kinds
                errors[case] = error
    if len(errors) == len(cases) and all(isinstance(error, ChannelsError) for error in errors.values()):
        names = ", ".join(f"{number}: {name}" for number, name in enumerate(channels))
        case, reason = next(iter(errors.items()))
        raise UserError(f"The teacher expects {len(channels)} channels per case ({names}). {case}: {reason}.")
    return found, {case: last_line(error) for case, error in errors.items()}


def _read_image(model: ModelFolder, files: Sequence[Path], channels: int) -> Found:
    for file in files:
        check_image(file)
    with as_named(files) as names:
        data, properties = model.plans.image_reader_writer_class().read_images(names)
    if len(data) != channels:  # one file may hold several (RGB)
        listed = ", ".join(file.name for file in files)
        raise ChannelsError(f"expected {channels} channels, got {len(data)}: {listed}")
    if not np.isfinite(data).all():
        raise UserError("the image has voxels that are no finite numbers")
    return [int(extent) for extent in data.shape[1:]], [float(extent) for extent in properties["spacing"]]


def _refuse_few(folder: Path, images: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    if len(images) < FEWEST:
        more = f" ({len(failed)} more cannot be used: {next(iter(failed.values()))})" if failed else ""
        raise UserError(
            f"Expected at least {FEWEST} images to learn from and compare on, got {len(images)} in {folder}{more}."
        )


def _find_labels(model: ModelFolder, folder: Path, images: Mapping[str, Found]) -> dict[str, Path]:
    """The true label maps of the images that have one, each checked."""
    files = {case: folder / f"{case}{model.file_ending}" for case in images}
    labels = {case: file for case, file in files.items() if file.is_file()}
    if not labels:
        raise UserError(
            f"Expected label maps CASE{model.file_ending} of the images in {folder}, found none. Name another folder "
            f"with -l, or leave it out: the teacher makes the labels."
        )
    manager = model.plans.get_label_manager(model.dataset_json)
    allowed = {0, *manager.all_labels, *([manager.ignore_label] if manager.has_ignore_label else [])}
    reader = model.plans.image_reader_writer_class()
    for case, file in tqdm(labels.items(), desc="Checking labels", disable=None):
        check_complete(file)
        values = reader.read_seg(str(file))[0]
        if list(values.shape[1:]) != list(images[case][0]):
            raise UserError(f"{file} has the shape {list(values.shape[1:])}, its image {list(images[case][0])}.")
        if unknown := sorted({*np.unique(values).astype(int).tolist()} - allowed):
            raise UserError(
                f"{file} holds the values {unknown[:5]}, the teacher's labels are {sorted(map(int, allowed))} "
                f"({model.dataset_json['labels']})."
            )
    return labels
