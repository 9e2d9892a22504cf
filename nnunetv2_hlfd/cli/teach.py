"""`nnUNetv2_hlfd teach`."""

import argparse

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="data set name or ID")
    parser.add_argument("configuration", metavar="CONFIGURATION", help="such as 2d")
    parser.add_argument("fold", metavar="FOLD", help="fold of the student")
    parser.add_argument("-p", default="nnUNetPlans", help="the student's plans (default: nnUNetPlans)")
    add_device(parser)
    parser.add_argument(
        "-step_size", type=float, default=0.5, help="step of the sliding window, in patches (default: 0.5)"
    )
    parser.add_argument(
        "--mirroring", action="store_true", help="average over mirrored copies, 4 (2d) or 8 times slower"
    )
    parser.add_argument(
        "--needs_of",
        metavar="TRAINER",
        help="store everything that this trainer needs from a teacher, such as nnUNetTrainerHLFD (default: the final "
        "maps only)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the number of cases, the minutes and the gigabytes, and stop"
    )


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
    help="store the teacher's maps, so that no teacher has to run in the training",
    description="Predict the training cases of a fold with a teacher and store its final maps (class probabilities) "
    "beside the preprocessed data, for plans with the setting teacher_maps. With 'stored', the teacher "
    "of the same fold predicts; with 'crossfit', each case is predicted by the fold that held it out. "
    "Methods that need nothing but the final map, such as SoftLabel, can learn from these maps "
    "(docs/reference/trainers.md). For methods that need more, such as HLFD, --needs_of also stores "
    "attention maps and intermediate outputs. You can interrupt the command and run it again to "
    "continue.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Run the same command again to continue.",
)
