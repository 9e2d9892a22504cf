"""From the arguments of `nnUNetv2_hlfd predict` to files."""

import argparse
import os
import sys
from pathlib import Path

import torch
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_hlfd.deploy.predict import Work, predict_cases
from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError


def predict(options: argparse.Namespace) -> int:
    """Predict; exit code 1 where cases failed.

    Raises:
        UserError: for arguments that do not go together, a missing model, or no images.
    """
    _check(options)
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
        print(f"{len(failed)} cases failed, the others are in {options.o}.", file=sys.stderr)
    return 1 if failed else 0


def _check(options: argparse.Namespace) -> None:
    if options.d and not options.c:
        raise UserError("Expected a configuration with -d, such as -c 2d.")
    if not 0 < options.step_size <= 1:
        raise UserError(f"Expected a -step_size above 0, at most 1, got {options.step_size}.")
    if not 0 <= options.part_id < options.num_parts:
        raise UserError(f"Expected -part_id from 0 to {options.num_parts - 1} (-num_parts - 1), got {options.part_id}.")
    if options.bfloat16 and (options.device != "cpu" or options.backend != "torch"):
        raise UserError("--bfloat16 is for -device cpu and -backend torch; a GPU computes in mixed precision anyway.")


def _model_folder(options: argparse.Namespace) -> Path:
    try:
        return Path(get_output_folder(options.d, options.tr, options.p, options.c))
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"No data set {options.d} in the folders that nnUNet_raw, nnUNet_preprocessed and "
            f"nnUNet_results name: {error}"
        ) from error
