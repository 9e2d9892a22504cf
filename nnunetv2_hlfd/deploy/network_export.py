"""`nnUNetv2_hlfd export -to onnx` and `-to openvino`: a model that runs without torch and without nnU-Net."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_hlfd.deploy import runtime
from nnunetv2_hlfd.deploy.convert import check_conversion, to_openvino, write_onnx
from nnunetv2_hlfd.deploy.describe import describe
from nnunetv2_hlfd.deploy.package import Exported, write_package
from nnunetv2_hlfd.deploy.provenance import Licenses
from nnunetv2_hlfd.deploy.quantize import FoldCases, dice_cost, fold_cases, quantize
from nnunetv2_hlfd.deploy.runtime.description import KEY, Description
from nnunetv2_hlfd.deploy.runtime.network import FILES, compile_openvino, open_network
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.utilities.atomic import writing
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed
from nnunetv2_hlfd.utilities.text import some_names

if TYPE_CHECKING:
    from openvino import Model

PROGRAM = "predict.pyz"
_RUNTIME = ("numpy", "SimpleITK")


class DiceDropError(UserError):
    """8 bits cost more Dice than allowed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to export.

    Attributes:
        half: weights stored in float16 (OpenVINO only, which computes in float32 again).
        int8: quantized to 8 bits (OpenVINO only).
        max_dice_drop: refuse to write 8-bit networks that lose more Dice than this.
        mirroring: whether prediction mirrors by default.
        licenses: for the model card.
    """

    half: bool = False
    int8: bool = False
    max_dice_drop: float = 0.01
    mirroring: bool = True
    licenses: Licenses = field(default_factory=Licenses)


def export_onnx(source: Source, output: Path, options: Options) -> Exported:
    """Write network.onnx for each fold, with its preprocessing inside, and `predict.pyz` to run it.

    Raises:
        UserError: for what only nnU-Net can do, a missing extra, or a network that comes out different.
    """
    if options.half or options.int8:
        raise UserError("--half and --int8 are for -to openvino; ONNX networks are written in float32.")
    description = describe(source.model, mirroring=options.mirroring)

    def fill(folder: Path) -> None:
        for fold in source.folds:
            network, file = source.network(fold), _file(folder, fold, "onnxruntime")
            dynamic = write_onnx(network, source.model.input_shape, file, description.to_json())
            error = check_conversion(network, open_network(file).run, source.model.input_shape)
            size = "any patch size its strides divide" if dynamic else f"patches of {description.patch_size} only"
            print(f"Fold {fold}: {size}; logits differ by {error:.0e} of the largest from PyTorch's.")
        write_program(folder)

    choices = {"format": "onnx", "mirroring": options.mirroring}
    return write_package(source, output, fill, choices, ["onnx", "onnxruntime", *_RUNTIME], options.licenses)


def export_openvino(source: Source, output: Path, options: Options) -> Exported:
    """Write network.xml for each fold, in 8 bits if wanted, with its preprocessing inside, and `predict.pyz`.

    Raises:
        UserError: as `export_onnx`; for 8 bits without preprocessed data.
        DiceDropError: for 8 bits that lose more Dice than allowed.
    """
    if options.half and options.int8:
        raise UserError("Choose --half or --int8: weights of 8 bits are stored as such.")
    description = describe(source.model, mirroring=options.mirroring)
    choices: dict[str, object] = {"format": "openvino", "mirroring": options.mirroring, "half": options.half}

    openvino = needed("openvino", "openvino")
    cases = {fold: fold_cases(source.model, fold) for fold in source.folds if options.int8}

    def fill(folder: Path) -> None:
        for fold in source.folds:
            model = to_openvino(network := source.network(fold), source.model.input_shape)
            error = check_conversion(network, compile_openvino(model), source.model.input_shape)
            print(f"Fold {fold}: logits differ by {error:.0e} of the largest from PyTorch's.")
            if options.int8:
                model = _quantized(model, source, fold, cases[fold], description, options, choices)
            model.set_rt_info(description.to_json(), [KEY])
            with writing(file := _file(folder, fold, "openvino"), library_errors=(RuntimeError,)):
                openvino.save_model(model, file, compress_to_fp16=options.half)
        write_program(folder)

    dependencies = ["openvino", *(["nncf"] if options.int8 else []), *_RUNTIME]
    return write_package(source, output, fill, choices, dependencies, options.licenses)


def _quantized(
    model: "Model",
    source: Source,
    fold: str,
    cases: FoldCases,
    description: Description,
    options: Options,
    choices: dict[str, object],
) -> "Model":
    print(f"Fold {fold}: 8 bits are calibrated on patches of the {len(cases.calibration)} cases of its training")
    small = quantize(model, source.model, cases.calibration)
    cost = dice_cost(model, small, source.model, cases.judged, description)
    words = f"Dice {cost.before:.4f} in float32, {cost.after:.4f} in 8 bits ({cost.cases} validation cases)"
    print(f"Fold {fold}: {words}")
    if cases.learned:
        print(
            f"WARNING: fold {fold} may have been trained on {len(cases.learned)} of these {cost.cases} cases "
            f"({some_names(cases.learned)}): what 8 bits cost on new images is not known from them."
        )
    if not cost.drop <= options.max_dice_drop:
        raise DiceDropError(
            f"Fold {fold}: {words}. The drop of {cost.drop:.4f} is above the limit of "
            f"{options.max_dice_drop} (-max_dice_drop); nothing was written."
        )
    choices[f"int8_fold_{fold}"] = {
        "dice_float32": cost.before,
        "dice_int8": cost.after,
        "cases": cost.cases,
        "cases_that_may_have_been_trained_on": len(cases.learned),
        "calibration_cases": len(cases.calibration),
    }
    return small


def write_program(folder: Path) -> None:
    """Write the runtime as one file that Python runs."""
    # zipapp's own start drops the exit code
    start = "import sys\n\nfrom nnunetv2_hlfd_runtime.cli import main\n\nsys.exit(main())\n"
    root = Path(runtime.__file__).parent
    with zipfile.ZipFile(folder / PROGRAM, "w", zipfile.ZIP_DEFLATED) as program:
        program.writestr("__main__.py", start)
        for file in sorted(root.rglob("*.py")):
            program.write(file, f"nnunetv2_hlfd_runtime/{file.relative_to(root).as_posix()}")


def _file(folder: Path, fold: str, backend: str) -> Path:
    file = folder / f"fold_{fold}" / FILES[backend]
    file.parent.mkdir(exist_ok=True)
    return file
