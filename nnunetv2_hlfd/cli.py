"""Command line: `nnUNetv2_hlfd SUBCOMMAND`. Heavy imports stay inside the subcommands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_hlfd import __version__
from nnunetv2_hlfd.config import parse_value, setting_help
from nnunetv2_hlfd.methods import PREFIX, method_names
from nnunetv2_hlfd.setting_rules import nearest

_DESCRIPTION = """Compress a trained nnU-Net into a small student by knowledge distillation (HLFD).

  export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)
  nnUNetv2_train DATASET 2d 0                            the teacher, stock nnU-Net
  nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerHLFD      the student
  nnUNetv2_predict -d DATASET -c 2d -f 0 -tr nnUNetTrainerHLFD -i IN -o OUT"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Errors in the user's input end with one message and exit code 2."""
    parser = _parser()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["plan"]:
        _check_setting_names(parser, arguments[1:])
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        options.run(options)
    except ValueError as error:
        print(f"nnUNetv2_hlfd {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _check_setting_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Name the nearest setting; argparse would read -distil_ignored as -d istil_ignored."""
    known = ["-d", "-p", "-name", *(f"-{name}" for name in setting_help())]
    for name in (each.split("=")[0] for each in arguments):
        if name[:1] == "-" and name[1:2].isalpha() and name not in known and name != "-h":
            parser.error(f"unknown setting '{name}'.{nearest(name, known)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_hlfd",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="SUBCOMMAND", required=True)
    _add_plan(commands)
    _add_train(commands)
    _add_demo(commands)
    path = commands.add_parser(
        "trainers_path", help="print the folder for nnUNet_extTrainer",
        description="Print the folder of this package's trainers, to be used as: "
        "export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)",
    )  # fmt: skip
    path.set_defaults(run=_trainers_path)
    return parser


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = commands.add_parser(
        "plan", allow_abbrev=False, help="make a variant of plans with other settings",
        description="Write PLANS_NAME.json beside the plans: the same preprocessed data under another plans name, with "
        "settings of its own. Train it with: nnUNetv2_train D C F -tr nnUNetTrainerHLFD -p PLANS_NAME",
    )  # fmt: skip
    plan.add_argument("-d", required=True, help="data set name or ID")
    plan.add_argument("-p", default="nnUNetPlans", help="plans to start from (default: nnUNetPlans)")
    plan.add_argument("-name", required=True, help="the variant's name, appended to that of the plans")
    plan.add_argument("--overwrite", action="store_true", help="replace a variant of that name with other settings")
    settings = plan.add_argument_group("settings (docs/reference/settings.md)")
    for name, rule in setting_help().items():
        choices = f" ({', '.join(rule['choices'])})" if rule["choices"] else ""
        settings.add_argument(f"-{name}", dest=f"setting_{name}", metavar="VALUE", help=rule["text"] + choices)
    plan.set_defaults(run=_plan)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser(
        "train", allow_abbrev=False, help="nnUNetv2_train with this package's trainers in reach",
        usage="nnUNetv2_hlfd train DATASET CONFIGURATION FOLD -tr TRAINER [nnUNetv2_train's arguments] [--dry_run] "
        "[--overwrite]",
        description="Takes nnUNetv2_train's arguments unchanged and runs nnU-Net's own code. Trainers: "
        "nnUNetTrainerStudent, nnUNetTrainerTeacher, nnUNetTrainerUNetPlusPlus, and a student for each method: "
        + ", ".join(f"{PREFIX}{method}" for method in method_names()),
    )  # fmt: skip
    train.add_argument(
        "--dry_run", action="store_true", help="make all checks, print taps, sizes and seconds per step, and stop"
    )
    train.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run of this fold that had other settings"
    )
    train.set_defaults(run=_train)


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo", allow_abbrev=False, help="teacher, student alone and HLFD on a built-in phantom, in minutes",
        description="Trains a teacher, the student alone and the student with HLFD on a simulated CT data set, "
        "predicts held-out cases with stock nnU-Net and writes result.md and result.png. nnUNet_* variables are "
        "ignored; started again in the same folder, it goes on where it ended.",
    )  # fmt: skip
    demo.add_argument("-o", default="hlfd_demo", metavar="FOLDER", help="where to work (default: ./hlfd_demo)")
    demo.add_argument(
        "-device", choices=("cpu", "cuda", "mps"), help="where to train (default: cuda if available, else cpu)"
    )
    demo.set_defaults(run=_demo)


def _plan(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.variants import write_variant

    texts = {name: getattr(options, f"setting_{name}") for name in setting_help()}
    settings = {name: parse_value(name, text) for name, text in texts.items() if text is not None}
    file = write_variant(options.d, options.p, options.name, settings, overwrite=options.overwrite)
    print(f"Wrote {file}\nUse it with -p {file.stem}")


def _train(options: argparse.Namespace) -> None:
    from nnunetv2_hlfd.training import train

    train(options.rest, dry_run=options.dry_run, overwrite=options.overwrite)


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


if __name__ == "__main__":
    sys.exit(main())
