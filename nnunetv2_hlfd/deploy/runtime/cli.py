"""Command line of an exported model: `python predict.pyz -i INPUT -o OUTPUT`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .cases import find_all
from .dicom_seg import check_dicom_seg
from .errors import UserError
from .lock import locked
from .network import find_networks, open_network
from .readers import find_reader
from .signals import InterruptedBySignalError, signals_interrupt
from .verify import find_damage
from .work import How, predict_cases

_BROKEN_PIPE = 141  # exit code of a program that SIGPIPE ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict every case of a folder.

    Returns:
        0: all is predicted; 1: a case failed, or an image matches no case; 2: a mistake of the user or a disk;
        3: all is predicted, and there are warnings.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.verify and None in (options.i, options.o):
        parser.error("expected -i and -o, or --verify")
    try:
        with signals_interrupt():
            return _verify(options.m) if options.verify else _predict(options)
    except BrokenPipeError:  # nobody reads what is printed, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt as error:
        print("interrupted. Add --continue_prediction to continue.", file=sys.stderr)
        return error.exit_code if isinstance(error, InterruptedBySignalError) else 130
    except OSError as error:
        print(f"{error.strerror or error}: {error.filename or options.o}", file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Segment images with an exported nnU-Net model, without torch. This needs numpy, SimpleITK, and "
        "onnxruntime or openvino."
    )
    parser.add_argument(
        "-i", type=Path, metavar="INPUT", help="folder with images named CASE_0000, or with folders of DICOM series"
    )
    parser.add_argument("-o", type=Path, metavar="OUTPUT", help="folder for the segmentations")
    parser.add_argument(
        "-m",
        type=Path,
        default=Path(sys.argv[0]).resolve().parent,
        metavar="MODEL_FOLDER",
        help="exported model (default: the folder of this file)",
    )
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all)")
    parser.add_argument(
        "-step_size", type=float, default=0.5, help="step of the sliding window, in patches (default: 0.5)"
    )
    parser.add_argument("-threads", type=int, help="number of threads (default: all cores)")
    parser.add_argument(
        "--disable_tta", action="store_true", help="predict without mirroring, 4 (2d) or 8 times faster"
    )
    parser.add_argument(
        "--continue_prediction", action="store_true", help="leave out the cases that are finished already"
    )
    parser.add_argument(
        "--dicom_seg", action="store_true", help="also write DICOM-SEG files, if the images are DICOM series"
    )
    parser.add_argument("--verify", action="store_true", help="only compare the model's files with their checksums")
    return parser


def _verify(model: Path) -> int:
    number, wrong = find_damage(model)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        print(f"{model} is not the model that was exported.", file=sys.stderr)
        return 1
    print(f"All {number} files of {model} are as they were exported.")
    return 0


def _predict(options: argparse.Namespace) -> int:
    if not 0 < options.step_size <= 1:
        raise UserError(f"Expected a -step_size above 0, at most 1, got {options.step_size}.")
    networks = [open_network(file, options.threads) for file in find_networks(options.m, options.f)]
    model = networks[0].description
    find_reader(model.reader)
    cases, left_over = find_all(options.i, model, options.o)
    if options.dicom_seg:
        check_dicom_seg(model, cases)
    for file in left_over:
        print(f"WARNING: {file.relative_to(options.i)} matches no case CASE_0000{model.file_ending}", file=sys.stderr)
    options.o.mkdir(parents=True, exist_ok=True)
    how = How(step_size=options.step_size, mirroring=not options.disable_tta, dicom_seg=options.dicom_seg)
    with locked(options.o):
        outcome = predict_cases(cases, networks, options.o, how, only_missing=options.continue_prediction)
    for line in outcome.summary(len(cases), len(left_over)):
        print(line, file=sys.stderr)
    return outcome.exit_code(len(left_over))
