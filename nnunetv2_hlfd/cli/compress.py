"""`nnUNetv2_hlfd compress`."""

import argparse
import sys
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device, add_license


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-m",
        type=Path,
        required=True,
        metavar="MODEL",
        help="the trained model, which becomes the teacher: its folder, .../TRAINER__PLANS__CONFIGURATION; a zip from "
        "nnUNetv2_export_model_to_zip; or the name or number of a data set in nnUNet_results",
    )
    add("-tr", metavar="TRAINER", help="the teacher's trainer, if the zip or the data set has several models")
    add("-p", metavar="PLANS", help="the teacher's plans, likewise")
    add("-c", metavar="CONFIGURATION", help="the teacher's configuration, likewise")
    add("-i", type=Path, required=True, metavar="IMAGES", help="folder with CASE_0000 images; no labels are needed")
    add(
        "-o",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder to work in; if it holds an interrupted run of the same command, that run is continued",
    )
    add("-l", type=Path, metavar="LABELS", help="true label maps of all or some of the images")
    add("-f", nargs="+", metavar="FOLD", help="folds of the teacher (default: all trained folds)")
    add("-chk", default="checkpoint_final.pth", help="checkpoint of the teacher (default: checkpoint_final.pth)")
    add("-student", default="auto", help="size of the student, such as resnet18_w4 (default: auto)")
    add(
        "-spacing",
        nargs="+",
        type=float,
        metavar="MM",
        help="the student's spacing, coarser than the teacher's: one number, or one for each axis of plans.json "
        "(default: the teacher's)",
    )
    add("-steps", type=int, default=30_000, help="number of training steps (default: 30000)")
    add("-settings", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the training, such as batch_size=8")
    add("-seed", type=int, default=0, help="random seed of the training (default: 0)")
    add(
        "-held_out",
        default="0.2",
        metavar="SHARE",
        help="share of the images to hold out, or a file with their names (default: 0.2)",
    )
    add_device(parser)
    add(
        "-max_dice_drop",
        type=float,
        default=0.01,
        help="largest Dice that 8 bits may cost; otherwise, the export is in float32 (default: 0.01)",
    )
    add(
        "--margin",
        type=float,
        default=0.01,
        metavar="DICE",
        help="with -l: how much less Dice than the teacher the student may have to be called not worse; choose it "
        "before you see the results (default: 0.01)",
    )
    add(
        "--disable_tta", action="store_true", help="let the teacher predict without mirroring, 4 (2d) or 8 times faster"
    )
    add("--control", action="store_true", help="also train the same student on the teacher's label maps alone")
    add_license(parser)
    add("--dry_run", action="store_true", help="check everything, estimate time, memory and disk space, and stop")


def _run(options: argparse.Namespace) -> int:
    """Compress; the exit code is 1 where images had to be left out."""
    from nnunetv2_hlfd.compress.command import compress_model
    from nnunetv2_hlfd.compress.options import CompressOptions, parse_settings
    from nnunetv2_hlfd.deploy.provenance import Licenses
    from nnunetv2_hlfd.utilities.steps import StepFailedError

    try:
        failed = compress_model(
            CompressOptions(
                model=options.m,
                images=options.i,
                output=options.o,
                labels=options.l,
                trainer=options.tr,
                plans=options.p,
                configuration=options.c,
                folds=options.f,
                checkpoint=options.chk,
                student=options.student,
                spacing=options.spacing,
                steps=options.steps,
                settings=parse_settings(options.settings),
                seed=options.seed,
                held_out=_held_out(options.held_out),
                device=options.device,
                mirroring=not options.disable_tta,
                control=options.control,
                max_dice_drop=options.max_dice_drop,
                margin=options.margin,
                licenses=Licenses(weights=options.license, data=options.data_license),
            ),
            dry_run=options.dry_run,
        )
    except StepFailedError as error:
        print(f"nnUNetv2_hlfd compress: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def _held_out(text: str) -> float | Path:
    try:
        return float(text)
    except ValueError:
        return Path(text)


COMPRESS = Subcommand(
    help="make a small model from a trained one and images without labels",
    description="Predict the images with the teacher, train a small student on its predictions, export the student for "
    "stock nnU-Net and for machines without torch, and compare it with the teacher on held-out images. The command "
    "writes to FOLDER only, whatever nnUNet_raw, nnUNet_preprocessed and nnUNet_results are. The exit code is 1 if "
    "images had to be left out (failed.csv).",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Run the same command again to continue.",
)
