"""Where a compression keeps what: nnU-Net's three folders and the results, all below one."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.teaching import Teaching
from nnunetv2_hlfd.deploy.card import CARD_FILE
from nnunetv2_hlfd.deploy.package import SUFFIX
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.models.fold import FoldFolder
from nnunetv2_hlfd.models.folder import ModelFolder

TRAINER, CONTROL = f"{PREFIX}SoftLabel", f"{PREFIX}Student"
VARIANT = "compress"
_OTHER_NAME = "Dataset001_Compressed"


@dataclass(frozen=True)
class Places:
    """Folders and files of a compression.

    Args:
        folder: That it works in.
        source: The teacher.
        teaching: How it teaches.
    """

    folder: Path
    source: Source
    teaching: Teaching = field(default_factory=Teaching)

    @property
    def trainer(self) -> str:
        """The trainer of the student."""
        return CONTROL if self.teaching.kind == "labels" else TRAINER

    def has_control(self, options: CompressOptions) -> bool:
        """Whether a student on the label maps alone is trained beside another one."""
        return options.control and self.trainer != CONTROL

    @property
    def model(self) -> ModelFolder:
        """The teacher's."""
        return self.source.model

    @property
    def dataset(self) -> str:
        """Name of the data set: the teacher's, where nnU-Net would take it for one."""
        name = self.model.plans.dataset_name
        return name if re.fullmatch(r"Dataset\d{3}_.+", name) else _OTHER_NAME

    @property
    def base_plans(self) -> str:
        """Name of the plans that the images are preprocessed by."""
        return self.model.plans.plans_name

    @property
    def plans(self) -> str:
        """Name of the student's plans."""
        return f"{self.base_plans}_{VARIANT}"

    @property
    def inventory(self) -> Path:
        """What the images are."""
        return self.folder / "cases.json"

    @property
    def failed(self) -> Path:
        """Images that were left out, with the reasons."""
        return self.folder / "failed.csv"

    @property
    def teacher(self) -> Path:
        """Folder of the teacher's label maps."""
        return self.folder / "teacher"

    @property
    def taught(self) -> Path:
        """What came of the teacher's pass."""
        return self.teacher / "found.json"

    @property
    def fresh_maps(self) -> Path:
        """Folder of the teacher's final maps until the images are preprocessed."""
        return self.folder / "maps"

    @property
    def raw(self) -> Path:
        """NnU-Net's raw data set."""
        return self.folder / "raw" / self.dataset

    @property
    def images_held_out(self) -> Path:
        """Folder of the images that the comparison is made on."""
        return self.raw / "imagesTs"

    @property
    def preprocessed(self) -> Path:
        """NnU-Net's preprocessed data set."""
        return self.folder / "preprocessed" / self.dataset

    @property
    def splits(self) -> Path:
        """The only fold: which images train, which are held out."""
        return self.preprocessed / "splits_final.json"

    @cached_property
    def data(self) -> Path:
        """Folder of the preprocessed images."""
        return self.preprocessed / str(self.model.configuration_manager.data_identifier)

    @property
    def results(self) -> Path:
        """NnU-Net's results of the data set."""
        return self.folder / "results" / self.dataset

    def student(self, trainer: str | None = None) -> Path:
        """The model folder of the student, or of that of another trainer."""
        return self.results / f"{trainer or self.trainer}__{self.plans}__{self.model.configuration}"

    def fold(self, trainer: str) -> FoldFolder:
        """The only fold of the student of a trainer."""
        return FoldFolder(self.student(trainer) / "fold_0")

    @property
    def exported_name(self) -> str:
        """Name of the student's model folder once it is exported for nnU-Net."""
        return f"nnUNetTrainer__{self.plans}{SUFFIX}__{self.model.configuration}"

    @property
    def export(self) -> Path:
        """Folder of the export for nnU-Net."""
        return self.folder / "export"

    @property
    def archive(self) -> Path:
        """The export as a zip."""
        return self.export / f"{self.dataset}_{self.exported_name}.zip"

    @property
    def export_openvino(self) -> Path:
        """Folder of the export that needs neither torch nor nnU-Net."""
        return self.folder / "export_openvino"

    @property
    def small_model(self) -> Path:
        """Model folder of that export."""
        return self.export_openvino / self.dataset / self.exported_name

    @property
    def quantized(self) -> Path:
        """What came of that export."""
        return self.export_openvino / "outcome.json"

    def predictions(self, name: str) -> Path:
        """Folder of the held-out images' label maps by one of the students."""
        return self.folder / name

    @property
    def speed(self) -> Path:
        """Seconds of a case."""
        return self.folder / "speed.json"

    @property
    def card(self) -> Path:
        """The model card of the student."""
        return self.folder / CARD_FILE

    @property
    def report(self) -> Path:
        """The report in Markdown."""
        return self.folder / "report.md"
