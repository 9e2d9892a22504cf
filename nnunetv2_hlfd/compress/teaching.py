"""How the teacher teaches: by stored maps, or where these would fill the memory, live or by its label maps alone."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.plans import student_configuration
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.distillation.method import FINAL
from nnunetv2_hlfd.teacher.shape import read_shape
from nnunetv2_hlfd.teacher.stored.checks import too_large
from nnunetv2_hlfd.utilities.errors import UserError

_TEACH_EVERY = 4  # steps: a live teacher costs more than a small student


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """What the student learns from.

    Attributes:
        kind: stored maps, a live teacher of one fold, or its label maps alone.
        reason: why it is not stored maps; empty where it is.
    """

    kind: Literal["stored", "live", "labels"] = "stored"
    reason: str = ""

    @property
    def warnings(self) -> list[str]:
        """What the user should know of it."""
        return [self.reason] if self.reason else []

    @property
    def settings(self) -> dict[str, Any]:
        """Of the student's training."""
        settings: dict[str, dict[str, Any]] = {
            "stored": {"teacher_maps": "stored"},
            "live": {"teacher_maps": "live", "teach_every": _TEACH_EVERY},
            "labels": {},
        }
        return settings[self.kind]


def choose_teaching(source: Source, options: CompressOptions) -> Teaching:
    """Choose stored maps where the augmentation has the memory for them, then a live teacher if the patch fits it."""
    model, configuration = source.model, student_configuration(source.model, options)
    heads = model.plans.get_label_manager(model.dataset_json).num_segmentation_heads
    reason = too_large(heads, _initial_patch(configuration))
    if reason is None:
        return Teaching()
    if options.spacing is not None:
        return _by_labels(f"{reason}, and a live teacher needs images at its own spacing")
    try:
        read_shape(
            source.network(source.folds[0]),
            {"SoftLabel": frozenset({FINAL})},
            model.path,
            patch_size=configuration.patch_size,
            num_input_channels=model.input_shape[0],
            late_max_stride=None,
        )
    except UserError as error:
        return _by_labels(f"{reason}. {str(error).rstrip('.')}")
    words = f"Fold {source.folds[0]} of the teacher teaches live and alone, in every {_TEACH_EVERY}th step"
    return Teaching(kind="live", reason=f"{words}: stored maps would fill the memory ({reason}).")


def _by_labels(reason: str) -> Teaching:
    return Teaching(kind="labels", reason=f"The student learns from the teacher's label maps alone: {reason}.")


def _initial_patch(configuration: ConfigurationManager) -> list[int]:
    """What nnU-Net cuts before it rotates: its trainer tells, which needs nothing else for it."""
    trainer: Any = SimpleNamespace(configuration_manager=configuration, print_to_log_file=lambda *_: None)
    _, _, patch, _ = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    return [int(extent) for extent in patch]
