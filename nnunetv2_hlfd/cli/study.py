"""`nnUNetv2_hlfd study`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device
from nnunetv2_hlfd.utilities.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="STUDY.yaml", help="the study file (docs/reference/study.md)")
    add_device(parser)
    parser.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="number of trainings at a time (default: one for each GPU, or one for every four cores on a CPU; no limit "
        "on a cluster)",
    )
    parser.add_argument(
        "-launcher",
        choices=("local", "slurm"),
        default="local",
        help="local: train on this machine; slurm: submit each training as a job, with the resources of the entry "
        "slurm in STUDY.yaml (default: local)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry_run", action="store_true", help="print the runs, estimate time, memory and disk space, and stop"
    )
    how.add_argument(
        "--commands", action="store_true", help="write the plans, print one command for each unfinished run, and stop"
    )


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.study import command

    if options.np is not None and options.np < 1:
        raise UserError(f"Expected at least 1 training at a time for -np, got {options.np}.")
    if options.commands and options.launcher != "local":
        raise UserError("--commands only prints what is to be run: leave out -launcher.")
    if options.dry_run:
        command.show(options.file, options.device, options.np)
    elif options.commands:
        command.print_commands(options.file, options.device)
    else:
        return command.run(options.file, options.device, options.np, options.launcher)
    return 0


STUDY = Subcommand(
    help="run a grid of trainings and write their report",
    description="Train the teachers and students for every arm, seed and fold of STUDY.yaml as ordinary nnU-Net "
    "models, and write a report on all complete models. An arm is a set of trainings that differ only "
    "in their seed. Finished runs are skipped, interrupted runs are continued, and a failed run does "
    "not stop the others. You can interrupt the command and run it again to continue.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Run the same command again to continue.",
)
