"""`nnUNetv2_hlfd predict`."""

import argparse
import os
import sys
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_device
from nnunetv2_hlfd.utilities.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", type=Path, required=True, metavar="INPUT", help="folder with images named CASE_0000")
    add("-o", type=Path, required=True, metavar="OUTPUT", help="folder for the segmentations")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "-m",
        type=Path,
        metavar="MODEL_FOLDER",
        help="the model's folder, .../TRAINER__PLANS__CONFIGURATION, or an export for nnU-Net",
    )
    which.add_argument("-d", help="data set name or ID of a model in nnUNet_results; -p, -tr and -c choose the model")
    add("-p", default="nnUNetPlans", help="plans (default: nnUNetPlans)")
    add("-tr", default="nnUNetTrainer", help="trainer (default: nnUNetTrainer)")
    add("-c", help="configuration, such as 2d")
    add("-f", nargs="+", metavar="FOLD", help="folds (default: 0 1 2 3 4; with -m all folds in the folder)")
    add("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")
    add(
        "-backend",
        default="torch",
        choices=("torch", "onnxruntime", "openvino"),
        help="library that runs the network (default: torch)",
    )
    add_device(parser)
    add("-step_size", type=float, default=0.5, help="step of the sliding window, in patches (default: 0.5)")
    add("--disable_tta", action="store_true", help="predict without test-time mirroring, 4 (2d) or 8 times faster")
    add("--bfloat16", action="store_true", help="compute in bfloat16, if the processor can (backend torch only)")
    add("--save_probabilities", action="store_true", help="also write the probabilities of the classes")
    add("--continue_prediction", action="store_true", help="leave out the cases that are finished already")
    add("-npp", type=int, default=3, help="threads that prepare cases (default: 3)")
    add("-nps", type=int, default=3, help="threads that write segmentations (default: 3)")
    add("-prev_stage_predictions", type=Path, metavar="FOLDER", help="predictions of a cascade's first stage")
    add("-num_parts", type=int, default=1, help="number of commands that share the cases (default: 1)")
    add("-part_id", type=int, default=0, help="number of this command among them, from 0 (default: 0)")
    add("--not_on_device", action="store_true", help="sum the logits in the computer's memory, not the GPU's")
    add("--disable_progress_bar", action="store_true", help="show no progress bar")
    add("--verbose", action="store_true", help="show nnU-Net's messages")


def _run(options: argparse.Namespace) -> int:
    """Predict; the exit code is 1 where cases failed."""
    _check(options)

    import torch

    from nnunetv2_hlfd.deploy.predict import Work, predict_cases
    from nnunetv2_hlfd.deploy.predictor import Predictor
    from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
    from nnunetv2_hlfd.utilities.device import choose_device

    device = choose_device(options.device)
    extend_trainer_search()
    model = options.m or _model_folder(options)
    if device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)  # as nnUNetv2_predict
    predictor = Predictor(
        model,
        folds=options.f or (None if options.m else ["0", "1", "2", "3", "4"]),
        checkpoint=options.chk,
        device=device,
        backend=options.backend,
        step_size=options.step_size,
        mirroring=not options.disable_tta,
        bfloat16=options.bfloat16,
        on_device=not options.not_on_device,
        verbose=options.verbose,
    )
    work = Work(
        images=options.i,
        output=options.o,
        save_probabilities=options.save_probabilities,
        continue_prediction=options.continue_prediction,
        npp=options.npp,
        nps=options.nps,
        prev_stage_predictions=options.prev_stage_predictions,
        num_parts=options.num_parts,
        part_id=options.part_id,
        progress_bar=not options.disable_progress_bar,
    )
    failed = predict_cases(predictor, work)
    for case, reason in failed.items():
        print(f"{case} FAILED: {reason}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} cases failed; the others, if any, are in {options.o}.", file=sys.stderr)
    return 1 if failed else 0


def _check(options: argparse.Namespace) -> None:
    """Refuse arguments that do not go together."""
    if options.d and not options.c:
        raise UserError("Expected a configuration with -d, such as -c 2d.")
    if not 0 < options.step_size <= 1:
        raise UserError(f"Expected a -step_size above 0, at most 1, got {options.step_size}.")
    if not 0 <= options.part_id < options.num_parts:
        raise UserError(f"Expected -part_id from 0 to {options.num_parts - 1} (-num_parts - 1), got {options.part_id}.")
    if options.bfloat16 and (options.device != "cpu" or options.backend != "torch"):
        raise UserError("--bfloat16 is for -device cpu and -backend torch; a GPU computes in mixed precision anyway.")


def _model_folder(options: argparse.Namespace) -> Path:
    """Return the folder that nnUNetv2_predict finds for the same -d, -tr, -p and -c."""
    from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier

    from nnunetv2_hlfd.datasets.locations import find_dataset, results_folder

    name = convert_trainer_plans_config_to_identifier(options.tr, options.p, options.c)
    return results_folder() / find_dataset(options.d) / name


PREDICT = Subcommand(
    help="predict with any nnU-Net model, faster than nnUNetv2_predict",
    description="Take the arguments of nnUNetv2_predict and write the same files. Preprocessing and export are "
    "nnU-Net's; the tiles are predicted in batches, by a choice of backends. If a case cannot be predicted, it is "
    "named, the other cases are predicted, and the exit code is 1. A segmentation file appears only when complete: "
    "after a kill, continue with --continue_prediction.",
    add_arguments=_add_arguments,
    run=_run,
    interrupted="interrupted. Add --continue_prediction to continue.",
)
