"""The arguments of `nnUNetv2_hlfd`: one function for each subcommand."""

import argparse
from pathlib import Path

from nnunetv2_hlfd import __version__
from nnunetv2_hlfd.distillation.registry import PREFIX, method_names
from nnunetv2_hlfd.settings.settings import setting_help

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
    _add_convert(commands)
    _add_plan(commands)
    _add_train(commands)
    _add_study(commands)
    _add_report(commands)
    _add_benchmark(commands)
    _add_export(commands)
    _add_predict(commands)
    _add_demo(commands)
    commands.add_parser(
        "trainers_path",
        help="print the folder for nnUNet_extTrainer",
        description="Print the folder of this package's trainers, to be used as: "
        "export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)",
    )
    return parser


def _add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    convert = commands.add_parser(
        "convert",
        allow_abbrev=False,
        help="KiTS19 or LiTS as nnU-Net raw data",
        description="Writes KiTS19 or LiTS (also Task03_Liver of the Medical Segmentation Decathlon), as downloaded, "
        "into nnUNet_raw. Cases that are damaged, mismatched or unlabelled are named and skipped "
        "(conversion_report.json); exit code 1 if labelled ones were. Started again, it goes on.",
    )
    convert.add_argument("challenge", choices=("kits19", "lits"), help="what SOURCE is")
    convert.add_argument("source", type=Path, metavar="SOURCE", help="folder of the download")
    convert.add_argument("-d", help="data set name or ID (default: Dataset019_KiTS19, Dataset017_LiTS)")
    convert.add_argument("--regions", action="store_true", help="label the organ with its tumors as a region")
    convert.add_argument("-split", choices=("paper",), help="write splits_final.json: five folds, 168:42 for KiTS19")
    convert.add_argument("-seed", type=int, default=12345, help="of the split (default: 12345, nnU-Net's)")


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = commands.add_parser(
        "plan",
        allow_abbrev=False,
        help="make a variant of plans with other settings",
        description="Write PLANS_NAME.json beside the plans: the same preprocessed data under another plans name, with "
        "settings of its own. Train it with: nnUNetv2_train D C F -tr nnUNetTrainerHLFD -p PLANS_NAME",
    )
    plan.add_argument("-d", required=True, help="data set name or ID")
    plan.add_argument("-p", default="nnUNetPlans", help="plans to start from (default: nnUNetPlans)")
    plan.add_argument("-name", required=True, help="the variant's name, appended to that of the plans")
    plan.add_argument(
        "-window",
        metavar="WINDOW",
        help="clip CT at kidney (-200,300), liver (-40,160) or LOW,HIGH HU "
        "in place of nnU-Net's percentiles; needs preprocessing of its own",
    )
    plan.add_argument("--overwrite", action="store_true", help="replace a variant of that name with other settings")
    settings = plan.add_argument_group("settings (docs/reference/settings.md)")
    for name, rule in setting_help().items():
        choices = f" ({', '.join(rule['choices'])})" if rule["choices"] else ""
        settings.add_argument(f"-{name}", dest=f"setting_{name}", metavar="VALUE", help=rule["text"] + choices)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="nnUNetv2_train with this package's trainers in reach",
        usage="nnUNetv2_hlfd train DATASET CONFIGURATION FOLD -tr TRAINER [nnUNetv2_train's arguments] [--dry_run] "
        "[--overwrite]",
        description="Takes nnUNetv2_train's arguments unchanged and runs nnU-Net's own code. Trainers: "
        "nnUNetTrainerStudent, nnUNetTrainerTeacher, nnUNetTrainerUNetPlusPlus, and a student for each method: "
        + ", ".join(f"{PREFIX}{method}" for method in method_names()),
    )
    train.add_argument(
        "--dry_run", action="store_true", help="make all checks, print taps, sizes and seconds per step, and stop"
    )
    train.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run of this fold that had other settings"
    )


