"""What a model card is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_hlfd.deploy.inputs import FINGERPRINT, SpacingRange, spacing_range
from nnunetv2_hlfd.models.folder import read_description
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage

PROVENANCE_FILE = "export.json"
_FORMATS = {"nnunet": "nnU-Net", "onnx": "ONNX", "openvino": "OpenVINO"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `nnUNetv2_hlfd compress` has measured.

    Attributes:
        agreement: mean Dice with the teacher, and the ends of its interval of 95 %.
        images: how many held-out images that was measured on.
        truth: the same three of the Dice against the truth less the teacher's; None where no image has labels.
        seconds: of one image, from file to file, program start left out.
        memory: bytes of main memory at most; None where the system does not tell.
        machine: that both were measured on.
    """

    agreement: Sequence[float] | None
    images: int
    truth: Sequence[float] | None
    seconds: float
    memory: int | None
    machine: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it.

    Attributes:
        plans: nnU-Net's.
        dataset_json: content of dataset.json.
        provenance: content of export.json.
        spacing: least and largest of the training images.
        has_fingerprint: whether `spacing` is that of all training images, not the median.
    """

    plans: PlansManager
    dataset_json: Mapping[str, Any]
    provenance: Mapping[str, Any]
    spacing: SpacingRange
    has_fingerprint: bool

    @property
    def format(self) -> str:
        """One of nnunet, onnx and openvino."""
        return str(self.provenance["format"])

    @property
    def source(self) -> str:
        """Name of the folder that was exported."""
        return str(self.provenance["source"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.plans.dataset_name)

    @property
    def title(self) -> str:
        """Of the card."""
        return f"{self.dataset}, {self.configuration_name}, for {_FORMATS[self.format]}"

    @property
    def configuration_name(self) -> str:
        """Such as 2d."""
        return str(self.provenance["configuration"])

    @property
    def configuration(self) -> ConfigurationManager:
        """The part of the plans that the network was trained with."""
        return self.plans.get_configuration(self.configuration_name)

    @property
    def folds(self) -> list[str]:
        """Such as 0 or all."""
        return list(self.provenance["source_checkpoints_sha256"])

    @property
    def teachers(self) -> list[Mapping[str, Any]]:
        """Networks that any of the folds has learned from, without repetitions."""
        records = self.provenance["records"].values()
        networks = [network for record in records for network in record.get("teacher", {}).get("networks", [])]
        return list({network["sha256"]: network for network in networks}.values())

    @property
    def validation(self) -> Mapping[str, Mapping[str, Any]]:
        """Fold -> `dice` and number of `cases` of nnU-Net's own validation, where it was finished."""
        return dict(self.provenance["validation"])

    @property
    def measured(self) -> Measured | None:
        """What was measured after the export."""
        content = self.provenance.get("measured")
        return Measured(**content) if content else None

    def license_of(self, what: str) -> str | None:
        """What was stated for `weights` or `data`."""
        stated = self.provenance["license"][what]
        return None if stated is None else str(stated)


def read_facts(folder: Path) -> Facts:
    """Read what an export says about itself.

    Raises:
        UserError: for damaged files.
    """
    plans, dataset_json = read_description(folder)
    with refuse_damage(folder):
        return Facts(
            plans=plans,
            dataset_json=dataset_json,
            provenance=read_json(folder / PROVENANCE_FILE),
            spacing=spacing_range(folder, plans.plans),
            has_fingerprint=(folder / FINGERPRINT).is_file(),
        )
