"""`nnUNetv2_hlfd demo`."""

import argparse
import sys
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", default="hlfd_demo", metavar="FOLDER", help="where to work (default: ./hlfd_demo)")
    add_device(parser, default=None, text="where to train (default: cuda if available, else cpu)")


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
    help="teacher, student alone and HLFD on a built-in phantom, in minutes",
    description="Trains a teacher, the student alone and the student with HLFD on a simulated CT data set, "
    "predicts held-out cases with stock nnU-Net and writes result.md and result.png. nnUNet_* variables are "
    "ignored; started again in the same folder, it goes on where it ended.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. The same command goes on from here.",
)
