"""Seconds per training step of every method beside the student alone, interleaved in one run.

python docs/benchmarks/method_steps.py DATASET CONFIGURATION PLANS OUTPUT.csv [DEVICE]

PLANS is a variant of its own (`nnUNetv2_hlfd plan`) whose teacher is trained. All trainers see the same batch. The
median over the rounds of the ratio to the student's step of the same round is what is reported.
"""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunetv2_hlfd.methods import METHODS
from nnunetv2_hlfd.training import extend_trainer_search

ROUNDS = 7


def main(dataset: str, configuration: str, plans: str, output: Path, device: torch.device) -> None:
    """Measure and write one row for each of student alone, teacher forward pass and method."""
    extend_trainer_search()
    names = ["Student", *METHODS]
    trainers = {name: _start(dataset, configuration, f"nnUNetTrainer{name}", plans, device) for name in names}
    loader, _ = trainers["Student"].get_dataloaders()
    batch = next(loader)
    steps = {name: lambda trainer=trainer: trainer.train_step(batch) for name, trainer in trainers.items()}
    teacher, data = trainers["HLFD"].teacher, batch["data"].to(device)
    steps = {"Student": steps.pop("Student"), "teacher forward": lambda: teacher(data), **steps}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, step in steps.items():
            seconds[name].append(_time(step, device))
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seconds", "ratio_to_student", "adapter_parameters"])
        for name, values in seconds.items():
            measured = np.array(values[1:])  # the first round warms up
            ratio = np.median(measured / np.array(seconds["Student"][1:]))
            method = getattr(trainers.get(name), "method", None)
            adapters = sum(each.numel() for each in method.parameters()) if method else ""
            writer.writerow([name, f"{np.median(measured):.4f}", f"{ratio:.3f}", adapters])
    print(output.read_text())


def _start(dataset: str, configuration: str, name: str, plans: str, device: torch.device) -> Any:
    trainer = get_trainer_from_args(dataset, configuration, 0, name, plans, device=device)
    trainer.check_start()
    trainer.network.train()
    return trainer


def _time(step: Any, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]), torch.device(sys.argv[5] if len(sys.argv) > 5 else "cpu"))
