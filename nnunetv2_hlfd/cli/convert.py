"""`nnUNetv2_hlfd convert`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("challenge", choices=("kits19", "lits"), help="what SOURCE is")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of the download")
    parser.add_argument("-d", help="data set name or ID (default: Dataset019_KiTS19, Dataset017_LiTS)")
    parser.add_argument("--regions", action="store_true", help="label the organ with its tumors as a region")
    parser.add_argument("-split", choices=("paper",), help="write splits_final.json: five folds, 168:42 for KiTS19")
    parser.add_argument("-seed", type=int, default=12345, help="of the split (default: 12345, nnU-Net's)")


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
    help="KiTS19 or LiTS as nnU-Net raw data",
    description="Writes KiTS19 or LiTS (also Task03_Liver of the Medical Segmentation Decathlon), as downloaded, "
    "into nnUNet_raw. Cases that are damaged, mismatched or unlabeled are named and skipped "
    "(conversion_report.json); exit code 1 if labeled ones were. Started again, it goes on.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. The same command goes on from here.",
)
