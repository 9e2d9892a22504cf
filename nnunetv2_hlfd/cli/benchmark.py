"""`nnUNetv2_hlfd benchmark`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device
from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.utilities.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", default="0", help="fold (default: 0)")
    add_device(parser)
    parser.add_argument("-o", type=Path, metavar="OUTPUT", help="folder to write to; with -training, a CSV file")
    prediction = parser.add_argument_group("prediction")
    prediction.add_argument(
        "-m", nargs=2, type=Path, metavar=("TEACHER_FOLDER", "STUDENT_FOLDER"), help="model folders"
    )
    prediction.add_argument("-i", type=Path, metavar="IMAGES", help="folder with 10 or more images named CASE_0000")
    prediction.add_argument(
        "-gt", type=Path, metavar="LABELS", help="folder with the labels of the images, to measure Dice"
    )
    prediction.add_argument(
        "-max_dice_drop", type=float, default=0.01, help="largest Dice that 8 bits may cost (default: 0.01)"
    )
    training = parser.add_argument_group("training")
    training.add_argument("-training", action="store_true", help="measure training steps instead of predictions")
    training.add_argument("-d", help="data set name or ID")
    training.add_argument("-c", help="configuration, such as 2d")
    training.add_argument("-p", default="nnUNetPlans", help="plans or a variant of them (default: nnUNetPlans)")
    training.add_argument("-tr", nargs="+", default=[f"{PREFIX}HLFD"], help=f"trainers (default: {PREFIX}HLFD)")


def _run(options: argparse.Namespace) -> int:
    if options.training:
        _measure_training(options)
    else:
        _measure_prediction(options)
    return 0


def _measure_training(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.benchmark.training_step import benchmark_training

    if not options.d or not options.c:
        raise UserError("Expected a data set and a configuration: benchmark -training -d DATASET -c 2d")
    benchmark_training(options.d, options.c, options.f, options.p, options.tr, options.device, options.o)


def _measure_prediction(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.benchmark.prediction import benchmark_prediction

    if not options.m or not options.i or not options.o:
        raise UserError(
            "Expected two models, images and an output: benchmark -m TEACHER_FOLDER STUDENT_FOLDER "
            "-i IMAGES -o OUTPUT, or benchmark -training"
        )
    teacher, student = options.m
    file = benchmark_prediction(
        teacher,
        student,
        options.i,
        options.o,
        truth=options.gt,
        fold=options.f,
        device=options.device,
        max_dice_drop=options.max_dice_drop,
    )
    print(f"Wrote {file}")


BENCHMARK = Subcommand(
    help="measure what predictions or training steps cost",
    description="Measure predictions: the seconds of every part from the image file to the segmentation file, the "
    "memory and the Dice, in one run, from the teacher in nnU-Net to the student and the teacher in 8 bits. With "
    "-training, measure training steps instead: the seconds, the parts and the peak memory for each trainer, the "
    "student alone and the teacher's forward pass. This trains nothing and writes nothing but the CSV file.",
    add_arguments=_add_arguments,
    run=_run,
)
