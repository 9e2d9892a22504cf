"""The teacher's pass over all images: its label maps, and from the same logits the maps that the student learns."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunetv2_hlfd.compress.inventory import Inventory
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.deploy.predict import Work, predict_cases
from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.labels import foreground_labels
from nnunetv2_hlfd.teacher.stored.dataset import maps_file, open_maps, write_maps
from nnunetv2_hlfd.teacher.stored.encoding import encode
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.atomic import atomic_path, write_json
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

STEP_SIZE = 0.5


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What came of the pass.

    Attributes:
        failed: Case -> why the teacher could not predict it.
        found: Case -> names of the labels or regions that the teacher finds in it.
    """

    failed: Mapping[str, str]
    found: Mapping[str, list[str]]

    def count(self) -> Counter[str]:
        """Label -> number of images in which the teacher finds it."""
        return Counter(name for names in self.found.values() for name in names)


def load_predictor(source: Source, options: CompressOptions) -> Predictor:
    """Load the teacher as its users have it.

    Raises:
        UserError: for networks that cannot be built, or a device that is not there.
    """
    extend_trainer_search()
    return Predictor(
        source.model.path,
        folds=source.folds,
        checkpoint=source.checkpoint,
        device=choose_device(options.device),
        step_size=STEP_SIZE,
        mirroring=options.mirroring,
    )


class FinalMaps:
    """Keeps the codes of the teacher's final map of each case.

    Args:
        folder: For the files.
        predictor: The teacher.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self.folder, self.regions = folder, predictor.label_manager.has_regions
        self.patch_size = predictor.configuration_manager.patch_size

    def keep(self, case: str, logits: NDArray[np.floating]) -> None:
        """Write the map of a case."""
        codes = encode(torch.from_numpy(logits), self.regions)
        with atomic_path(maps_file(self.folder, case), library_errors=(RuntimeError,)) as temporary:
            write_maps(temporary, codes.numpy(), self.patch_size)

    def has(self, case: str) -> bool:
        """Whether the map of a case can be read."""
        try:
            open_maps(maps_file(self.folder, case))[:]
        except Exception:  # blosc2 raises many kinds
            return False
        return True


def predict_all(
    source: Source, options: CompressOptions, inventory: Inventory, labels: Path, maps: Path | None, result: Path
) -> None:
    """Predict what is not predicted yet, and write `result`, the file of `Taught`.

    Args:
        source: The teacher.
        options: Of the compression.
        inventory: The images.
        labels: Folder for the label maps.
        maps: Folder for the codes of the final maps; None: none are kept.
        result: File to write at the end.

    Raises:
        UserError: where more than half of the images fail, or none of the labels is found in any of them.
    """
    predictor = load_predictor(source, options)
    work = Work(images=options.images, output=labels, continue_prediction=True)
    failed = predict_cases(
        predictor, work, only=inventory.images.keys(), keeper=FinalMaps(maps, predictor) if maps else None
    )
    _refuse_failures(failed, len(inventory.images))
    found = {case: find_labels(source.model, labels, case) for case in inventory.images if case not in failed}
    if not any(found.values()):
        raise UserError(
            f"The teacher finds none of its labels in any of {len(found)} images: are these the images that it is for "
            f"(same channels, orientation, units)?"
        )
    write_json(result, {"failed": failed, "found": found})


def _refuse_failures(failed: Mapping[str, str], number: int) -> None:
    if len(failed) > number / 2:
        case, reason = next(iter(failed.items()))
        raise UserError(f"The teacher failed on {len(failed)} of {number} images; the first reason ({case}): {reason}")


def find_labels(model: ModelFolder, folder: Path, case: str) -> list[str]:
    """Names of the labels or regions in a label map."""
    reader: Any = model.plans.image_reader_writer_class()
    values = set(np.unique(reader.read_seg(str(folder / f"{case}{model.file_ending}"))[0]).astype(int).tolist())
    return [name for name, value in foreground(model).items() if values & set(value)]


def foreground(model: ModelFolder) -> dict[str, tuple[int, ...]]:
    """Name -> values of every label or region but background and ignore."""
    with refuse_damage(model.path / "dataset.json"):
        return foreground_labels(model.dataset_json)