def _add_study(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    study = commands.add_parser(
        "study",
        allow_abbrev=False,
        help="a grid of trainings, and the report of what came out",
        description="Trains teachers and students for every arm, seed and fold of STUDY.yaml by nnUNetv2_train's own "
        "code, into ordinary nnU-Net folders. Finished runs are skipped, interrupted ones continued, failed ones "
        "isolated; started again at any time, it goes on. Then writes the report of all complete models.",
    )
    study.add_argument("file", type=Path, metavar="STUDY.yaml", help="docs/reference/study.md")
    study.add_argument("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="(default: cuda)")
    study.add_argument(
        "-np", type=int, metavar="N", help="trainings at a time (default: one for each GPU, or for every four cores)"
    )
    how = study.add_mutually_exclusive_group()
    how.add_argument("--dry_run", action="store_true", help="print the runs and what they will take, and stop")
    how.add_argument("--commands", action="store_true", help="write the plans, print one command for each run")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    report = commands.add_parser(
        "report",
        allow_abbrev=False,
        help="compare finished models",
        description="Compares finished nnU-Net model folders by nnU-Net's own validation: Dice, RVD, lesions, paired "
        "tests, bootstrap intervals, sizes, curves. Folders that differ in nothing but the seed are runs of one arm. "
        "Writes report.html, report.md and CSV tables.",
    )
    report.add_argument(
        "-m",
        nargs="+",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help=".../TRAINER__PLANS__CONFIGURATION, the teacher first, then students",
    )
    report.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="where to write the report")
    report.add_argument(
        "--pictures",
        nargs="?",
        const="",
        metavar="LABEL",
        help="add segmentations over images, Grad-CAM and attention maps, and how much of them lies in "
        "LABEL (default: the last of dataset.json); needs the preprocessed data",
    )
    report.add_argument(
        "-device",
        default="cpu",
        choices=("cpu", "cuda", "mps"),
        help="where --pictures runs the networks (default: cpu)",
    )
    report.add_argument(
        "--paper_evaluation",
        nargs="?",
        const="",
        metavar="LABEL",
        help="add Dice and RVD on slices that contain LABEL (default: the last of dataset.json), at a "
        "threshold of 0.4; needs probabilities (nnUNetv2_train ... --val --npz)",
    )


def _add_benchmark(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    benchmark = commands.add_parser(
        "benchmark",
        allow_abbrev=False,
        help="measure what prediction, or training, costs, side by side",
        description="Prediction: seconds of every stage from image file to segmentation file, memory and Dice, from "
        "nnU-Net with the teacher down to the student in 8 bits and the teacher in 8 bits, in one run. -training: "
        "seconds, parts and peak memory of training steps of distillation trainers, beside the student alone and the "
        "teacher's forward pass; trains and writes nothing.",
    )
    add = benchmark.add_argument
    add("-f", default="0", help="fold (default: 0)")
    add("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="(default: cuda)")
    add("-o", type=Path, metavar="OUTPUT", help="folder; with -training a CSV file")
    prediction = benchmark.add_argument_group("prediction")
    prediction.add_argument("-m", nargs=2, type=Path, metavar=("TEACHER_FOLDER", "STUDENT_FOLDER"))
    prediction.add_argument("-i", type=Path, metavar="IMAGES", help="folder with CASE_0000 images, 10 or more")
    prediction.add_argument("-gt", type=Path, metavar="LABELS", help="folder with their labels, for Dice")
    prediction.add_argument("-max_dice_drop", type=float, default=0.01, help="allowed to 8 bits (default: 0.01)")
    training = benchmark.add_argument_group("training")
    training.add_argument("-training", action="store_true", help="measure training steps")
    training.add_argument("-d", help="data set name or ID")
    training.add_argument("-c", help="configuration, such as 2d")
    training.add_argument("-p", default="nnUNetPlans", help="plans or a variant of them (default: nnUNetPlans)")
    training.add_argument("-tr", nargs="+", default=[f"{PREFIX}HLFD"], help=f"trainers (default: {PREFIX}HLFD)")


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        allow_abbrev=False,
        help="a trained model as small files for stock nnU-Net, ONNX or OpenVINO",
        description="Writes OUTPUT/DATASET/TRAINER__{PLANS}HLFD__CONFIGURATION and a zip of it: weights and what "
        "prediction needs, nothing of the training. -to nnunet: nnUNetv2_install_pretrained_model_from_zip installs "
        "it, nnUNetv2_predict uses it, without this package. -to onnx, -to openvino: python predict.pyz, which lies "
        "in the folder, uses it without torch and without nnU-Net.",
    )
    export.add_argument(
        "-m", type=Path, required=True, metavar="MODEL_FOLDER", help=".../TRAINER__PLANS__CONFIGURATION"
    )
    export.add_argument("-o", type=Path, required=True, metavar="OUTPUT", help="folder to write to")
    export.add_argument(
        "-to", default="nnunet", choices=("nnunet", "onnx", "openvino"), help="format (default: nnunet)"
    )
    export.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all that are finished)")
    export.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")
    export.add_argument("--half", action="store_true", help="store the weights in float16: half the size")
    export.add_argument("--int8", action="store_true", help="quantize to 8 bits (openvino); needs preprocessed cases")
    export.add_argument(
        "-max_dice_drop",
        type=float,
        default=0.01,
        metavar="DICE",
        help="refuse 8 bits that cost more validation Dice (default: 0.01)",
    )
    export.add_argument("--no_mirroring", action="store_true", help="predict without test-time mirroring")


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = commands.add_parser(
        "predict",
        allow_abbrev=False,
        help="nnUNetv2_predict, faster, on any nnU-Net model",
        description="Takes nnUNetv2_predict's arguments and writes its files: the same preprocessing and export, tiles "
        "in batches, a choice of backends. A case that cannot be predicted is named, the others are finished, and the "
        "exit code is 1. Segmentations appear when they are whole: after a kill go on with --continue_prediction.",
    )
    add = predict.add_argument
    add("-i", type=Path, required=True, metavar="INPUT", help="folder with CASE_0000 images")
    add("-o", type=Path, required=True, metavar="OUTPUT", help="folder for the segmentations")
    which = predict.add_mutually_exclusive_group(required=True)
    which.add_argument("-m", type=Path, metavar="MODEL_FOLDER", help=".../TRAINER__PLANS__CONFIGURATION, or an export")
    which.add_argument("-d", help="data set name or ID of a model in nnUNet_results; with -p, -tr, -c")
    add("-p", default="nnUNetPlans", help="plans (default: nnUNetPlans)")
    add("-tr", default="nnUNetTrainer", help="trainer (default: nnUNetTrainer)")
    add("-c", help="configuration, such as 2d")
    add("-f", nargs="+", metavar="FOLD", help="folds (default: 0 1 2 3 4; with -m all that are there)")
    add("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")
    add("-backend", default="torch", choices=("torch", "onnxruntime", "openvino"), help="(default: torch)")
    add("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="(default: cuda)")
    add("-step_size", type=float, default=0.5, help="of the sliding window, in patches (default: 0.5)")
    add("--disable_tta", action="store_true", help="no test-time mirroring: 4 (2d) or 8 times faster")
    add("--bfloat16", action="store_true", help="compute in bfloat16 on a processor that can (torch)")
    add("--save_probabilities", action="store_true", help="write the classes' probabilities, too")
    add("--continue_prediction", action="store_true", help="leave out cases that are finished")
    add("-npp", type=int, default=3, help="threads that prepare cases (default: 3)")
    add("-nps", type=int, default=3, help="threads that write segmentations (default: 3)")
    add("-prev_stage_predictions", type=Path, metavar="FOLDER", help="predictions of a cascade's first stage")
    add("-num_parts", type=int, default=1, help="number of such commands that share the work (default: 1)")
    add("-part_id", type=int, default=0, help="which of them this is, from 0")
    add("--not_on_device", action="store_true", help="sum the logits in the computer's memory, not the GPU's")
    add("--disable_progress_bar", action="store_true", help="no progress bar")
    add("--verbose", action="store_true", help="nnU-Net's messages")


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="teacher, student alone and HLFD on a built-in phantom, in minutes",
        description="Trains a teacher, the student alone and the student with HLFD on a simulated CT data set, "
        "predicts held-out cases with stock nnU-Net and writes result.md and result.png. nnUNet_* variables are "
        "ignored; started again in the same folder, it goes on where it ended.",
    )
    demo.add_argument("-o", default="hlfd_demo", metavar="FOLDER", help="where to work (default: ./hlfd_demo)")
    demo.add_argument(
        "-device", choices=("cpu", "cuda", "mps"), help="where to train (default: cuda if available, else cpu)"
    )
