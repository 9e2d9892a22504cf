"""Network files behind one call, each with the runtime that it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .description import KEY, Description, read_description
from .errors import UserError

FILES = {"onnxruntime": "network.onnx", "openvino": "network.xml"}  # in the folder of a fold

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """(B, C, *patch) to logits (B, K, *patch), and what the file says about images and labels."""

    run: Run
    description: Description


def find_networks(model: Path, folds: list[str] | None = None) -> list[Path]:
    """Find the network files of a model folder, one for each fold.

    Raises:
        UserError: where a fold has none, or there is no fold.
    """
    names = [f"fold_{fold}" for fold in folds] if folds else sorted(folder.name for folder in model.glob("fold_*"))
    files = [
        next((model / name / file for file in FILES.values() if (model / name / file).is_file()), None)
        for name in names
    ]
    found = [file for file in files if file]
    if not names or len(found) < len(names):
        raise UserError(
            f"Expected {' or '.join(FILES.values())} in {', '.join(names) or 'fold_*'} of {model}, made "
            f"by nnUNetv2_hlfd export -to onnx or openvino."
        )
    return found


def open_network(file: Path, threads: int | None = None) -> Network:
    """Open an exported network.

    Args:
        file: network.onnx or network.xml.
        threads: of the processor; unset: all cores.

    Raises:
        UserError: for a missing runtime, a damaged file, or one that was not made by `nnUNetv2_hlfd export`.
    """
    try:
        run, text = (open_onnx if file.suffix == ".onnx" else _openvino)(file, threads)
    except ImportError as error:
        package = "onnxruntime" if file.suffix == ".onnx" else "openvino"
        raise UserError(f"{file.name} needs {package}: pip install {package}") from error
    return Network(run=run, description=read_description(text, file))


def open_onnx(file: Path, threads: int | None = None) -> tuple[Run, str | None]:
    """Open an ONNX file; returns what runs it and the description in it, if any."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own
        raise UserError(f"{file} is damaged or no ONNX file: {str(error)[:200]}") from error
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0], session.get_modelmeta().custom_metadata_map.get(KEY)


def _openvino(file: Path, threads: int | None) -> tuple[Run, str | None]:
    import openvino

    try:
        model = openvino.Core().read_model(file)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        run = compile_openvino(model, threads)
    except RuntimeError as error:
        raise UserError(f"{file} is damaged or no OpenVINO file: {str(error)[:200]}") from error
    return run, text


def compile_openvino(model: object, threads: int | None = None) -> Run:
    """Compile an OpenVINO model for the processor, in float32 where it is not 8-bit."""
    import openvino

    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return lambda batch: compiled(batch)[0]
