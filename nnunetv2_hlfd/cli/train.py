"""`nnUNetv2_hlfd train`."""

import argparse
from collections.abc import Sequence

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device, unknown_options
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import RULES

_FLAGS = {
    "--npz": "store the probabilities of the validation as well",
    "--c": "go on from the latest checkpoint",
    "--val": "validate a finished training again, and train nothing",
    "--val_best": "validate with checkpoint_best.pth instead of checkpoint_final.pth",
    "--disable_checkpointing": "write no checkpoint, to try something out",
}
_VALUES = ("-tr", "-p", "-device", "-num_gpus", "-pretrained_weights")
_OWN = ("--dry_run", "--overwrite")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    for flag, text in zip(
        _OWN,
        (
            "make all checks, print what is taught, sizes, time and memory, and stop",
            "replace an earlier run of this fold that had other settings",
        ),
        strict=True,
    ):
        parser.add_argument(flag, action="store_true", help=text)
    nnunet = parser.add_argument_group("arguments of nnUNetv2_train")
    nnunet.add_argument("dataset", metavar="DATASET", help="data set name or ID")
    nnunet.add_argument("configuration", metavar="CONFIGURATION", help="such as 2d or 3d_fullres")
    nnunet.add_argument("fold", metavar="FOLD", help="number of a fold of the data set's split, or all")
    nnunet.add_argument(
        "-tr",
        default="nnUNetTrainer",
        metavar="TRAINER",
        help="such as nnUNetTrainerHLFD; nnUNetv2_hlfd trainers lists all (default: nnUNetTrainer, nnU-Net's own)",
    )
    nnunet.add_argument(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        help="name of the plans; their settings come from nnUNetv2_hlfd plan (default: nnUNetPlans)",
    )
    add_device(nnunet)
    nnunet.add_argument("-num_gpus", type=int, default=1, metavar="N", help="GPUs that train together (default: 1)")
    nnunet.add_argument(
        "-pretrained_weights", metavar="FILE", help="checkpoint of the same network, to start with its weights"
    )
    for flag, text in _FLAGS.items():
        nnunet.add_argument(flag, action="store_true", help=text)


def _prepare(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Say where settings go; argparse would take -previous_stage for -p revious_stage."""
    known = [*_VALUES, *_FLAGS, *_OWN]
    for option in unknown_options(arguments, known):
        setting = option.lstrip("-")
        if setting in RULES:
            parser.error(
                f"{option} is a setting, and settings live in plans. Make plans with it: nnUNetv2_hlfd plan -d DATASET "
                f"-name NAME -{setting} VALUE. Then train with -p nnUNetPlans_NAME"
            )
        parser.error(f"unknown argument '{option}'.{nearest(option, known)}")
    return list(arguments)


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.training.command import train

    train(options)
    return 0


TRAIN = Subcommand(
    help="nnUNetv2_train with this package's trainers in reach",
    description="Takes nnUNetv2_train's arguments and runs nnU-Net's own code, after all checks: what could not be "
    "trained is refused with one message, and leaves nothing behind.",
    add_arguments=_add_arguments,
    run=_run,
    prepare=_prepare,
    interrupted="interrupted. Add --c to go on from the last checkpoint.",
)
