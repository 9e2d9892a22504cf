"""Kullback-Leibler divergence of segmentation maps (the pixel-level half of HLFD, Eq. 3 and 4)."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from nnunetv2_hlfd.losses.resize import at_least_float32


def probabilities(logits: Tensor, temperature: float, regions: bool) -> Tensor:
    """Softmax over classes (labels) or sigmoid per channel (regions) of logits / temperature.

    Args:
        logits: (B, C, *spatial).
        temperature: T > 0; 1 is the plain prediction.
        regions: nnU-Net's region-based training (overlapping regions, no background channel).

    Returns:
        (B, C, *spatial), at least float32.
    """
    scaled = at_least_float32(logits) / temperature
    return scaled.sigmoid() if regions else scaled.softmax(dim=1)


def kl_divergence(
    student_logits: Tensor,
    teacher_probabilities: Tensor,
    *,
    temperature: float,
    regions: bool = False,
    valid: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    r"""KL(teacher || student) at a temperature, times T^2.

    Labels: T^2 sum_c p_c log(p_c / q_c) with q = softmax(student_logits / T). Regions: each channel is a Bernoulli
    variable; their divergences are summed. Then the mean over (valid) voxels and the batch. The paper prints the
    arguments the other way round; its code, and the work it builds on, take the teacher as the reference.

    Args:
        student_logits: (B, C, *spatial).
        teacher_probabilities: (B, C, *spatial), already at the same temperature.
        temperature: T > 0. T^2 keeps the gradient's size comparable over temperatures.
        regions: see `probabilities`.
        valid: (B, 1, *spatial), boolean; only these voxels count. Without a valid voxel the result is 0.
        weights: (B, 1, *spatial) from `class_weights`, which replace the mean over the valid voxels by a weighted sum.
    """
    scaled = at_least_float32(student_logits) / temperature
    p = at_least_float32(teacher_probabilities)
    if regions:
        cross_entropy = -(p * functional.logsigmoid(scaled) + (1 - p) * functional.logsigmoid(-scaled))
        negative_entropy = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)
    else:
        cross_entropy = -p * scaled.log_softmax(dim=1)
        negative_entropy = torch.xlogy(p, p)
    divergence = (cross_entropy + negative_entropy).sum(dim=1, keepdim=True)
    mean = masked_mean(divergence, valid) if weights is None else (weights * divergence).sum()
    return temperature**2 * mean


def class_weights(teacher_probabilities: Tensor, regions: bool, valid: Tensor | None) -> Tensor:
    r"""Voxel weights that make a weighted sum the mean of the classes' means.

    w(v) = 1/K sum_c m_c(v) / sum_v' m_c(v'), m_c the teacher's probability of class c: a voxel belongs to classes by
    their shares of it. K counts the classes that have any. Regions overlap and leave voxels out, so what lies in none,
    1 - max_c p_c, is a class of its own. So a small lesion weighs as much as the background.

    Several processes divide by their mean sums, as in `masked_mean`.

    Args:
        teacher_probabilities: (B, C, *spatial), without graph.
        regions: see `probabilities`.
        valid: (B, 1, *spatial), boolean; other voxels get weight 0.

    Returns:
        (B, 1, *spatial).
    """
    members = at_least_float32(teacher_probabilities)
    if regions:
        members = torch.cat([members, 1 - members.amax(dim=1, keepdim=True)], dim=1)
    if valid is not None:
        members = torch.where(valid, members, 0)
    axes = [axis for axis in range(members.ndim) if axis != 1]
    sums = mean_over_processes(members.sum(dim=axes, keepdim=True))
    present = sums > 0
    shares = torch.where(present, members / torch.where(present, sums, 1), 0)
    return shares.sum(dim=1, keepdim=True) / present.sum().clamp_min(1)


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the valid entries; 0 (with a graph) where there are none.

    Several processes (DDP) divide by their mean number of valid entries, so that the mean over the processes, which is
    what DDP makes of gradients, is that of one process on the whole batch.

    Args:
        values: any shape.
        valid: boolean, same shape, or None for all.
    """
    if valid is None:
        return values.mean()
    count = mean_over_processes(valid.sum())
    return torch.where(valid, values, 0).sum() / torch.where(count > 0, count, 1)


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a statistic over the processes that train together, without gradient; with one process the value itself.

    Every process has to call it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value.detach()
    mean = value.detach().float().clone()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def valid_cells(ignored: Tensor, size: tuple[int, ...]) -> Tensor:
    """Which cells of a coarser or finer grid hold no ignored voxel.

    Args:
        ignored: (B, 1, *spatial), boolean.
        size: the grid.

    Returns:
        (B, 1, *size), boolean.
    """
    if tuple(ignored.shape[2:]) == tuple(size):
        return ~ignored
    pool = functional.adaptive_max_pool2d if ignored.ndim == 4 else functional.adaptive_max_pool3d
    return pool(ignored.float(), size) == 0
