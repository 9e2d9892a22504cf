"""`nnUNetv2_hlfd train`."""

import argparse

from nnunetv2_hlfd.cli.subcommand import Subcommand
from nnunetv2_hlfd.distillation.registry import PREFIX, method_names


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry_run", action="store_true", help="make all checks, print taps, sizes and seconds per step, and stop"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run of this fold that had other settings"
    )


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.training.command import train

    train(options.more, dry_run=options.dry_run, overwrite=options.overwrite)
    return 0


TRAIN = Subcommand(
    help="nnUNetv2_train with this package's trainers in reach",
    description="Takes nnUNetv2_train's arguments unchanged and runs nnU-Net's own code. Trainers: "
    "nnUNetTrainerStudent, nnUNetTrainerTeacher, nnUNetTrainerUNetPlusPlus, and a student for each method: "
    + ", ".join(f"{PREFIX}{method}" for method in method_names()),
    usage="nnUNetv2_hlfd train DATASET CONFIGURATION FOLD -tr TRAINER [nnUNetv2_train's arguments] [--dry_run] "
    "[--overwrite]",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Add --c to go on from the last checkpoint.",
    takes_more=True,
)
