"""The steps of a compression, each the command that a user would type, or a function of this package."""

import os
import shutil
from collections.abc import Sequence

from nnunetv2_hlfd.compress.cards import write_cards
from nnunetv2_hlfd.compress.data import divide_images, fingerprint_file, write_failed, write_raw
from nnunetv2_hlfd.compress.exports import export_for_nnunet, export_for_openvino, find_program
from nnunetv2_hlfd.compress.inventory import Inventory
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.places import CONTROL, Places
from nnunetv2_hlfd.compress.report import write_report
from nnunetv2_hlfd.compress.speed import measure_speed
from nnunetv2_hlfd.compress.teacher import Taught, predict_all
from nnunetv2_hlfd.compress.training import plan_command, training_step
from nnunetv2_hlfd.utilities.json_file import read_record
from nnunetv2_hlfd.utilities.steps import Step

_MOST_PROCESSES = 8


class Steps:
    """All steps of one compression.

    Args:
        options: Of the compression.
        places: Where everything is.
    """

    def __init__(self, options: CompressOptions, places: Places) -> None:
        self.options, self.places = options, places

    def all(self) -> list[Step]:
        """All steps, in order."""
        options, places = self.options, self.places
        learns_from = {
            "stored": "the teacher's maps",
            "live": "the live teacher",
            "labels": "the teacher's label maps",
        }[places.teaching.kind]
        steps = [*self._data(), training_step(places, options, places.trainer, f"Train the student on {learns_from}")]
        if places.has_control(options):
            title = "Train the same student on the label maps alone"
            steps.append(training_step(places, options, CONTROL, title))
        return [*steps, *self._exports(), *self._proof()]

    def _data(self) -> list[Step]:
        options, places = self.options, self.places
        dataset, processes = places.dataset[7:10], str(min(_MOST_PROCESSES, os.cpu_count() or 1))
        steps = [
            Step(
                name="teacher",
                title="Predict all images by the teacher",
                product=places.taught,
                command=self._predict_by_teacher,
            ),
            Step(
                name="raw",
                title="Make a data set of images and label maps",
                product=places.raw / "dataset.json",
                command=lambda: write_raw(places, options),
            ),
            Step(
                name="preprocess",
                title="Preprocess as the teacher's plans say",
                product=places.data,
                command=lambda: (
                    *("nnUNetv2_preprocess", "-d", dataset, "-plans_name", places.base_plans),
                    *("-c", places.model.configuration, "-np", processes),
                ),
            ),
            Step(
                name="maps",
                title="Divide the images, and put the teacher's final maps beside those to learn from",
                product=places.splits,
                command=lambda: divide_images(places, options),
            ),
            Step(
                name="plan",
                title="Write the student's plans",
                product=places.preprocessed / f"{places.plans}.json",
                command=lambda: plan_command(places, options),
            ),
        ]
        if not (places.model.path / fingerprint_file(places).name).is_file():
            fingerprint = Step(
                name="fingerprint",
                title="Extract the fingerprint, which the teacher's folder lacks",
                product=fingerprint_file(places),
                command=lambda: self._extract_fingerprint(dataset, processes),
                environment={"nnUNet_n_proc_DA": "2"},  # nnU-Net divides by it
            )
            steps.insert(2, fingerprint)
        return steps

    def _extract_fingerprint(self, dataset: str, processes: str) -> Sequence[str]:
        fingerprint_file(self.places).unlink(missing_ok=True)  # nnU-Net would keep half of one, of a killed run
        return ("nnUNetv2_extract_fingerprint", "-d", dataset, "-np", processes)

    def _predict_by_teacher(self) -> None:
        places = self.places
        inventory = read_record(Inventory, places.inventory)
        places.teacher.mkdir(exist_ok=True)
        maps = places.fresh_maps if places.teaching.kind == "stored" else None
        if maps:
            maps.mkdir(exist_ok=True)
        predict_all(places.source, self.options, inventory, places.teacher, maps, places.taught)
        write_failed(places.failed, {**inventory.failed, **read_record(Taught, places.taught).failed})

    def _exports(self) -> list[Step]:
        options, places = self.options, self.places
        return [
            Step(
                name="export",
                title="Export the student for stock nnU-Net",
                product=places.archive,
                command=lambda: export_for_nnunet(places, options.licenses),
            ),
            Step(
                name="install",
                title="Install it by stock nnU-Net",
                product=places.results / places.exported_name,
                command=lambda: ("nnUNetv2_install_pretrained_model_from_zip", str(places.archive)),
            ),
            Step(
                name="export_openvino",
                title="Export it for machines without torch",
                product=places.quantized,
                command=lambda: export_for_openvino(places, options.max_dice_drop, options.licenses),
            ),
        ]

    def _proof(self) -> list[Step]:
        options, places = self.options, self.places
        exported = places.exported_name.split("__")
        steps = [self._prediction("student", "the exported student", exported)]
        if places.has_control(options):
            control = places.student(CONTROL).name.split("__")
            steps.append(self._prediction("control", "the student of the label maps", control))
        return [
            *steps,
            Step(
                name="student_small",
                title="Predict the held-out images by predict.pyz",
                product=places.predictions("student_small"),
                command=self._predict_small,
                succeeded=(0, 3),  # 3: with warnings, such as an unknown orientation
            ),
            Step(
                name="speed",
                title="Measure the seconds of a case, of teacher and student",
                product=places.speed,
                command=lambda: measure_speed(places, options),
            ),
            Step(
                name="report",
                title="Compare",
                product=places.report,
                command=lambda: write_report(places, options),
            ),
            Step(
                name="card",
                title="Complete the model cards",
                product=places.card,
                command=lambda: write_cards(places),
            ),
        ]

    def _prediction(self, name: str, title: str, model: Sequence[str]) -> Step:
        trainer, plans, configuration = model
        output = self.places.predictions(name)
        command = (
            *("nnUNetv2_predict", "-d", self.places.dataset, "-c", configuration, "-f", "0", "-tr", trainer),
            *("-p", plans, "-i", str(self.places.images_held_out), "-o", str(output)),
            *("-device", self.options.device),
        )

        def start() -> Sequence[str]:
            shutil.rmtree(output, ignore_errors=True)  # nnU-Net does not write a file whole or not at all
            return command

        return Step(
            name=name,
            title=f"Predict the held-out images with stock nnU-Net: {title}",
            product=output,
            command=start,
        )

    def _predict_small(self) -> Sequence[str] | None:
        program, output = find_program(self.places), self.places.predictions("student_small")
        output.mkdir(exist_ok=True)
        if program is None:
            return None
        return ("python", str(program), "-i", str(self.places.images_held_out), "-o", str(output))
