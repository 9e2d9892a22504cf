"""One training step compiled and in mixed precision against the same step eager in float32.

python docs/benchmarks/gpu_check.py DATASET CONFIGURATION PLANS [-tr nnUNetTrainerHLFD ...] [-device cuda]

PLANS is a variant of its own (`nnUNetv2_hlfd plan`) whose teacher is trained, or whose maps are stored. Without `-tr`
it is HLFD as printed, HLFD balanced (a gradient for each term), SoftLabel, and KD (whose weight follows a source's
ratio). On a GPU student and live teacher are compiled by inductor, as in a training, and mixed precision is nnU-Net's
(float16 with loss scaling). `-device cpu` only shows that this script works: it compiles with aot_eager and mixes with
bfloat16.

Every mode starts from the same weights and sees the same batch. Compared are the losses (relative difference) and the
gradients of student and adapters (relative L2 distance of all of them together). Exits with 1 where one is beyond its
tolerance.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from typing import Any

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from torch import Tensor, nn

from nnunetv2_hlfd.teacher.teacher import Teacher
from nnunetv2_hlfd.training import distillation_trainer as trainer_module
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.device import choose_device

# compiled, mixed precision
MODES = {
    "eager float32": (False, False),
    "compiled float32": (True, False),
    "eager mixed": (False, True),
    "compiled mixed": (True, True),
}
# relative, for losses and gradients: float32 sums in another order; float16 has 3 digits, bfloat16 has 2
TOLERANCES = {
    ("cuda", False): (1e-3, 1e-2),
    ("cuda", True): (2e-2, 1e-1),
    ("cpu", False): (1e-3, 1e-2),
    ("cpu", True): (2e-2, 3e-1),
}
TRAINERS = [f"nnUNetTrainer{method}" for method in ("HLFD", "HLFD_balanced", "SoftLabel", "KD")]
ATTEMPTS = 10  # loss scaling starts too high and skips steps until it fits


def main(options: argparse.Namespace) -> int:
    """Check every trainer, return the exit code."""
    device = choose_device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    extend_trainer_search()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"\nDevice: {name}, torch {torch.__version__}")
    failed = [trainer for trainer in options.tr if not check(trainer, options, device)]
    if device.type != "cuda":
        print("\nNo GPU was used: this run only shows that the script works.")
    return int(bool(failed))


def check(name: str, options: argparse.Namespace, device: torch.device) -> bool:
    """Run every mode of a trainer, print its table, and tell whether everything is within its tolerance."""
    batch, reference, good = None, None, True
    rows = []
    for mode, (compiled, mixed) in MODES.items():
        trainer = start(name, options, device, compiled)
        batch = batch or next(trainer.get_dataloaders()[0])
        losses, gradients = step(trainer, batch, device, mixed)
        reference = reference or (losses, gradients)
        limits = TOLERANCES[device.type, mixed]
        errors = {
            f"loss {term}": (abs(value - reference[0][term]) / max(abs(reference[0][term]), 1e-6), limits[0])
            for term, value in losses.items()
        }
        for part, gradient in gradients.items():
            norm = reference[1][part].norm().clamp_min(1e-12)
            errors[f"gradient {part}"] = (float((gradient - reference[1][part]).norm() / norm), limits[1])
        if mode != "eager float32":
            rows += [(mode, quantity, error, limit) for quantity, (error, limit) in errors.items()]
    print(
        f"\n{name}\n\n| mode | quantity | relative difference from eager float32 | tolerance | |\n|---|---|---|---|---|"
    )
    for mode, quantity, error, limit in rows:
        fits = error <= limit  # NaN does not
        good &= fits
        print(f"| {mode} | {quantity} | {error:.1e} | {limit:.0e} | {'ok' if fits else 'FAILED'} |")
    return good


def start(name: str, options: argparse.Namespace, device: torch.device, compiled: bool) -> DistillationTrainer:
    """A trainer that is ready for its first step, its network compiled or not."""
    os.environ["nnUNet_compile"] = "true" if compiled else "false"
    torch.compiler.reset()
    trainer = get_trainer_from_args(
        options.dataset, options.configuration, options.fold, name, options.p, device=device
    )
    trainer.check_start()
    if compiled and device.type != "cuda":  # nnU-Net compiles on CUDA only
        trainer.network = torch.compile(trainer.network, backend="aot_eager")
        if isinstance(trainer.distiller.teacher, Teacher):
            trainer.distiller.teacher.compile(backend="aot_eager")
    trainer.network.train()
    return trainer


def step(
    trainer: DistillationTrainer, batch: dict[str, Any], device: torch.device, mixed: bool
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses and (flat, float64) gradients of a step."""
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    # the trainer mixes on CUDA only and always; this script, alone in its process, decides in its place
    trainer_module.autocast = lambda kind, enabled: torch.autocast(kind, half, enabled=mixed)
    if not mixed:
        trainer.grad_scaler = None
    for _ in range(ATTEMPTS):
        outputs = trainer.train_step(batch)
        gradients = {
            "student": _flat(trainer.network.parameters()),
            "adapters": _flat(trainer.distiller.method.parameters()),
        }
        if all(gradient.isfinite().all() for gradient in gradients.values()):
            break
    names = ("segmentation", *trainer.distiller.method.weights)
    losses = {"total": float(outputs["loss"]), **dict(zip(names, map(float, outputs["terms"]), strict=True))}
    ratios = zip(trainer.distiller.log.ratio_terms, map(float, outputs["ratios"]), strict=True)
    losses |= {f"{term}'s source ratio": ratio for term, ratio in ratios}
    return losses, gradients


def _flat(parameters: Iterable[nn.Parameter]) -> Tensor:
    """All gradients in one vector; zeros where there is none (the head that nnU-Net gives weight 0)."""
    zeros = torch.zeros(1, dtype=torch.float64)
    parts = [
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).double().flatten().cpu()
        for parameter in parameters
    ]
    return torch.cat([zeros, *parts])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("p", metavar="plans")
    parser.add_argument("-fold", type=int, default=0)
    parser.add_argument("-tr", nargs="+", default=TRAINERS)
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu"))
    sys.exit(main(parser.parse_args()))
