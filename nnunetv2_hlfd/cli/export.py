"""`nnUNetv2_hlfd export`."""

import argparse
from pathlib import Path

from nnunetv2_hlfd.cli.subcommand import Subcommand, add_license
from nnunetv2_hlfd.utilities.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help="the model's folder, .../TRAINER__PLANS__CONFIGURATION",
    )
    parser.add_argument("-o", type=Path, required=True, metavar="OUTPUT", help="folder to write to")
    parser.add_argument(
        "-to", default="nnunet", choices=("nnunet", "onnx", "openvino"), help="format of the export (default: nnunet)"
    )
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to export (default: all finished folds)")
    parser.add_argument(
        "-chk", default="checkpoint_final.pth", help="checkpoint to export (default: checkpoint_final.pth)"
    )
    parser.add_argument("--half", action="store_true", help="store the weights in float16, in half the size")
    parser.add_argument("--int8", action="store_true", help="quantize to 8 bits (openvino); needs preprocessed cases")
    parser.add_argument(
        "-max_dice_drop",
        type=float,
        default=0.01,
        metavar="DICE",
        help="with --int8: the largest accepted loss of validation Dice; above it, nothing is written (default: 0.01)",
    )
    parser.add_argument(
        "--no_mirroring", action="store_true", help="make the exported model predict without test-time mirroring"
    )
    add_license(parser)


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.deploy.export import export_nnunet, needs_trainer
    from nnunetv2_hlfd.deploy.network_export import Options, export_onnx, export_openvino
    from nnunetv2_hlfd.deploy.provenance import Licenses
    from nnunetv2_hlfd.deploy.source import read_source

    licenses = Licenses(weights=options.license, data=options.data_license)
    source = read_source(options.m, options.f, options.chk)
    if options.to == "nnunet":
        if options.int8:
            raise UserError("--int8 is for -to openvino; nnU-Net itself has no 8-bit networks.")
        exported = export_nnunet(
            source, options.o, half=options.half, mirroring=not options.no_mirroring, licenses=licenses
        )
        if trainer := needs_trainer(source):
            print(f"Prediction needs the trainer {trainer}: no plans describe its network.")
    else:
        how = Options(
            half=options.half,
            int8=options.int8,
            max_dice_drop=options.max_dice_drop,
            mirroring=not options.no_mirroring,
            licenses=licenses,
        )
        exported = (export_onnx if options.to == "onnx" else export_openvino)(source, options.o, how)
    print(f"Wrote {exported.folder}\nand {exported.archive}: {exported.archive.stat().st_size / 1e6:.2f} MB")
    return 0


EXPORT = Subcommand(
    help="export a trained model for stock nnU-Net, ONNX or OpenVINO",
    description="Write the folder OUTPUT/DATASET/TRAINER__{PLANS}HLFD__CONFIGURATION and a zip of it, with the "
    "weights and everything else that prediction needs. With -to nnunet, nnUNetv2_install_pretrained_model_from_zip "
    "installs the model and nnUNetv2_predict uses it, without this package. With -to onnx or -to openvino, the program "
    "predict.pyz in that folder uses the model, without torch and without nnU-Net.",
    add_arguments=_add_arguments,
    run=_run,
)
