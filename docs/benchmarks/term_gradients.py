"""How each distillation term pulls at the student, beside the segmentation loss, stage by stage.

python docs/benchmarks/term_gradients.py DATASET CONFIGURATION TRAINER PLANS OUTPUT.csv [CHECKPOINT]

For a student at its start, or with CHECKPOINT (a name such as checkpoint_final.pth) as that left it: the gradient of
each weighted term with respect to the weights of each encoder stage and of the decoder, summed over BATCHES augmented
training batches of fold 0, as its norm relative to that of the segmentation loss, and its cosine with it.
"""

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_hlfd.training.balance import group_parameters
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.throwaway import real_batches, throwaway_trainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search

BATCHES = 20


def main(dataset: str, configuration: str, name: str, plans: str, output: Path, checkpoint: str | None) -> None:
    """Write one row for each part of the student and each term."""
    extend_trainer_search()
    with throwaway_trainer(dataset, configuration, "0", name, plans, "cpu") as trainer:
        assert isinstance(trainer, DistillationTrainer), f"{name} distills nothing"
        if checkpoint:
            trainer.load_checkpoint(str(Path(trainer.output_folder) / checkpoint))
            trainer.distiller.use(trainer.load_teacher())
        else:
            trainer.check_start()
        trainer.network.train()
        sums: dict[str, dict[str, Tensor]] = {}
        for batch in real_batches(trainer, BATCHES):
            _add(sums, trainer, _losses(trainer, batch))
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "term", "norm_to_segmentation", "cosine_with_segmentation"])
        for part, gradients in sums.items():
            reference = gradients["segmentation"]
            for term, gradient in gradients.items():
                ratio = (gradient.norm() / reference.norm()).item()
                cosine = torch.nn.functional.cosine_similarity(gradient, reference, dim=0).item()
                writer.writerow([part, term, f"{ratio:.4f}", f"{cosine:.4f}"])
    print(output.read_text())


def _losses(trainer: DistillationTrainer, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The segmentation loss and every weighted term of one batch."""
    target, distiller = batch["target"], trainer.distiller
    student = distiller.run_student(trainer.network, batch["data"])
    terms = distiller.terms(student, distiller.ask_teacher(batch["data"]), target[0])
    weighted = {name: distiller.method.weights[name] * term for name, term in terms.items()}
    return {"segmentation": trainer.loss(student.logits, target), **weighted}


def _add(sums: dict[str, dict[str, Tensor]], trainer: DistillationTrainer, losses: Mapping[str, Tensor]) -> None:
    for part, parameters in group_parameters(trainer.network).items():
        for term, loss in losses.items():
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            values = [
                torch.zeros_like(parameter) if gradient is None else gradient
                for parameter, gradient in zip(parameters, gradients, strict=True)
            ]
            part_sums = sums.setdefault(part, {})
            part_sums[term] = part_sums.get(term, torch.zeros(())) + torch.cat([value.flatten() for value in values])


if __name__ == "__main__":
    main(*sys.argv[1:5], Path(sys.argv[5]), sys.argv[6] if len(sys.argv) > 6 else None)
