"""A torch network as an ONNX or OpenVINO network, checked against itself."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nnunetv2_hlfd.deploy.runtime.description import KEY
from nnunetv2_hlfd.deploy.runtime.network import Run
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed

if TYPE_CHECKING:
    from openvino import Model

_TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order


def write_onnx(network: nn.Module, shape: Sequence[int], file: Path, description: str = "") -> bool:
    """Write an ONNX file; returns whether it takes patches of any size that the network's strides divide.

    The batch size is free. A network whose shapes torch cannot trace symbolically is written for its patch size.

    Args:
        network: for prediction, on the processor.
        shape: (C, *patch).
        file: to write.
        description: text to store in the file.

    Raises:
        UserError: where a package of the extra onnx is missing.
    """
    onnx = needed("onnx", "onnx")
    needed("onnxscript", "onnx")
    dynamic = _try_dynamic(network, shape, file)
    if not dynamic:
        _export(network, shape, file, {0: torch.export.Dim("batch", min=1)})
    model = onnx.load(file)
    _forget_source(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, description
    onnx.save(model, file)
    return dynamic


def _forget_source(model: Any) -> None:
    """Take out of an ONNX model where its source code lay on this machine, which torch writes beside every node."""
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for entry in (graph, *itertools.chain(*parts), *itertools.chain(*(function.node for function in model.functions))):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")


def _try_dynamic(network: nn.Module, shape: Sequence[int], file: Path) -> bool:
    channels, *patch_size = shape
    strides = _total_strides(network, len(patch_size))
    if strides is None:
        return False
    # an extent of exactly one stride would be taken for a constant
    extents = [max(patch, 2 * stride) for patch, stride in zip(patch_size, strides, strict=True)]
    dynamic = {0: torch.export.Dim("batch", min=1)}
    for axis, stride in enumerate(strides):
        dynamic[axis + 2] = stride * torch.export.Dim(f"blocks{axis}", min=1)
    try:
        _export(network, [channels, *extents], file, dynamic)
    except Exception:  # torch raises many kinds; the static export tells what is really wrong
        return False
    return True


def _export(network: nn.Module, shape: Sequence[int], file: Path, dynamic: dict[int, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            file,
            input_names=["image"],
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            dynamic_shapes=[dynamic],
            verbose=False,
        )


def to_openvino(network: nn.Module, shape: Sequence[int]) -> "Model":
    """Convert a network that takes (B, C, *patch); batch and patch size are free.

    Raises:
        UserError: where the package is missing.
    """
    openvino = needed("openvino", "openvino")
    free = [-1, shape[0], *[-1] * (len(shape) - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of Python branches on shapes
        return openvino.convert_model(network, example_input=torch.zeros(2, *shape), input=openvino.PartialShape(free))


def check_conversion(network: nn.Module, run: Run, shape: Sequence[int]) -> float:
    """Measure the largest difference of the logits, relative to the largest logit, on 1 and 3 random patches.

    Raises:
        UserError: where it is more than float32 explains.
    """
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 3):
        image = torch.randn(batch, *shape, generator=generator)
        with torch.no_grad():
            expected = network(image).numpy()
        worst = max(worst, float(np.abs(run(image.numpy()) - expected).max() / np.abs(expected).max()))
    if not worst <= _TOLERANCE:
        raise UserError(
            f"The converted network's logits differ from PyTorch's by {worst:.1e} of the largest logit, "
            f"expected at most {_TOLERANCE:.0e}. Nothing was written."
        )
    return worst


def _total_strides(network: nn.Module, dimensions: int) -> list[int] | None:
    """Multiply the encoder's strides on each axis, of networks that tell them."""
    strides = getattr(getattr(network, "encoder", None), "strides", None)
    if strides is None:
        return None
    listed = [[stride] * dimensions if isinstance(stride, int) else list(stride) for stride in strides]
    return [int(np.prod(axis)) for axis in zip(*listed, strict=True)]
