"""`nnUNetv2_hlfd report`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device
from nnunetv2_hlfd.utilities.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        nargs="+",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help="model folders, .../TRAINER__PLANS__CONFIGURATION; first the teacher, then the students",
    )
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="folder to write the report to")
    parser.add_argument(
        "--pictures",
        nargs="?",
        const="",
        metavar="LABEL",
        help="add segmentations over images, Grad-CAM and attention maps, and how much of these maps lies inside "
        "LABEL (default: the last label of dataset.json); needs the preprocessed data",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.01,
        metavar="DICE",
        help="how much Dice a student may lose to be called not worse (default: 0.01); choose it before you see the "
        "results",
    )
    parser.add_argument(
        "--surfaces",
        nargs="?",
        type=float,
        const=2.0,
        metavar="MM",
        help="add surface Dice (the share of the borders that lie within MM of each other; default: 2) and HD95 (the "
        "95th percentile of the distances between borders); needs MONAI and the label maps",
    )
    parser.add_argument(
        "--calibration",
        action="store_true",
        help="add the expected calibration error and reliability curves; needs probabilities, as does "
        "--paper_evaluation",
    )
    add_device(parser, default="cpu", text="device on which --pictures runs the networks (default: cpu)")
    parser.add_argument(
        "--paper_evaluation",
        nargs="?",
        const="",
        metavar="LABEL",
        help="add Dice and RVD on the slices that contain LABEL (default: the last label of dataset.json), at a "
        "threshold of 0.4, as the paper's code computes them; needs probabilities (nnUNetv2_train ... --val --npz)",
    )


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.report.extras import Extras
    from nnunetv2_hlfd.report.write import write_report

    teacher, *students = options.m
    if not students:
        raise UserError("Expected the teacher's model folder and at least one student's for -m, got one folder.")
    if not 0 <= options.margin < 1:
        raise UserError(f"Expected a --margin from 0 to below 1, got {options.margin}.")
    if options.surfaces is not None and not options.surfaces > 0:
        raise UserError(f"Expected a --surfaces above 0 mm, got {options.surfaces}.")
    extras = Extras(
        pictures=options.pictures,
        paper_evaluation=options.paper_evaluation,
        surfaces=options.surfaces,
        calibration=options.calibration,
        device=options.device,
    )
    print(f"Wrote {write_report(teacher, students, options.o, extras=extras, margin=options.margin)}")
    return 0


REPORT = Subcommand(
    help="compare finished models in a report",
    description="Compare finished nnU-Net model folders by nnU-Net's own validation. The report shows the Dice, the "
    "relative volume difference (RVD), lesions, paired tests, bootstrap intervals, sizes and training curves. Model "
    "folders that differ only in the seed are runs of one arm, which is one row of the tables. The command writes "
    "report.html, report.md and CSV tables.",
    add_arguments=_add_arguments,
    run=_run,
)
