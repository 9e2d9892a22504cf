r"""Terms in the ratio that they have in their source beside its segmentation loss.

A source gives the weight of its term beside its own segmentation loss S, for most of them the mean cross entropy. The
same number beside another loss L means another ratio. So in every step the term's weight is multiplied by
    r = ||dL/dz|| / ||dS/dz||,
z the student's final logits of the whole batch: the gradient of the term then stands to that of L as it stands in its
source to that of S. L and S are the losses of the final output alone: nnU-Net's deep supervision divides a weight of 1
among the outputs, and sources have one output. r is a factor without gradient.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import Task
from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss, FocalLoss
from nnunetv2_hlfd.losses.resize import at_least_float32


class SourceRatio:
    """r of every term whose source has another loss.

    Args:
        loss: L of one output.
        own: its name, if it is also a source's (see `source_loss`): r is 1 there, and is not computed.
        sources: name of a term -> name of its source's loss.
        task: what the outputs mean.
    """

    def __init__(self, loss: nn.Module, own: str, sources: Mapping[str, str], task: Task) -> None:
        self.loss, self.ddp = loss, task.ddp
        self.terms = {term: name for term, name in sources.items() if name != own}
        self.losses = {name: source_loss(name, task) for name in sorted(set(self.terms.values()))}

    def __call__(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Name of a term -> r, a scalar without graph; 1 where S has no gradient (no voxel is annotated).

        With several processes all of them have to call it, and find the same.

        Args:
            logits: (B, C, *spatial), of the final output.
            target: nnU-Net's full-resolution target.
        """
        with torch.autocast(logits.device.type, enabled=False):
            values = at_least_float32(logits.detach())
            squares = [_squared_norm(loss, values, target) for loss in (self.loss, *self.losses.values())]
        norms = torch.stack(squares)
        if self.ddp:
            dist.all_reduce(norms)
        own, *others = norms.sqrt()
        ratios = {
            name: torch.where(norm > 0, own / norm, torch.ones_like(norm))
            for name, norm in zip(self.losses, others, strict=True)
        }
        return {term: ratios[name] for term, name in self.terms.items()}

    def __repr__(self) -> str:  # nnU-Net writes every attribute of a trainer into debug.json
        return f"SourceRatio({', '.join(self.terms)})"


def source_loss(name: str, task: Task) -> nn.Module:
    """The segmentation loss of a source, on one output.

    Args:
        name: "cross_entropy", the mean over the voxels; regions: of the sum over the channels, as that of the KL
            divergences. "focal_dice": that of the recipe paper.
        task: what the outputs mean.
    """
    if name == "focal_dice":
        return FocalDiceLoss(
            regions=task.regions, batch_dice=task.batch_dice, ignore_label=task.ignore_label, ddp=task.ddp
        )
    mean = FocalLoss(regions=task.regions, ignore_label=task.ignore_label, gamma=0.0)
    return _Scaled(mean, task.num_heads) if task.regions else mean


class _Scaled(nn.Module):
    def __init__(self, loss: nn.Module, factor: float) -> None:
        super().__init__()
        self.loss, self.factor = loss, factor

    def forward(self, *inputs: Any) -> Tensor:
        return self.factor * self.loss(*inputs)


def _squared_norm(loss: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    """Squared L2 norm of a loss's gradient at the logits."""
    leaf = logits.detach().requires_grad_()
    [gradient] = torch.autograd.grad(loss(leaf, target), leaf)
    return gradient.square().sum()
