r"""Segmentation loss against a map of probabilities (soft labels), such as a teacher's prediction.

p is the target, q the prediction (softmax over the classes, or sigmoid per channel for regions), sums run over voxels.

Soft Dice, with the Dice semimetric loss's numerator (Wang et al., MICCAI 2023, arXiv 2303.16296; the Jaccard index's is
arXiv 2302.05666):
    Dice = (|p| + |q| - |p - q| + s) / (|p| + |q| + s), L1 norms, s = 1e-5, with |p| + |q| - |p - q| = 2 sum min(p, q).
The usual numerator 2 sum p q is the same for one-hot p, but is not largest at q = p for others: where p is 0.6 it asks
for 1.

Pixel part, TV(p, q)^gamma CE(p, q) for each voxel:
    CE(p, q) = -sum_c p_c log q_c; regions: binary, channel by channel,
    TV(p, q) = 1/2 sum_c |p_c - q_c| = sum_c p_c - sum_c min(p_c, q_c), total variation; regions: |p - q| per channel.
For one-hot p with the true class t, TV is 1 - q_t, so that this is the focal loss (Lin et al., ICCV 2017). The sum
p_c (1 - q_c)^gamma (-log q_c) over the classes equals it there too, but is not smallest at q = p for other p.
"""

from collections.abc import Sequence

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import Tensor, nn
from torch.nn import functional

from nnunetv2_hlfd.losses.divergence import masked_mean, probabilities, valid_cells
from nnunetv2_hlfd.losses.resize import at_least_float32, resize

_SMOOTH = 1e-5  # nnU-Net's


