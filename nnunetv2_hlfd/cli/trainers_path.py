"""`nnUNetv2_hlfd trainers_path`."""

import argparse

from nnunetv2_hlfd.cli.subcommand import Subcommand


def _add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add nothing: it takes no arguments."""


def _run(_options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.training.trainers_path import trainers_path

    print(trainers_path())
    return 0


TRAINERS_PATH = Subcommand(
    help="print the folder for nnUNet_extTrainer",
    description="Print the folder of this package's trainers, in which nnU-Net finds them after: "
    "export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)",
    add_arguments=_add_arguments,
    run=_run,
)
