"""The arguments of `nnUNetv2_hlfd`: one function for each subcommand."""

import argparse
from pathlib import Path

from nnunetv2_hlfd import __version__
from nnunetv2_hlfd.config import setting_help
from nnunetv2_hlfd.methods import PREFIX, method_names

_DESCRIPTION = """Compress a trained nnU-Net into a small student by knowledge distillation (HLFD).

  export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)
  nnUNetv2_train DATASET 2d 0                            the teacher, stock nnU-Net
  nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerHLFD      the student
  nnUNetv2_predict -d DATASET -c 2d -f 0 -tr nnUNetTrainerHLFD -i IN -o OUT"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; its `command` is the subcommand's name."""
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
    _add_study(commands)
    _add_report(commands)
    _add_benchmark(commands)
    _add_export(commands)
    _add_demo(commands)
    commands.add_parser(
        "trainers_path", help="print the folder for nnUNet_extTrainer",
        description="Print the folder of this package's trainers, to be used as: "
        "export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)",
    )  # fmt: skip
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


def _add_study(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    study = commands.add_parser(
        "study", allow_abbrev=False, help="a grid of trainings, and the report of what came out",
        description="Trains teachers and students for every arm, seed and fold of STUDY.yaml by nnUNetv2_train's own "
        "code, into ordinary nnU-Net folders. Finished runs are skipped, interrupted ones continued, failed ones "
        "isolated; started again at any time, it goes on. Then writes the report of all complete models.",
    )  # fmt: skip
    study.add_argument("file", type=Path, metavar="STUDY.yaml", help="docs/reference/study.md")
    study.add_argument("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="(default: cuda)")
    study.add_argument("-np", type=int, metavar="N", help="trainings at a time (default: one for each GPU, or for "
                       "every four cores)")  # fmt: skip
    how = study.add_mutually_exclusive_group()
    how.add_argument("--dry_run", action="store_true", help="print the runs and what they will take, and stop")
    how.add_argument("--commands", action="store_true", help="write the plans, print one command for each run")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    report = commands.add_parser(
        "report", allow_abbrev=False, help="compare finished models",
        description="Compares finished nnU-Net model folders by nnU-Net's own validation: Dice, RVD, lesions, paired "
        "tests, bootstrap intervals, sizes, curves. Folders that differ in nothing but the seed are runs of one arm. "
        "Writes report.html, report.md and CSV tables.",
    )  # fmt: skip
    report.add_argument("-m", nargs="+", type=Path, required=True, metavar="MODEL_FOLDER",
                        help=".../TRAINER__PLANS__CONFIGURATION, the teacher first, then students")  # fmt: skip
    report.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="where to write the report")
    report.add_argument("--pictures", nargs="?", const="", metavar="LABEL",
                        help="add segmentations over images, Grad-CAM and attention maps, and how much of them lies in "
                        "LABEL (default: the last of dataset.json); needs the preprocessed data")  # fmt: skip
    report.add_argument("-device", default="cpu", choices=("cpu", "cuda", "mps"),
                        help="where --pictures runs the networks (default: cpu)")  # fmt: skip


def _add_benchmark(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    benchmark = commands.add_parser(
        "benchmark", allow_abbrev=False, help="measure what training steps cost, side by side",
        description="Seconds, parts and peak memory of the training steps of distillation trainers, beside the student "
        "alone and the teacher's forward pass, interleaved in one run on the same batch. Trains and writes nothing.",
    )  # fmt: skip
    benchmark.add_argument("-training", action="store_true", required=True, help="measure training steps")
    benchmark.add_argument("-d", required=True, help="data set name or ID")
    benchmark.add_argument("-c", required=True, help="configuration, such as 2d")
    benchmark.add_argument("-f", default="0", help="fold whose teacher is trained (default: 0)")
    benchmark.add_argument("-p", default="nnUNetPlans", help="plans or a variant of them (default: nnUNetPlans)")
    benchmark.add_argument("-tr", nargs="+", default=[f"{PREFIX}HLFD"], help=f"trainers (default: {PREFIX}HLFD)")
    benchmark.add_argument("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="(default: cuda)")
    benchmark.add_argument("-o", type=Path, metavar="FILE.csv", help="write the table there, too")


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export", allow_abbrev=False, help="a trained model as small files for stock nnU-Net",
        description="Writes OUTPUT/DATASET/TRAINER__{PLANS}HLFD__CONFIGURATION and a zip of it: weights and what "
        "prediction needs, nothing of the training. nnUNetv2_install_pretrained_model_from_zip installs it, "
        "nnUNetv2_predict uses it, without this package.",
    )  # fmt: skip
    export.add_argument("-m", type=Path, required=True, metavar="MODEL_FOLDER",
                        help=".../TRAINER__PLANS__CONFIGURATION")  # fmt: skip
    export.add_argument("-o", type=Path, required=True, metavar="OUTPUT", help="folder to write to")
    export.add_argument("-to", default="nnunet", choices=("nnunet",), help="format (default: nnunet)")
    export.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all that are finished)")
    export.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")
    export.add_argument("--half", action="store_true", help="store the weights in float16: half the size")
    export.add_argument("--no_mirroring", action="store_true", help="predict without test-time mirroring")


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
