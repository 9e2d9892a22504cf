"""Command line of an exported model: `python predict.pyz -i INPUT -o OUTPUT`."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError, last_line
from .images import find_cases, is_finished, read_image, write_segmentation
from .network import find_networks, open_network
from .predict import predict_labels
from .readers import find_reader
from .verify import find_damage

_BROKEN_PIPE = 141  # exit code of a program that SIGPIPE ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict every case of a folder; the exit code is 1 where a case failed, 2 for a mistake of the user or a disk."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.verify and None in (options.i, options.o):
        parser.error("expected -i and -o, or --verify")
    try:
        return _verify(options.m) if options.verify else _predict(options)
    except BrokenPipeError:  # nobody reads what is printed, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print("interrupted. Add --continue_prediction to go on.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"{error.strerror or error}: {error.filename or options.o}", file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Segment images with an exported nnU-Net, without torch. Needs numpy, "
        "SimpleITK and onnxruntime or openvino."
    )
    parser.add_argument("-i", type=Path, metavar="INPUT", help="folder with CASE_0000 images")
    parser.add_argument("-o", type=Path, metavar="OUTPUT", help="folder for the segmentations")
    parser.add_argument(
        "-m",
        type=Path,
        default=Path(sys.argv[0]).resolve().parent,
        metavar="MODEL_FOLDER",
        help="exported model (default: where this file lies)",
    )
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all)")
    parser.add_argument("-step_size", type=float, default=0.5, help="of the sliding window, in patches (default: 0.5)")
    parser.add_argument("-threads", type=int, help="of the processor (default: all cores)")
    parser.add_argument("--disable_tta", action="store_true", help="no test-time mirroring: 4 (2d) or 8 times faster")
    parser.add_argument("--continue_prediction", action="store_true", help="leave out cases that are finished")
    parser.add_argument("--verify", action="store_true", help="only compare the model's files with their checksums")
    return parser


def _verify(model: Path) -> int:
    number, wrong = find_damage(model)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        print(f"{model} is not the model that was exported.", file=sys.stderr)
        return 1
    print(f"All {number} files of {model} are as exported.")
    return 0


def _predict(options: argparse.Namespace) -> int:
    if not 0 < options.step_size <= 1:
        raise UserError(f"Expected a -step_size above 0, at most 1, got {options.step_size}.")
    networks = [open_network(file, options.threads) for file in find_networks(options.m, options.f)]
    model = networks[0].description
    find_reader(model.reader)
    cases = find_cases(options.i, model.file_ending)
    options.o.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, (case, files) in enumerate(cases.items(), start=1):
        file = options.o / f"{case}{model.file_ending}"
        if options.continue_prediction and is_finished(file, model):
            continue
        start = time.perf_counter()
        try:
            image = read_image(files, model)
            for warning in image.warnings:
                print(f"[{number}/{len(cases)}] {case} WARNING: {warning}", file=sys.stderr)
            labels = predict_labels(image, networks, step_size=options.step_size, mirroring=not options.disable_tta)
            write_segmentation(labels, image, file, model)
        except Exception as error:  # one bad case must not cost the others
            failed.append(case)
            print(f"[{number}/{len(cases)}] {case} FAILED: {last_line(error)}", file=sys.stderr)
        else:
            print(f"[{number}/{len(cases)}] {case}: {time.perf_counter() - start:.1f} s", flush=True)
    if failed:
        print(f"{len(failed)} of {len(cases)} cases failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
