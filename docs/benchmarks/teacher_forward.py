"""What would make a live teacher's forward pass cheaper on a CPU, beside the way it runs (eager, float32).

python docs/benchmarks/teacher_forward.py TEACHER_FOLD_FOLDER [BATCH]

The teacher's encoder maps and all of its outputs on a patch of its plans are taken in every way, in turns. Prints
seconds (median), their ratio to the eager pass within a round, and the largest difference of any output relative to
that output's largest value.
"""

import copy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.markdown import markdown_table

ROUNDS = 9


class Maps(nn.Module):
    """Encoder maps and outputs as one flat list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = network.get_submodule("encoder"), network.get_submodule("decoder")

    def forward(self, data: Tensor) -> list[Tensor]:
        """Highest resolution first."""
        features = self.encoder(data)
        return [*features, *self.decoder(features)]


def main(fold: Path, batch: int) -> None:
    """Print the table."""
    model = ModelFolder.open(fold.parent)
    network = Maps(model.network(fold / "checkpoint_final.pth", deep_supervision=True)).eval()
    data = torch.randn(batch, model.input_shape[0], *model.input_shape[1:])
    with torch.no_grad():
        ways = make_ways(network, data)
        reference = ways["eager, float32"](data)
        seconds = measure(ways, data)
        rows = [
            [
                name,
                f"{np.median(taken):.3f}",
                f"{np.median(np.divide(taken, seconds['eager, float32'])):.2f}",
                f"{error(ways[name](data), reference):.0e}",
            ]
            for name, taken in seconds.items()
        ]
    print(markdown_table(["Way", "Seconds", "To eager", "Largest relative difference"], rows))


def make_ways(network: nn.Module, data: Tensor) -> dict[str, Callable[[Tensor], Sequence[Tensor]]]:
    """Name -> forward pass."""
    last = torch.channels_last if data.ndim == 4 else torch.channels_last_3d
    moved = copy.deepcopy(network).to(memory_format=last)
    compiled = torch.compile(network)
    model = openvino.compile_model(openvino.convert_model(network, example_input=data), "CPU")

    def half(shown: Tensor) -> Sequence[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs: Sequence[Tensor] = network(shown)
            return outputs

    return {
        "eager, float32": network,
        "channels_last": lambda shown: moved(shown.to(memory_format=last)),
        "bfloat16": half,
        "torch.compile": compiled,
        "OpenVINO": lambda shown: [torch.from_numpy(output) for output in model(shown.numpy()).values()],
    }


def measure(ways: dict[str, Callable[[Tensor], Sequence[Tensor]]], data: Tensor) -> dict[str, list[float]]:
    """Seconds of each way in each round; all take turns."""
    for run in ways.values():
        run(data)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            start = time.perf_counter()
            run(data)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def error(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest difference of an output, relative to its largest value."""
    pairs = zip(outputs, reference, strict=True)
    return max(float((one.float() - other).abs().max() / other.abs().max()) for one, other in pairs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
