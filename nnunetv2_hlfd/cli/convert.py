"""`nnUNetv2_hlfd convert`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("challenge", choices=("kits19", "lits"), help="data set in SOURCE")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of the download")
    parser.add_argument("-d", help="data set name or ID (default: Dataset019_KiTS19, Dataset017_LiTS)")
    parser.add_argument("--regions", action="store_true", help="make the organ together with its tumors a region")
    parser.add_argument("-split", choices=("paper",), help="write splits_final.json: five folds, 168:42 for KiTS19")
    parser.add_argument("-seed", type=int, default=12345, help="seed of the split (default: 12345, as in nnU-Net)")


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.datasets.challenges import CHALLENGES, summary
    from nnunetv2_hlfd.datasets.conversion import convert
    from nnunetv2_hlfd.datasets.locations import preprocessed_folder
    from nnunetv2_hlfd.datasets.splits import write_splits

    if options.split:
        preprocessed_folder()  # is set: rather now than after hours
    conversion = convert(CHALLENGES[options.challenge], options.source, options.d, regions=options.regions)
    print(summary(conversion))
    if options.split:
        print(write_splits(conversion.folder.name, conversion.names("converted", "repaired"), options.seed))
    return 1 if conversion.names("skipped") else 0


CONVERT = Subcommand(
    help="convert KiTS19 or LiTS into nnU-Net's raw data",
    description="Convert KiTS19 or LiTS (also Task03_Liver of the Medical Segmentation Decathlon), as downloaded, "
    "into nnU-Net's raw data in nnUNet_raw. Cases that are damaged, mismatched or unlabeled are named and skipped "
    "(conversion_report.json). The exit code is 1 if a labeled case was skipped. You can interrupt the command and run "
    "it again to continue.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Run the same command again to continue.",
)
