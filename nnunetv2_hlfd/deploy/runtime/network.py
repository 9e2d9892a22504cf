"""Network files behind one call, each with the runtime that it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .description import KEY, Description, read_description
from .errors import UserError

FILES = {"onnxruntime": "network.onnx", "openvino": "network.xml"}  # in the folder of a fold

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


Shape = tuple[int | None, ...]
_OTHER_FILE = b"location"  # how ONNX names a file beside it; no name or number in our exports holds these letters
_OTHER_FORMAT = b"ORTM"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network file: what runs it, the description in it, and the sizes of its inputs and outputs."""

    run: Run
    text: str | None
    inputs: Sequence[Shape]
    outputs: Sequence[Shape]


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
        opened = (open_onnx if file.suffix == ".onnx" else _openvino)(file, threads)
    except ImportError as error:
        package = "onnxruntime" if file.suffix == ".onnx" else "openvino"
        raise UserError(f"{file.name} needs {package}: pip install {package}") from error
    description = read_description(opened.text, file)
    _check_fits(opened, description, file)
    return Network(run=opened.run, description=description)


def _check_fits(opened: Opened, description: Description, file: Path) -> None:
    """Compare the network's shapes with its description; other sizes would fail in the middle of an image, or worse."""
    dimension = 2 + len(description.patch_size)
    for what, shapes, channels in (
        ("input", opened.inputs, description.channels),
        ("output", opened.outputs, description.heads),
    ):
        [shape] = shapes if len(shapes) == 1 else [()]
        expected = (None, channels, *description.patch_size)
        fits = all(size in (None, wanted) or wanted is None for size, wanted in zip(shape, expected, strict=False))
        if len(shape) != dimension or not fits:
            raise UserError(f"{file} is damaged: its {what}s {shapes} do not fit its description {expected}.")


def open_onnx(file: Path, threads: int | None = None) -> Opened:
    """Open an ONNX file.

    Raises:
        UserError: for a damaged file, or one that would read others.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    content = file.read_bytes()
    if _OTHER_FILE in content or content[4:8] == _OTHER_FORMAT:
        raise UserError(
            f"{file} is damaged: it names other files with its weights, or is in ONNX Runtime's own format."
        )
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    except Exception as error:  # onnxruntime raises kinds of its own
        raise UserError(f"{file} is damaged or no ONNX file: {str(error)[:200]}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return Opened(
        run=lambda batch: session.run(None, {inputs[0].name: batch})[0],
        text=text,
        inputs=[_sizes(entry.shape) for entry in inputs],
        outputs=[_sizes(entry.shape) for entry in outputs],
    )


def _sizes(shape: Sequence[object]) -> Shape:
    """Sizes of a tensor's axes; None for those that may have any."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _openvino(file: Path, threads: int | None) -> Opened:
    import openvino

    try:
        model = openvino.Core().read_model(file)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        sides = [[_openvino_sizes(port.partial_shape) for port in ports] for ports in (model.inputs, model.outputs)]
        run = compile_openvino(model, threads)
    except Exception as error:  # openvino raises kinds of its own
        raise UserError(f"{file} is damaged or no OpenVINO file: {str(error)[:200]}") from error
    return Opened(run=run, text=text, inputs=sides[0], outputs=sides[1])


def _openvino_sizes(shape: Any) -> Shape:
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


def compile_openvino(model: object, threads: int | None = None) -> Run:
    """Compile an OpenVINO model for the processor, in float32 where it is not 8-bit."""
    import openvino

    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return lambda batch: compiled(batch)[0]
