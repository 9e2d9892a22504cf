"""Command line: `nnUNetv2_hlfd SUBCOMMAND`. Heavy imports stay inside the subcommands."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.cli_arguments import make_parser
from nnunetv2_hlfd.config import parse_value, setting_help
from nnunetv2_hlfd.setting_rules import nearest


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Errors in the user's input end with one message and exit code 2."""
    parser = make_parser()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["plan"]:
        _check_setting_names(parser, arguments[1:])
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        return _RUN[options.command](options) or 0
    except ValueError as error:
        print(f"nnUNetv2_hlfd {options.command}: {error}", file=sys.stderr)
        return 2


def _check_setting_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Name the nearest setting; argparse would read -distil_ignored as -d istil_ignored."""
    known = ["-d", "-p", "-name", *(f"-{name}" for name in setting_help())]
    for name in (each.split("=")[0] for each in arguments):
        if name[:1] == "-" and name[1:2].isalpha() and name not in known and name != "-h":
            parser.error(f"unknown setting '{name}'.{nearest(name, known)}")


def _plan(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.variants import write_variant

    texts = {name: getattr(options, f"setting_{name}") for name in setting_help()}
    settings = {name: parse_value(name, text) for name, text in texts.items() if text is not None}
    file = write_variant(options.d, options.p, options.name, settings, overwrite=options.overwrite)
    print(f"Wrote {file}\nUse it with -p {file.stem}")


def _train(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.training import train

    train(options.rest, dry_run=options.dry_run, overwrite=options.overwrite)


def _study(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.study import command

    if options.np is not None and options.np < 1:
        raise ValueError(f"Expected at least 1 training at a time for -np, got {options.np}.")
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
    from nnunetv2_hlfd.report.pictures import PictureOptions
    from nnunetv2_hlfd.report.write import write_report

    teacher, *students = options.m
    if not students:
        raise ValueError("Expected the teacher's model folder and at least one student's for -m, got one folder.")
    pictures = None
    if options.pictures is not None:
        pictures = PictureOptions(label=options.pictures or None, device=options.device)
    print(f"Wrote {write_report(teacher, students, options.o, pictures=pictures)}")


def _benchmark(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.step_benchmark import benchmark_training

    benchmark_training(options.d, options.c, options.f, options.p, options.tr, options.device, options.o)


def _export(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.deploy.export import export_nnunet, needs_trainer

    exported = export_nnunet(
        options.m, options.o, folds=options.f, checkpoint=options.chk, half=options.half,
        mirroring=not options.no_mirroring,
    )  # fmt: skip
    print(f"Wrote {exported.folder}\nand {exported.archive}: {exported.archive.stat().st_size / 1e6:.2f} MB")
    if trainer := needs_trainer(exported):
        print(f"Prediction needs the trainer {trainer}: no plans describe its network.")


def _demo(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.demo import run_demo
    from nnunetv2_hlfd.demo_process import StepFailedError

    try:
        run_demo(Path(options.o), options.device)
    except StepFailedError as error:
        sys.exit(f"nnUNetv2_hlfd demo: {error}")
    except KeyboardInterrupt:
        sys.exit("nnUNetv2_hlfd demo: interrupted. The same command goes on from here.")


def _trainers_path(_options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.training import trainers_path

    print(trainers_path())


_RUN: Mapping[str, Callable[[argparse.Namespace], Any]] = {
    "plan": _plan, "train": _train, "study": _study, "report": _report, "benchmark": _benchmark, "export": _export,
    "demo": _demo, "trainers_path": _trainers_path,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
