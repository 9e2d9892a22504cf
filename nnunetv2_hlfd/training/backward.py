"""The total loss of one training step, its backward passes, and the optimizer's step after them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunetv2_hlfd.training.balance import BalanceRecord, Choice, balance, group_parameters

_CLIP_NORM = 12  # nnU-Net's


def weigh(
    segmentation: Tensor, terms: Mapping[str, Tensor], factors: Mapping[str, float], segmentation_terms: Collection[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The segmentation loss with the terms that take a share w of it, (1 - w) L_seg + w term, and the other terms.

    Args:
        segmentation: L_seg.
        terms: unweighted.
        factors: of the terms that count in this step, none of them 0.
        segmentation_terms: names of those that take their weight from L_seg.

    Returns:
        The first, and name -> weighted term of all others. The total loss is their sum.
    """
    share = sum(factor for name, factor in factors.items() if name in segmentation_terms)
    reference = segmentation if share == 0 else (1 - share) * segmentation
    weighted = {}
    for name, factor in factors.items():
        if name in segmentation_terms:
            reference = reference + factor * terms[name]
        else:
            weighted[name] = factor * terms[name]
    return reference, weighted


def backward(loss: Tensor, adapters: Sequence[nn.Parameter], scaler: Any, ddp: bool) -> None:
    """One backward pass of everything; DDP synchronizes the student's gradients, this the adapters'."""
    _scale(scaler)(loss).backward()
    if ddp:
        averaged = _averaged([parameter.grad for parameter in adapters])
        for parameter, gradient in zip(adapters, averaged, strict=True):
            parameter.grad = gradient


def balanced_backward(
    segmentation: Tensor,
    terms: Mapping[str, Tensor],
    network: nn.Module,
    adapters: Sequence[nn.Parameter],
    scaler: Any,
    ddp: bool,
    choice: Choice,
    ratio: float,
) -> BalanceRecord:
    """A backward pass for each term and one for the segmentation loss; the terms' gradients are balanced before adding.

    The terms come first, by torch.autograd.grad, which leaves DDP's reducer alone: two backward passes would
    synchronize the first only. The segmentation loss's own gradients are those of a training without terms, bit for
    bit.

    Args:
        segmentation: what the terms are balanced against.
        terms: weighted, one at least.
        network: the student, below DDP and torch.compile.
        adapters: trained by the terms alone; they are not balanced.
        scaler: GradScaler or None.
        ddp: several processes train together.
        choice: see `balance`.
        ratio: see `balance`.
    """
    scale, parts = _scale(scaler), group_parameters(network)
    student = [parameter for parameters in parts.values() for parameter in parameters]
    gradients: dict[str, Sequence[Tensor | None]] = {
        name: torch.autograd.grad(scale(term), [*student, *adapters], retain_graph=True, allow_unused=True)
        for name, term in terms.items()
    }
    scale(segmentation).backward()
    if ddp:
        gradients = {name: _averaged(term) for name, term in gradients.items()}
    record = balance(parts, {name: term[: len(student)] for name, term in gradients.items()}, choice, ratio)
    for index, parameter in enumerate(adapters, start=len(student)):
        own = [gradient for term in gradients.values() if (gradient := term[index]) is not None]
        parameter.grad = torch.stack(own).sum(dim=0) if own else None
    return record


def step(optimizer: torch.optim.Optimizer, network: nn.Module, adapters: Sequence[nn.Parameter], scaler: Any) -> None:
    """Clip and step as nnU-Net does; adapters are clipped apart from the student."""
    if scaler is not None:
        scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
    torch.nn.utils.clip_grad_norm_([parameter for parameter in adapters if parameter.grad is not None], _CLIP_NORM)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _scale(scaler: Any) -> Callable[[Tensor], Tensor]:
    return scaler.scale if scaler is not None else lambda loss: loss


def _averaged(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Mean over the processes, in one exchange; what is None is None in all of them and stays so."""
    known = [gradient for gradient in gradients if gradient is not None]
    if not known:
        return list(gradients)
    flat = torch.cat([gradient.flatten() for gradient in known])
    dist.all_reduce(flat)
    means = iter((flat / dist.get_world_size()).split([gradient.numel() for gradient in known]))
    return [None if gradient is None else next(means).view_as(gradient) for gradient in gradients]
