"""`nnUNetv2_hlfd demo`."""

import argparse
import sys
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", default="hlfd_demo", metavar="FOLDER", help="folder to work in (default: ./hlfd_demo)")
    add_device(parser, default=None, text="device to train on (default: cuda if available, else cpu)")


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.demo.run import run_demo
    from nnunetv2_hlfd.utilities.steps import StepFailedError

    try:
        run_demo(Path(options.o), options.device)
    except StepFailedError as error:
        print(f"nnUNetv2_hlfd demo: {error}", file=sys.stderr)
        return 1
    return 0


DEMO = Subcommand(
    help="train a teacher and students on simulated CT, in minutes",
    description="Simulate a CT data set, train a teacher, the student alone and the student with HLFD on it, predict "
    "held-out cases with stock nnU-Net, and write result.md and result.png. The variables nnUNet_* are ignored. You "
    "can interrupt the command and run it again with the same folder to continue.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Run the same command again to continue.",
)
