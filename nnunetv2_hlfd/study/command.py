"""`nnUNetv2_hlfd study STUDY.yaml`: show, print or run it, then report."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunetv2_hlfd.study.checks import check_teachers_were_blind
from nnunetv2_hlfd.study.cost import Estimator
from nnunetv2_hlfd.study.launcher import Launcher
from nnunetv2_hlfd.study.local import LocalLauncher, default_parallel
from nnunetv2_hlfd.study.outline import HEAD, outline
from nnunetv2_hlfd.study.phantom import make_phantom
from nnunetv2_hlfd.study.plan import locate, plan_runs, study_folder, teacher_folder, write_plans
from nnunetv2_hlfd.study.runner import Runner
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.study.slurm import slurm_parameters
from nnunetv2_hlfd.study.spec import Study, read_study
from nnunetv2_hlfd.study.teachings import Job, find_teachings
from nnunetv2_hlfd.training.cost import memory_in_words
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.lock import locked
from nnunetv2_hlfd.utilities.markdown import markdown_table


def show(file: Path, device: str, parallel: int | None) -> None:
    """Print the runs and an estimate of what they take; the runs alone where there is no data set. Writes nothing."""
    study = read_study(file)
    try:
        locate(study)
    except UserError as error:
        _show_outline(study, error)
        return
    runs = plan_runs(study)
    parallel = parallel or default_parallel(device)
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // parallel))
    estimator = Estimator(runs, device)
    hours = {run.name: estimator.seconds(run) / 3600 for run in runs}
    head = ["Arm", "Seed", "Fold", "Trainer", "Plans", "Teacher", "State", "Steps", "Hours"]
    rows = [
        [
            run.arm,
            str(run.settings.seed),
            str(run.fold),
            run.trainer.__name__,
            run.plans_name,
            run.teacher.name if run.teacher else "-",
            run.state,
            f"{run.settings.epochs} x {run.settings.num_iterations_per_epoch}",
            f"{hours[run.name]:.2f}",
        ]
        for run in runs
    ]
    print(markdown_table(head, rows))
    disk = sum(estimator.disk_bytes(run) for run in runs)
    print(
        f"\n{len(runs)} runs, {sum(run.is_finished for run in runs)} finished. About {sum(hours.values()):.1f} h of "
        f"steps, {sum(hours.values()) / parallel:.1f} h with {parallel} at a time: step times measured now on this "
        f"machine, without augmentation and validation. {memory_in_words(choose_device(device))} for each training, "
        f"augmentation apart. Disk: about {disk / 1e9:.2g} GB of checkpoints.\nDry run: nothing was written."
    )


def _show_outline(study: Study, error: UserError) -> None:
    rows = outline(study)
    print(markdown_table(HEAD, rows))
    how = "It is simulated, planned and preprocessed when the study starts." if study.phantom else str(error)
    print(
        f"\n{len(rows)} runs. The data set does not exist yet, so nothing can be measured. {how}\nDry run: nothing "
        f"was written."
    )


def print_commands(file: Path, device: str) -> None:
    """Write the plans variants; print a command for each run that is not finished, teachers of a fold first."""
    study = read_study(file)
    _make_data(study)
    runs = plan_runs(study)
    write_plans(runs)
    print(
        "Wrote the plans. A fold's teachers have to be finished before its other runs start, and a teach command "
        "before the runs that follow it.",
        file=sys.stderr,
    )
    for job in _in_order(runs):
        if not job.is_finished:
            print(job.shell_line(device))


def _in_order(runs: Sequence[Run]) -> list[Job]:
    """The runs, and before the first that needs them what stores maps."""
    jobs: list[Job] = list(runs)
    for teaching in find_teachings(runs):
        jobs.insert(jobs.index(teaching.runs[0]), teaching)
    return jobs


def run(file: Path, device: str, parallel: int | None, launcher: str = "local") -> int:
    """Run what is not finished, then write the report of all complete models. Returns the exit code."""
    study = read_study(file)
    parameters = slurm_parameters(study.slurm) if launcher == "slurm" else None
    _make_data(study)
    runs = plan_runs(study)
    folder = study_folder(study, runs)
    runner = Runner(runs, folder, _launcher(folder, device, parallel, parameters))
    with locked(folder, f"nnUNetv2_hlfd study {file.name}"):
        return _run(study, runs, runner)


def _launcher(folder: Path, device: str, parallel: int | None, slurm: Mapping[str, Any] | None) -> Launcher:
    if slurm is None:
        return LocalLauncher(folder, device, parallel or default_parallel(device))
    from nnunetv2_hlfd.study.cluster import ClusterLauncher

    return ClusterLauncher(folder, device, parallel, slurm)


def _make_data(study: Study) -> None:
    if study.phantom:
        make_phantom(study.phantom, study.dataset, study.configuration)


def _run(study: Study, runs: Sequence[Run], runner: Runner) -> int:
    write_plans(runs)
    failed = runner()
    for name, reason in failed.items():
        print(f"FAILED {name}: {reason}")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed. The same command tries them again.")
    check_teachers_were_blind(runs)
    _report(study, runs, runner.folder / "report")
    return 1 if failed else 0


def _report(study: Study, runs: Sequence[Run], output: Path) -> None:
    from nnunetv2_hlfd.report.extras import Extras
    from nnunetv2_hlfd.report.write import write_report

    teacher, arms = teacher_folder(study, runs), complete_arms(study, runs)
    trained = [run for run in runs if run.model_folder == teacher]
    if not arms or not all(run.is_finished for run in trained):
        print("No report: neither a teacher nor an arm is complete.")
        return
    students = [folder for folders in arms.values() for folder in folders]
    page = write_report(teacher, students, output, arms, Extras(**study.report), study.margin)
    print(f"Wrote {page}")


def complete_arms(study: Study, runs: Sequence[Run]) -> Mapping[str, list[Path]]:
    """Arm -> model folders of its seeds of which every fold is finished."""
    arms: dict[str, list[Path]] = {}
    for arm in study.arms:
        models = dict.fromkeys(run.model_folder for run in runs if run.arm == arm.name and not run.is_teacher)
        complete = [model for model in models if all(run.is_finished for run in runs if run.model_folder == model)]
        if complete:
            arms[arm.name] = complete
    return arms
