"""What a case costs, by the teacher and by the student, on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nnunetv2_hlfd.benchmark.rung import Rung, Timing, run_rung
from nnunetv2_hlfd.compress.exports import find_program
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.compress.plans import teacher_size
from nnunetv2_hlfd.deploy.runtime.images import find_cases
from nnunetv2_hlfd.deploy.source import read_source
from nnunetv2_hlfd.models.fold import FINAL
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.utilities.atomic import scratch_folder, write_json
from nnunetv2_hlfd.utilities.device import processor_name
from nnunetv2_hlfd.utilities.orphans import process_pool

_MOST_CASES = 3


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured.

    Attributes:
        machine: In words.
        cases: How many were predicted.
        teacher: Seconds of a case from files to file, by all of the teacher's folds.
        student: The same by the student, on the same device and by the same code.
        small: The same by the export without torch, on the processor; None where there is none.
        networks: How many folds of the teacher predict together.
        teacher_parameters: Of one of them.
        teacher_macs: Multiply-accumulates of one of them on one patch.
        student_parameters: Of the student.
        student_macs: Of the student on one patch.
        archive_bytes: Of the zip for nnU-Net.
        small_bytes: Of the zip without torch; None where there is none.
        student_memory: Main memory of the student's process at most, in bytes; None where the system does not tell.
        small_memory: The same of the export without torch.
        processor: That the export without torch ran on.
    """

    machine: str
    cases: int
    teacher: float
    student: float
    small: float | None
    networks: int
    teacher_parameters: int
    teacher_macs: int
    student_parameters: int
    student_macs: int
    archive_bytes: int
    small_bytes: int | None
    student_memory: int | None = None
    small_memory: int | None = None
    processor: str = ""

    @property
    def times_smaller(self) -> float:
        """Ratio of the parameters that are stored."""
        return self.networks * self.teacher_parameters / self.student_parameters

    @property
    def times_faster(self) -> float:
        """Ratio of the seconds of a case."""
        return self.teacher / self.student


def measure_speed(places: Places, options: CompressOptions) -> None:
    """Predict a few held-out images one after the other, each way in a process of its own, and write speed.json."""
    cases = dict(list(find_cases(places.images_held_out, places.model.file_ending).items())[:_MOST_CASES])
    teacher = Rung(
        name="teacher",
        model=places.model.path,
        how="predictor",
        mirroring=options.mirroring,
        checkpoint=options.checkpoint,
    )
    student = Rung(name="student", model=places.student(), how="predictor", mirroring=options.mirroring)
    timings = {
        "teacher": _time(teacher, cases, places.source.folds, options.device),
        "student": _time(student, cases, ["0"], options.device),
    }
    if program := find_program(places):
        small = Rung(name="small", model=program.parent, how="program", mirroring=options.mirroring)
        timings["small"] = _time(small, cases, ["0"], "cpu")
    seconds = {name: _seconds(timing) for name, timing in timings.items()}
    memory = {name: timing.peak_memory for name, timing in timings.items()}
    sizes = {"teacher": teacher_size(places.source), "student": _student_size(places)}
    archives = list(places.export_openvino.glob("*.zip"))
    write_json(
        places.speed,
        asdict(
            Speed(
                machine=_machine(options.device),
                cases=len(cases),
                teacher=seconds["teacher"],
                student=seconds["student"],
                small=seconds.get("small"),
                networks=len(places.source.folds),
                teacher_parameters=sizes["teacher"].parameters,
                teacher_macs=sizes["teacher"].macs,
                student_parameters=sizes["student"].parameters,
                student_macs=sizes["student"].macs,
                archive_bytes=places.archive.stat().st_size,
                small_bytes=archives[0].stat().st_size if archives else None,
                student_memory=memory["student"],
                small_memory=memory.get("small"),
                processor=processor_name(),
            )
        ),
    )


def _time(rung: Rung, cases: Mapping[str, Sequence[Path]], folds: Sequence[str], device: str) -> Timing:
    with scratch_folder() as folder, process_pool(1) as pool:
        work = pool.submit(run_rung, rung, cases, folder / "cases", folds, device, torch.get_num_threads())
        return work.result()


def _seconds(timing: Timing) -> float:
    """Mean seconds of a case; imports and loading are left out."""
    return sum(sum(stages.values()) for stages in timing.cases.values()) / len(timing.cases)


def _student_size(places: Places) -> Size:
    student = read_source(places.student(), ["0"], FINAL)
    channels, *patch = student.model.input_shape
    return measure_network(student.network("0"), patch, channels)


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {torch.get_num_threads()} threads"
