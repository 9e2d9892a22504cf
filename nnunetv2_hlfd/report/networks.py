"""Networks of finished model folders, restored without running code from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.models.network import restore_network
from nnunetv2_hlfd.plans.plans_check import check_configuration, check_plans
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.utilities.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A network in inference (one full-resolution output), its configuration, and the checkpoint it comes from."""

    network: Any
    plans: PlansManager
    configuration: Any
    checkpoint: Mapping[str, Any]


def find_checkpoint(model: Model, fold: int) -> Path | None:
    """The checkpoint of a fold: that of the end of the training, else the best."""
    folder = model.folder / f"fold_{fold}"
    files = [folder / f"checkpoint_{name}.pth" for name in ("final", "best")]
    return next((each for each in files if each.is_file()), None)


def read_configuration(model: Model) -> tuple[PlansManager, Any]:
    """Checked plans and the configuration of a model.

    Raises:
        UserError: for damaged plans.
    """
    plans = PlansManager(dict(model.plans))
    check_plans(model.plans, model.folder / "plans.json")
    check_configuration(plans, model.configuration, model.folder / "plans.json")
    return plans, plans.get_configuration(model.configuration)


def restore(model: Model, fold: int) -> Restored:
    """Restore the network of a fold, frozen.

    Raises:
        UserError: for a missing or damaged checkpoint, or plans that do not fit it.
    """
    plans, configuration = read_configuration(model)
    file = find_checkpoint(model, fold)
    if file is None:
        raise UserError(f"Expected a checkpoint in {model.folder / f'fold_{fold}'}, found none.")
    checkpoint = read_checkpoint(file)
    network: Any = restore_network(checkpoint, plans, configuration, dict(model.dataset_json), file)
    network.decoder.deep_supervision = False
    return Restored(network=network, plans=plans, configuration=configuration, checkpoint=checkpoint)
