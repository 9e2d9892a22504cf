"""`nnUNetv2_hlfd train`."""

import argparse
from collections.abc import Sequence

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device, unknown_options
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import RULES

_FLAGS = {
    "--npz": "also store the probabilities of the validation",
    "--c": "continue from the latest checkpoint",
    "--val": "validate a finished training again, without training",
    "--val_best": "validate with checkpoint_best.pth instead of checkpoint_final.pth",
    "--disable_checkpointing": "write no checkpoints, to try something out",
}
_VALUES = ("-tr", "-p", "-device", "-num_gpus", "-pretrained_weights")
_OWN = ("--dry_run", "--overwrite")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    for flag, text in zip(
        _OWN,
        (
            "make all checks, print the roles of the stages, the sizes, the time and the memory, and stop",
            "replace an earlier run of this fold that had other settings",
        ),
        strict=True,
    ):
        parser.add_argument(flag, action="store_true", help=text)
    nnunet = parser.add_argument_group("arguments of nnUNetv2_train")
    nnunet.add_argument("dataset", metavar="DATASET", help="data set name or ID")
    nnunet.add_argument("configuration", metavar="CONFIGURATION", help="such as 2d or 3d_fullres")
    nnunet.add_argument("fold", metavar="FOLD", help="number of a fold of the data set's split, or 'all'")
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
    nnunet.add_argument(
        "-num_gpus", type=int, default=1, metavar="N", help="number of GPUs that train together (default: 1)"
    )
    nnunet.add_argument(
        "-pretrained_weights", metavar="FILE", help="checkpoint of the same network, whose weights are the start"
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
    help="train as nnUNetv2_train does, with the trainers of this package",
    description="Take the arguments of nnUNetv2_train, check everything, and run nnU-Net's own code. If something does "
    "not fit, the command ends with one message before it has written anything.",
    add_arguments=_add_arguments,
    run=_run,
    prepare=_prepare,
    interrupted="interrupted. Add --c to continue from the last checkpoint.",
)
