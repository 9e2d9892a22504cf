"""The supervised loss of the paper (L_seg of Eq. 5): focal loss and soft Dice in equal parts."""

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from torch import Tensor, nn
from torch.nn import functional

from nnunetv2_hlfd.losses.divergence import masked_mean
from nnunetv2_hlfd.losses.resize import at_least_float32


class FocalLoss(nn.Module):
    r"""Focal loss (Lin et al., ICCV 2017), (1 - p_t)^gamma (-log p_t), for one deep-supervision output.

    Over the classes of a softmax, or per channel as a binary problem for regions; mean over voxels that are not ignored
    (regions: and channels). gamma 0 is cross entropy.

    Shape:
        as `FocalDiceLoss`.
    """

    def __init__(self, *, regions: bool, ignore_label: int | None = None, gamma: float = 2.0) -> None:
        super().__init__()
        self.regions, self.ignore_label, self.gamma = regions, ignore_label, gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of one output as a scalar."""
        logits = at_least_float32(logits)
        ignored = ignored_voxels(target, self.ignore_label, self.regions)
        valid = None if ignored is None else ~ignored
        if self.regions:
            focal = self._binary(logits, target[:, : logits.shape[1]])
            return masked_mean(focal, None if valid is None else valid.expand_as(logits))
        return masked_mean(self._softmax(logits, _without_ignored(target, valid)), valid)

    def _softmax(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=1).gather(1, target.long())
        return -((1 - log_p.exp()) ** self.gamma) * log_p

    def _binary(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.to(logits.dtype)
        log_p = functional.logsigmoid(logits * (2 * target - 1))
        return -((1 - log_p.exp()) ** self.gamma) * log_p


class FocalDiceLoss(nn.Module):
    r"""0.5 focal + 0.5 (1 + nnU-Net's soft Dice loss, which is -Dice), for one deep-supervision output.

    nnU-Net's Dice leaves out the background for labels and pools over the batch where the plans say so.

    Shape:
        logits (B, C, *spatial). Target as nnU-Net's: labels (B, 1, *spatial); regions (B, C, *spatial), with an
        ignore label (B, C + 1, *spatial), its last channel marking ignored voxels.
    """

    def __init__(
        self, *, regions: bool, batch_dice: bool, ignore_label: int | None = None, ddp: bool = False, gamma: float = 2.0
    ) -> None:
        super().__init__()
        self.regions, self.ignore_label = regions, ignore_label
        self.focal = FocalLoss(regions=regions, ignore_label=ignore_label, gamma=gamma)
        self.dice = MemoryEfficientSoftDiceLoss(
            apply_nonlin=torch.sigmoid if regions else softmax_helper_dim1,
            batch_dice=batch_dice,
            do_bg=regions,
            smooth=1e-5,
            ddp=ddp,
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of one output as a scalar."""
        logits = at_least_float32(logits)
        ignored = ignored_voxels(target, self.ignore_label, self.regions)
        valid = None if ignored is None else ~ignored
        labels = target[:, : logits.shape[1]] if self.regions else _without_ignored(target, valid)
        return 0.5 * self.focal(logits, target) + 0.5 * (1 + self.dice(logits, labels, loss_mask=valid))


def _without_ignored(target: Tensor, valid: Tensor | None) -> Tensor:
    """Labels with background in place of the ignore label, which no channel stands for."""
    return target if valid is None else torch.where(valid, target, 0)


def ignored_voxels(target: Tensor, ignore_label: int | None, regions: bool) -> Tensor | None:
    """Boolean mask (B, 1, *spatial) of the voxels that carry the ignore label; None without such a label.

    Args:
        target: nnU-Net's target of one deep-supervision output.
        ignore_label: its value for labels; for regions any value says that the last channel marks ignored voxels.
        regions: region-based training.
    """
    if ignore_label is None:
        return None
    return target[:, -1:].bool() if regions else target == ignore_label
