"""`nnUNetv2_hlfd teach`."""

import argparse

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="data set name or ID")
    parser.add_argument("configuration", metavar="CONFIGURATION", help="such as 2d")
    parser.add_argument("fold", metavar="FOLD", help="of the student")
    parser.add_argument("-p", default="nnUNetPlans", help="the student's plans (default: nnUNetPlans)")
    add_device(parser)
    parser.add_argument("-step_size", type=float, default=0.5, help="of the sliding window, in patches (default: 0.5)")
    parser.add_argument(
        "--mirroring", action="store_true", help="average over mirrored copies: 4 (2d) or 8 times slower"
    )
    parser.add_argument(
        "--needs_of",
        metavar="TRAINER",
        help="store all that this trainer needs of a teacher, such as nnUNetTrainerHLFD; without it, final maps",
    )
    parser.add_argument("--dry_run", action="store_true", help="print cases, minutes and gigabytes, and stop")


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.deploy.teach import teach

    teach(
        options.dataset,
        options.configuration,
        options.fold,
        options.p,
        device=options.device,
        step_size=options.step_size,
        mirroring=options.mirroring,
        needs_of=options.needs_of,
        dry_run=options.dry_run,
    )
    return 0


TEACH = Subcommand(
    help="store the teacher's maps, so that it does not run in training",
    description="Predicts the training cases of a fold by its teacher, as prediction does, and stores the final maps "
    "beside the preprocessed data, for plans with the setting teacher_maps stored (the teacher of the fold) or "
    "crossfit (each case by the fold that held it out). The methods that need no more than the final map can learn "
    "from them, such as SoftLabel (docs/reference/trainers.md). With --needs_of, attention maps and intermediate "
    "outputs are stored for a method that needs those as well, such as HLFD. Started again at any time, it goes on.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. The same command goes on from here.",
)
