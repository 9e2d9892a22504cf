"""`nnUNetv2_hlfd benchmark -training`: what a training step costs beside the student's own and the teacher's pass."""

import contextlib
import csv
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from nnunetv2_hlfd.teacher.teacher import Teacher
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.distiller import STEP_PARTS
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer
from nnunetv2_hlfd.training.throwaway import real_batches, throwaway_trainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.atomic import atomic_path
from nnunetv2_hlfd.utilities.device import synchronize
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.markdown import markdown_table
from nnunetv2_hlfd.utilities.memory import added_memory
from nnunetv2_hlfd.utilities.timing import seconds_of

STUDENT, TEACHER, STORED = "student alone", "teacher forward pass", ", stored maps"
_WARM_UP, _ROUNDS, _PROFILED = 2, 9, 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one kind of step.

    Attributes:
        seconds: median over the rounds.
        to_student: median over the rounds of the ratio to the student's step of the same round.
        to_sum: the same to the student's step plus the teacher's forward pass; the target is at most 1.05.
        parts: share of the step, in percent, of each of STEP_PARTS.
        memory: bytes that the step needs above what is loaded, at its peak; None where the system does not tell.
        adapters: parameters that exist in training only.
    """

    name: str
    seconds: float
    to_student: float
    to_sum: float
    parts: Mapping[str, float]
    memory: int | None
    adapters: int


def benchmark_training(
    dataset: str, configuration: str, fold: str, plans: str, trainers: Sequence[str], device: str, output: Path | None
) -> list[Row]:
    """Measure the steps of trainers, interleaved on the same real batch, and print the table.

    Args:
        dataset: nnU-Net's name or ID.
        configuration: such as 2d.
        fold: whose teacher is trained.
        plans: identifier of the plans, or of a variant of them.
        trainers: distillation trainers; nnUNetTrainerStudent and the teacher's forward pass are measured beside them.
        device: cpu, cuda or mps.
        output: CSV to write.

    Raises:
        UserError: for trainers that cannot start, or that are no distillation trainers.
    """
    extend_trainer_search()
    with contextlib.ExitStack() as stack:

        def build(name: str) -> ScheduledTrainer:
            return stack.enter_context(throwaway_trainer(dataset, configuration, fold, name, plans, device))

        student = build("nnUNetTrainerStudent")
        distilling = {name: _distilling(build(name)) for name in trainers}
        teacher = _start(student, distilling)
        rows = _measure(student, teacher, distilling)
    title = f"{dataset} {configuration}, plans {plans}, batch {student.batch_size}, {_machine(student.device)}"
    print(f"{title}\n\n{_table(rows)}")
    if output is not None:
        _write(rows, output)
    return rows


def _distilling(trainer: ScheduledTrainer) -> DistillationTrainer:
    if not isinstance(trainer, DistillationTrainer):
        name = type(trainer).__name__
        raise UserError(f"Expected distillation trainers for -tr, such as nnUNetTrainerHLFD, got {name}.")
    return trainer


def _start(student: ScheduledTrainer, distilling: Mapping[str, DistillationTrainer]) -> Teacher:
    """Make all checks and build the networks; the teacher is loaded once, also where its maps are stored."""
    student.check_start()
    teacher: Teacher | None = None
    for trainer in distilling.values():
        if teacher is not None and trainer.settings.teacher_maps == "live":
            trainer.learn_from(teacher)
        trainer.check_start()
        trainer.network.train()
        teacher = teacher or trainer.inherited_from()
    student.network.train()
    assert teacher is not None
    return teacher


def _measure(student: ScheduledTrainer, teacher: Teacher, distilling: Mapping[str, DistillationTrainer]) -> list[Row]:
    """Measure the student alone, the teacher's forward pass, and every distilling trainer's step, on one batch."""
    device, first = student.device, next(iter(distilling.values()))
    [batch] = real_batches(first, 1)
    image, _ = first.distiller.split(batch["data"])
    steps: dict[str, Callable[[], object]] = {
        STUDENT: partial(student.train_step, {**batch, "data": image}),
        TEACHER: partial(teacher, image.to(device)),
    }
    distilling = {f"{name}{STORED if first.distiller.stored else ''}": trainer for name, trainer in distilling.items()}
    steps |= {name: partial(trainer.train_step, batch) for name, trainer in distilling.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(_WARM_UP + _ROUNDS), desc="rounds"):
        for name, step in steps.items():
            seconds[name].append(seconds_of(step, device))
    times = {name: np.array(rounds[_WARM_UP:]) for name, rounds in seconds.items()}
    return [
        Row(
            name=name,
            seconds=float(np.median(times[name])),
            to_student=float(np.median(times[name] / times[STUDENT])),
            to_sum=float(np.median(times[name] / (times[STUDENT] + times[TEACHER]))),
            parts=_parts(step, device) if name in distilling else {},
            memory=added_memory(step, device),
            adapters=_adapters(distilling[name]) if name in distilling else 0,
        )
        for name, step in steps.items()
    ]


def _adapters(trainer: DistillationTrainer) -> int:
    return sum(parameter.numel() for parameter in trainer.distiller.method.parameters())


def _parts(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Measure the share of each part of the step in percent, by torch's profiler."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(_PROFILED):
            step()
        synchronize(device)
    events = {event.key: event for event in profiler.key_averages()}
    spent = {
        part: events[part].device_time_total if device.type == "cuda" else events[part].cpu_time_total
        for part in STEP_PARTS
    }
    return {part: 100 * time / sum(spent.values()) for part, time in spent.items()}


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{torch.get_num_threads()} threads of {platform.machine()}, torch {torch.__version__}"


def _table(rows: Sequence[Row]) -> str:
    head = ["", "s per step", "to student alone", "to student + teacher", *STEP_PARTS, "MiB per step", "adapters"]
    return markdown_table(head, [list(_cells(row)) for row in rows])


def _cells(row: Row) -> Iterator[str]:
    yield from (row.name, f"{row.seconds:.3f}", f"{row.to_student:.2f}", f"{row.to_sum:.2f}")
    yield from (f"{row.parts[part]:.1f} %" if row.parts else "-" for part in STEP_PARTS)
    yield "-" if row.memory is None else f"{row.memory / 2**20:.0f}"
    yield str(row.adapters)


def _write(rows: Sequence[Row], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*(key for key in asdict(rows[0]) if key != "parts"), *STEP_PARTS])
        writer.writeheader()
        for row in rows:
            values = asdict(row)
            writer.writerow({**values.pop("parts"), **values})