class SoftLabelLoss(nn.Module):
    """The recipe's segmentation loss for soft labels: at one-hot targets it equals the loss that learns from labels.

    With the share 0.5 of soft Dice, and any other in the same sum of weights:
        paper: 0.5 TV^2 CE + 0.5 (1 - Dice), at one-hot targets `FocalDiceLoss`;
        nnunet: CE - Dice, at one-hot targets nnU-Net's own DC_and_CE_loss or DC_and_BCE_loss.

    It is smallest at q = p. Soft Dice has a kink there (an L1 norm has no gradient of its own at 0; PyTorch's is 0).
    Everything is computed in float32 (float64 for float64 logits), whatever autocast is on. Memory, in maps of the
    logits' shape: p, q and log q are kept for the backward pass, min(p, q) and the product in CE live in the forward
    pass alone (regions: a few more). Dice goes class by class, so that it adds none.

    Args:
        recipe: "paper" or "nnunet".
        regions: nnU-Net's region-based training: sigmoid per channel, no background channel.
        batch_dice: pool Dice over the batch (and over the processes) instead of averaging it over the samples.
        has_ignore_label: of the data set. nnU-Net's binary cross entropy is the sum over regions instead of their mean
            where there is one, whether or not a voxel is ignored, and so is that of the recipe nnunet here.
        ddp: several processes train together. All of them must call the loss.
        soft_dice_share: share of soft Dice, 0 to 1.

    Shape:
        logits and target (B, C, *spatial), 2d or 3d; valid (B, 1, *spatial).
    """

    def __init__(
        self,
        *,
        recipe: str,
        regions: bool,
        batch_dice: bool,
        has_ignore_label: bool = False,
        ddp: bool = False,
        soft_dice_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.regions, self.batch_dice, self.ddp = regions, batch_dice, ddp
        paper = recipe == "paper"
        self.gamma = 2.0 if paper else 0.0
        self.dice_loss_offset = 1.0 if paper else 0.0
        total = 1.0 if paper else 2.0
        self.pixel_weight, self.dice_weight = total * (1 - soft_dice_share), total * soft_dice_share
        self.sum_over_regions = regions and has_ignore_label and not paper

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss of one output as a scalar.

        Args:
            logits: with graph.
            target: probabilities, without graph; they sum to 1 over the classes (labels).
            valid: boolean, the voxels that count; None for all. Without any the loss is a constant with a graph, whose
                gradient is 0: for the recipe paper 0, for nnunet -1 times Dice's weight, as nnU-Net's own.
        """
        logits = at_least_float32(logits)
        target = target.to(logits.dtype)
        q = probabilities(logits, 1.0, self.regions).unbind(dim=1)
        p = target.unbind(dim=1)
        shared = [torch.minimum(p_c, q_c) for p_c, q_c in zip(p, q, strict=True)]
        pixel = self._cross_entropy(logits, target)
        if self.gamma:
            pixel = self._total_variation(p, q, shared).pow(self.gamma) * pixel
        pixel_loss = masked_mean(pixel, None if valid is None else valid.expand_as(pixel))
        if self.sum_over_regions:
            pixel_loss = pixel_loss * logits.shape[1]
        dice_loss = self.dice_loss_offset - self._dice(p, q, shared, valid)
        return self.pixel_weight * pixel_loss + self.dice_weight * dice_loss

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, 1, *spatial), for regions (B, C, *spatial)."""
        if self.regions:
            return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return functional.cross_entropy(logits, target, reduction="none").unsqueeze(1)

    def _total_variation(self, p: Sequence[Tensor], q: Sequence[Tensor], shared: Sequence[Tensor]) -> Tensor:
        """Like `_cross_entropy`. Never below 0, and exactly 0 at q = p: both sums add up in the same order."""
        if self.regions:
            return torch.stack([(p_c - q_c).abs() for p_c, q_c in zip(p, q, strict=True)], dim=1)
        return (sum(p[1:], start=p[0]) - sum(shared[1:], start=shared[0])).unsqueeze(1)

    def _dice(self, p: Sequence[Tensor], q: Sequence[Tensor], shared: Sequence[Tensor], valid: Tensor | None) -> Tensor:
        """Mean soft Dice over the classes (labels: without the background) and, without batch_dice, the samples."""
        first = 0 if self.regions else 1
        sums = torch.stack(
            [torch.stack([_sum(values, valid) for values in maps[first:]], dim=1) for maps in (shared, p, q)]
        )  # (3, B, classes)
        if self.batch_dice:
            sums = sums.sum(dim=1)
            if self.ddp:
                sums = AllGatherGrad.apply(sums).sum(dim=0)
        shared_sum, p_sum, q_sum = sums
        return ((2 * shared_sum + _SMOOTH) / (p_sum + q_sum + _SMOOTH)).mean()


def deep_soft_label_loss(
    loss: SoftLabelLoss,
    logits: Sequence[Tensor],
    weights: Sequence[float],
    target: Tensor,
    ignored: Tensor | None = None,
) -> Tensor:
    """Weighted sum of the loss over all outputs, as nnU-Net's DeepSupervisionWrapper makes it.

    Every output learns from the same target, averaged over the area of its voxels: a mean of probabilities is a
    probability. Outputs of weight 0 are left out, so that they get no gradient at all.

    Args:
        loss: of one output.
        logits: one (B, C, *spatial) for each output, highest resolution first.
        weights: one for each output, the `weight_factors` of nnU-Net's wrapper as it was built (they differ under DDP).
        target: probabilities (B, C, *spatial), at the highest resolution.
        ignored: boolean (B, 1, *spatial), voxels that shall teach nothing; a coarser voxel with one of them teaches
            nothing either. None where every voxel counts.
    """
    target = at_least_float32(target)
    total = logits[0].new_zeros(())
    for output, weight in zip(logits, weights, strict=True):
        if weight != 0:
            size = tuple(output.shape[2:])
            valid = None if ignored is None else valid_cells(ignored, size)
            total = total + weight * loss(output, resize(target, size), valid)
    return total


def _sum(values: Tensor, valid: Tensor | None) -> Tensor:
    """Sum over the (valid) voxels of (B, *spatial), per sample."""
    if valid is not None:
        values = torch.where(valid[:, 0], values, 0)
    return values.flatten(start_dim=1).sum(dim=1)
