"""Command line: `nnUNetv2_hlfd SUBCOMMAND`. Heavy imports stay inside the subcommands."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.cli.arguments import make_parser
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import parse_value, setting_help
from nnunetv2_hlfd.utilities.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Errors in the user's input end with one message and exit code 2."""
    parser = make_parser()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["plan"]:
        arguments = _bind_window(arguments)
        _check_setting_names(parser, arguments[1:])
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        return _RUN[options.command](options) or 0
    except UserError as error:
        print(f"nnUNetv2_hlfd {options.command}: {error}", file=sys.stderr)
        return 2


def _check_setting_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Name the nearest setting; argparse would read -distil_ignored as -d istil_ignored."""
    known = ["-d", "-p", "-name", "-window", *(f"-{name}" for name in setting_help())]
    for name in (each.split("=")[0] for each in arguments):
        if name[:1] == "-" and name[1:2].isalpha() and name not in known and name != "-h":
            parser.error(f"unknown setting '{name}'.{nearest(name, known)}")


def _bind_window(arguments: Sequence[str]) -> list[str]:
    """Join -window and its value by '=': argparse takes -200,300 for an option."""
    bound: list[str] = []
    for each in arguments:
        if bound and bound[-1] == "-window":
            bound[-1] += f"={each}"
        else:
            bound.append(each)
    return bound


def _plan(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.plans.variants import write_variant
    from nnunetv2_hlfd.plans.window import parse_window, preprocess_command
    from nnunetv2_hlfd.utilities.json_file import read_json

    texts = {name: getattr(options, f"setting_{name}") for name in setting_help()}
    settings = {name: parse_value(name, text) for name, text in texts.items() if text is not None}
    window = parse_window(options.window) if options.window is not None else None
    file = write_variant(options.d, options.p, options.name, settings, window=window, overwrite=options.overwrite)
    print(f"Wrote {file}\nUse it with -p {file.stem}")
    if window:
        print(
            f"It clips at {window[0]:g} and {window[1]:g} HU; mean and std stay those of the foreground. It needs a "
            f"teacher and preprocessed data of its own:\n{preprocess_command(read_json(file))}"
        )


def _convert(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.datasets.challenges import CHALLENGES, summary
    from nnunetv2_hlfd.datasets.conversion import convert
    from nnunetv2_hlfd.datasets.splits import preprocessed_folder, write_splits

    if options.split:
        preprocessed_folder()  # is set: rather now than after hours
    try:
        conversion = convert(CHALLENGES[options.challenge], options.source, options.d, regions=options.regions)
    except KeyboardInterrupt:
        sys.exit("nnUNetv2_hlfd convert: interrupted. The same command goes on from here.")
    print(summary(conversion))
    if options.split:
        print(write_splits(conversion.folder.name, conversion.names("converted", "repaired"), options.seed))
    return 1 if conversion.names("skipped") else 0


def _train(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.cli.train import train

    train(options.rest, dry_run=options.dry_run, overwrite=options.overwrite)


def _study(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.study import command

    if options.np is not None and options.np < 1:
        raise UserError(f"Expected at least 1 training at a time for -np, got {options.np}.")
    if options.dry_run:
        command.show(options.file, options.device, options.np)
    elif options.commands:
        command.print_commands(options.file, options.device)
    else:
        try:
            return command.run(options.file, options.device, options.np)
        except KeyboardInterrupt:
            sys.exit("nnUNetv2_hlfd study: interrupted. The same command goes on from here.")
    return 0


def _report(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.report.extras import Extras
    from nnunetv2_hlfd.report.write import write_report

    teacher, *students = options.m
    if not students:
        raise UserError("Expected the teacher's model folder and at least one student's for -m, got one folder.")
    extras = Extras(pictures=options.pictures, paper_evaluation=options.paper_evaluation, device=options.device)
    print(f"Wrote {write_report(teacher, students, options.o, extras=extras)}")


def _benchmark(options: argparse.Namespace) -> None:
    if options.training:
        from nnunetv2_hlfd.benchmark.training_step import benchmark_training

        if not options.d or not options.c:
            raise UserError("Expected a data set and a configuration: benchmark -training -d DATASET -c 2d")
        benchmark_training(options.d, options.c, options.f, options.p, options.tr, options.device, options.o)
    else:
        from nnunetv2_hlfd.benchmark.prediction import benchmark_prediction

        if not options.m or len(options.m) != 2 or not options.i or not options.o:
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


def _export(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.deploy.export import export_nnunet, needs_trainer
    from nnunetv2_hlfd.deploy.network_export import Options, export_onnx, export_openvino
    from nnunetv2_hlfd.deploy.source import read_source

    source = read_source(options.m, options.f, options.chk)
    if options.to == "nnunet":
        if options.int8:
            raise UserError("--int8 is for -to openvino; nnU-Net itself has no 8-bit networks.")
        exported = export_nnunet(source, options.o, half=options.half, mirroring=not options.no_mirroring)
        if trainer := needs_trainer(source):
            print(f"Prediction needs the trainer {trainer}: no plans describe its network.")
    else:
        how = Options(
            half=options.half,
            int8=options.int8,
            max_dice_drop=options.max_dice_drop,
            mirroring=not options.no_mirroring,
        )
        exported = (export_onnx if options.to == "onnx" else export_openvino)(source, options.o, how)
    print(f"Wrote {exported.folder}\nand {exported.archive}: {exported.archive.stat().st_size / 1e6:.2f} MB")


def _predict(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.deploy.command import predict

    return predict(options)


def _demo(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.demo.process import StepFailedError
    from nnunetv2_hlfd.demo.run import run_demo

    try:
        run_demo(Path(options.o), options.device)
    except StepFailedError as error:
        sys.exit(f"nnUNetv2_hlfd demo: {error}")
    except KeyboardInterrupt:
        sys.exit("nnUNetv2_hlfd demo: interrupted. The same command goes on from here.")


def _trainers_path(_options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.training.trainers_path import trainers_path

    print(trainers_path())


_RUN: Mapping[str, Callable[[argparse.Namespace], Any]] = {
    "convert": _convert,
    "plan": _plan,
    "train": _train,
    "study": _study,
    "report": _report,
    "benchmark": _benchmark,
    "export": _export,
    "predict": _predict,
    "demo": _demo,
    "trainers_path": _trainers_path,
}

if __name__ == "__main__":
    sys.exit(main())
