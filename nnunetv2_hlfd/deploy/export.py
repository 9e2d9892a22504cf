"""`nnUNetv2_hlfd export -to nnunet`: a trained model as small, harmless files for stock nnU-Net."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from nnunetv2_hlfd.deploy.package import Exported, write_package
from nnunetv2_hlfd.deploy.provenance import Licenses
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.checkpoints import check_finite_weights, read_checkpoint, write_checkpoint
from nnunetv2_hlfd.settings.settings import PLANS_KEY
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import without_folders


def export_nnunet(
    source: Source, output: Path, *, half: bool = False, mirroring: bool = True, licenses: Licenses | None = None
) -> Exported:
    """Write a model folder, and a zip of it for nnU-Net's own installer, that stock nnU-Net predicts with.

    The files hold weights and what prediction needs, nothing of the training.

    Args:
        source: the trained model.
        output: folder to write to; made where it is missing.
        half: store the weights in float16. nnU-Net computes in the precision of its network, as before.
        mirroring: False: prediction without test-time mirroring, 2 to 8 times fewer forward passes.
        licenses: for the model card; unset: not stated.

    Raises:
        UserError: for weights that are not finite or that float16 cannot hold, or an export that is there already.
    """

    def fill(folder: Path) -> None:
        for fold in source.folds:
            file = folder / f"fold_{fold}" / source.checkpoint
            file.parent.mkdir()
            write_checkpoint(_prediction_content(source, fold, half=half, mirroring=mirroring), file)

    choices = {"format": "nnunet", "weights": "float16" if half else "as trained", "mirroring": mirroring}
    return write_package(source, output, fill, choices, [], licenses or Licenses())


def needs_trainer(source: Source) -> str | None:
    """Name the trainer that prediction needs beside stock nnU-Net, if any: no plans describe its network."""
    trainer = source.model.network_trainer
    return None if trainer == nnUNetTrainer.__name__ else trainer


def _prediction_content(source: Source, fold: str, *, half: bool, mirroring: bool) -> dict[str, Any]:
    """Pick what nnU-Net's predictor reads, and the settings of the training where this package made it."""
    content = read_checkpoint(source.file(fold), optional=(PLANS_KEY,))
    check_finite_weights(content["network_weights"], source.file(fold))
    extras = content.get(PLANS_KEY)
    exported = {
        "network_weights": _halved(content["network_weights"]) if half else content["network_weights"],
        "trainer_name": content["trainer_name"],
        "init_args": {"configuration": content["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": source.model.mirror_axes if mirroring else None,
    }
    if isinstance(extras, Mapping):
        exported[PLANS_KEY] = without_folders({key: extras[key] for key in ("trainer", "settings") if key in extras})
    return exported


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert to float16. nnU-Net lists the encoder's weights several times; each is converted, and stored, once."""
    done: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    halved = {}
    for name, weight in weights.items():
        key = (weight.data_ptr(), tuple(weight.shape))
        if key not in done:
            done[key] = weight.half() if weight.is_floating_point() else weight
            if not done[key].isfinite().all():
                raise UserError(f"The weight {name} is too large for float16. Export without --half.")
        halved[name] = done[key]
    return halved
