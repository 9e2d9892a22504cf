"""How hard the baselines' terms pull at the final logits, by their source's number and in their source's ratio.

python docs/benchmarks/loss_ratio.py DATASET CONFIGURATION PLANS OUTPUT.csv [STEPS]

The student alone is trained for STEPS steps (400) on fold 0. PLANS is a variant whose teacher is trained. In every
step, at the student's final logits z: r = ||dL/dz|| / ||dCE/dz|| of the final output's segmentation loss L and cross
entropy CE (the setting source_ratio multiplies weights by it), and for every term that reaches z
||w dterm/dz|| / ||dL/dz|| by the number w of its source and in its source's ratio. The table has the median and the
10th and 90th percentile over each quarter of the steps.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.plans.variants import write_variant
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.source_ratio import SourceRatio
from nnunetv2_hlfd.training.throwaway import throwaway_trainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search

METHODS = ("KD", "CWD", "SKD", "EMKD")  # those with a term on the final map
QUARTERS = 4


def main(dataset: str, configuration: str, plans: str, output: Path, steps: int) -> None:
    """Write the table."""
    extend_trainer_search()
    settings = {"weights": dict.fromkeys(METHODS, 0.0), "num_epochs": 1, "num_iterations_per_epoch": steps}
    variant = write_variant(dataset, plans, "lossratio", settings, overwrite=True)
    try:
        with throwaway_trainer(dataset, configuration, "0", f"{PREFIX}KD", variant.stem, "cpu") as trainer:
            assert isinstance(trainer, DistillationTrainer)
            rows = _measure(trainer, steps)
    finally:
        variant.unlink()
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["steps", "quantity", "median", "p10", "p90"])
        for quarter in range(QUARTERS):
            part = slice(quarter * steps // QUARTERS, (quarter + 1) * steps // QUARTERS)
            for name in rows[0]:
                p10, median, p90 = np.percentile([row[name] for row in rows[part]], [10, 50, 90])
                writer.writerow([f"{part.start + 1}-{part.stop}", name, *(f"{v:.4g}" for v in (median, p10, p90))])
    print(output.read_text())


def _measure(trainer: DistillationTrainer, steps: int) -> list[dict[str, float]]:
    trainer.check_start()
    loader, _ = trainer.get_dataloaders()
    trainer.network.train()
    sources = dict.fromkeys(trainer.distiller.method.weights, "cross_entropy")
    ratio = SourceRatio(trainer.loss.loss, "", sources, trainer._task())
    rows = []
    for _ in range(steps):
        batch = next(loader)
        rows.append(_pulls(trainer, ratio, batch))
        trainer.train_step(batch)
    return rows


def _pulls(trainer: DistillationTrainer, ratio: SourceRatio, batch: dict[str, Any]) -> dict[str, float]:
    distiller, target = trainer.distiller, batch["target"][0]
    student = distiller.run_student(trainer.network, batch["data"])
    terms = distiller.terms(student, distiller.ask_teacher(batch["data"]), target)
    own = _norm(trainer.loss.loss(student.logits[0], target), student.logits[0])
    factor = next(iter(ratio(student.logits[0], target).values())).item()
    row = {"r to cross entropy": factor}
    for name, method in distiller.method.methods.items():
        for term, weight in method.weights.items():
            norm = _norm(terms[term], student.logits[0])
            if norm > 0:
                in_source = weight * norm / own * (factor if method.source_loss == "cross_entropy" else 1)
                number = weight / (8 if term == "skd_pixel" else 1)  # its source's number is of a sum over 8 images
                row |= {f"{name} {term}, source's number": number * norm / own, f"{name} {term}": in_source}
    return row


def _norm(loss: Tensor, logits: Tensor) -> float:
    if not loss.requires_grad:
        return 0.0
    [gradient] = torch.autograd.grad(loss, logits, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else gradient.norm().item()


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else 400)
