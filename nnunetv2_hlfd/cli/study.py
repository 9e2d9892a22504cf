"""`nnUNetv2_hlfd study`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device
from nnunetv2_hlfd.utilities.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="STUDY.yaml", help="docs/reference/study.md")
    add_device(parser)
    parser.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="trainings at a time (default: one for each GPU, or for every four cores; on a cluster any number)",
    )
    parser.add_argument(
        "-launcher",
        choices=("local", "slurm"),
        default="local",
        help="slurm: each training is a job of the cluster, with the entry slurm of STUDY.yaml (default: local)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry_run", action="store_true", help="print the runs and what they will take, and stop")
    how.add_argument("--commands", action="store_true", help="write the plans, print one command for each run")


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
    help="a grid of trainings, and the report of what came out",
    description="Trains teachers and students for every arm, seed and fold of STUDY.yaml by nnUNetv2_train's own "
    "code, into ordinary nnU-Net folders. Finished runs are skipped, interrupted ones continued, failed ones "
    "isolated; started again at any time, it goes on. Then writes the report of all complete models.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. The same command goes on from here.",
)
