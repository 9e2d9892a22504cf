"""`nnUNetv2_hlfd trainers`."""

import argparse

from nnunetv2_hlfd.cli.subcommand import Subcommand


def _add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add nothing: it takes no arguments."""


def _run(_options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.training.find_trainer import describe_trainers

    trainers = describe_trainers()
    width = max(map(len, trainers))
    for name, line in trainers.items():
        print(f"{name:{width}}  {line}")
    return 0


TRAINERS = Subcommand(
    help="list the trainers and what each of them does",
    description="List the trainers for -tr of nnUNetv2_hlfd train and nnUNetv2_train, with one line on each. If other "
    "installed packages add methods, their trainers are listed last.",
    add_arguments=_add_arguments,
    run=_run,
)
