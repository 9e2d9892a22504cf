r"""Distillation terms that cannot outweigh or work against the segmentation loss, part by part of the network.

For each part of the network (the encoder's stem and stages, the decoder) and each term, with the gradients g_s of the
segmentation loss and g_t of the weighted term with respect to the part's parameters,
    c = <g_s, g_t> / (|g_s| |g_t|), and the part's gradient becomes g = g_s + sum_t k_t g'_t with
    cap:     g' = g_t,                                 k = min(1, rho |g_s| / |g_t|);
    gate:    g' = g_t,                                 k = min(1, rho |g_s| / |g_t|) max(0, c);
    project: g' = g_t - min(0, <g_s, g_t>) g_s / |g_s|^2, k = min(1, rho |g_s| / |g'|).
k is 0 where |g_s|, |g_t| or |g'| is below 1e-12. So a term's share of a part's gradient is at most rho times the
segmentation loss's.

Guarantees for each part, up to rounding: gate and project <g, g_s> >= |g_s|^2, the step is downhill for the
segmentation loss to first order; cap with n terms <g, g_s> >= (1 - n rho) |g_s|^2. They hold for the gradient, not for
what Adam makes of it.

Sources: the gate by the cosine is that of Du et al. 2018 (arXiv 1812.02224), which weights an auxiliary loss's gradient
by max(0, c); the projection is PCGrad's (Yu et al., NeurIPS 2020, arXiv 2001.06782), in one direction only: the
segmentation loss's gradient is never changed. The cap is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Choice = Literal["cap", "gate", "project"]
_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class BalanceRecord:
    """What `balance` did in one step. Tensors (parts, terms) on the network's device.

    NaN where a term has no path into a part, or no gradient there: a compiled network gives zeros for no path.

    Attributes:
        parts: names of the rows.
        terms: names of the columns.
        share: k, how much of the term (project: of what the projection leaves of it) was kept.
        ratio: |g_t| / |g_s| before balancing; 0 where |g_s| is below 1e-12.
        cosine: c, before balancing; 0 where |g_s| is below 1e-12.
    """

    parts: tuple[str, ...]
    terms: tuple[str, ...]
    share: Tensor
    ratio: Tensor
    cosine: Tensor


def group_parameters(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by part: 'encoder.stem', 'encoder.stages.N', 'decoder', others by their first name.

    A parameter that occurs under several names is counted under its first one: the decoders of
    dynamic_network_architectures hold the encoder as well.

    Args:
        network: below DDP and torch.compile.
    """
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parts.setdefault(_part(name), []).append(parameter)
    return parts


@torch.no_grad()
def balance(
    parts: Mapping[str, Sequence[nn.Parameter]],
    term_gradients: Mapping[str, Sequence[Tensor | None]],
    choice: Choice,
    ratio: float,
) -> BalanceRecord:
    """Add what is kept of the terms' gradients to the segmentation loss's, which stand in `grad`, in place.

    The order of one training step around it:
        1. The terms' gradients, each by torch.autograd.grad(scale(factor * term), parameters, retain_graph=True,
           allow_unused=True), `scale` being GradScaler's. This does not touch DDP's reducer.
        2. scale(segmentation loss).backward(), in which DDP synchronizes `grad`.
        3. With several processes: one all_reduce of all terms' gradients, divided by the number of processes, so that
           every process finds the same k. What is None is None in all of them and stays so.
        4. This function, before `unscale_`: k does not depend on the scale, and an inf or NaN of a term goes on into
           `grad` (0 * inf is NaN), where GradScaler finds it and skips the step.
        5. The adapters' gradients, which are not balanced.
        6. `unscale_`, clipping, step and update, as nnU-Net does.

    No value is read back from the device.

    Args:
        parts: from `group_parameters`.
        term_gradients: name of a term -> its gradients in the order of the parts and their parameters, None where the
            term has no path to a parameter. One term at least.
        choice: "cap", "gate" or "project".
        ratio: rho > 0.
    """
    rows, start = [], 0
    for parameters in parts.values():
        end = start + len(parameters)
        gradients = [values[start:end] for values in term_gradients.values()]
        rows.append(_balance_part(parameters, gradients, choice, ratio))
        start = end
    assert all(len(values) == start for values in term_gradients.values())
    share, term_ratio, cosine = torch.stack(rows, dim=1)
    return BalanceRecord(parts=tuple(parts), terms=tuple(term_gradients), share=share, ratio=term_ratio, cosine=cosine)


def _part(name: str) -> str:
    words = name.split(".")
    if words[:2] == ["encoder", "stages"]:
        return ".".join(words[:3])
    return "encoder.stem" if words[:2] == ["encoder", "stem"] else words[0]


def _balance_part(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Sequence[Tensor | None]], choice: Choice, rho: float
) -> Tensor:
    """Balance one part; returns share, ratio and cosine (3, terms)."""
    columns = [torch.full((3,), torch.nan, device=parameters[0].device)] * len(gradients)
    paths = [index for index, of_term in enumerate(gradients) if any(gradient is not None for gradient in of_term)]
    if paths:
        taught = [gradients[index] for index in paths]
        segmentation = _flatten(parameters, [parameter.grad for parameter in parameters])
        terms = torch.stack([_flatten(parameters, of_term) for of_term in taught])
        kept, values = _keep(segmentation, terms, choice, rho)
        _add(parameters, taught, kept)
        for index, column in zip(paths, values.unbind(dim=1), strict=True):
            columns[index] = column
    return torch.stack(columns, dim=1)


def _keep(segmentation: Tensor, terms: Tensor, choice: Choice, rho: float) -> tuple[Tensor, Tensor]:
    """What is to be added to the segmentation loss's gradient (n), and share, ratio and cosine (3, terms).

    Args:
        segmentation: (n).
        terms: (terms, n).
        choice: see `balance`.
        rho: see `balance`.
    """
    norm, term_norms = _norm(segmentation), _norm(terms)
    product = (terms * segmentation).sum(dim=1)
    cosine = _divide(_divide(product, norm), term_norms)
    kept = terms
    if choice == "project":
        kept = terms - _divide(_divide(product.clamp(max=0), norm), norm)[:, None] * segmentation
    share = _divide(rho * norm, _norm(kept)).clamp(max=1)
    if choice == "gate":
        share = share * cosine.clamp(min=0)
    values = torch.stack([share, _divide(term_norms, norm), cosine])
    return (share[:, None] * kept).sum(dim=0), torch.where(term_norms > 0, values, torch.nan)


def _norm(values: Tensor) -> Tensor:
    """L2 norm over the last axis; 0 where it is below 1e-12 (or NaN), so that `_divide` gives 0."""
    norm = torch.linalg.vector_norm(values, dim=-1)
    return torch.where(norm > _EPS, norm, 0)


def _divide(values: Tensor, norms: Tensor) -> Tensor:
    """The quotient; 0 where a norm is 0."""
    return torch.where(norms > 0, values / norms, 0)


def _flatten(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """All gradients in one row; zeros for None."""
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat(
        [(torch.zeros_like(value) if gradient is None else gradient).flatten() for value, gradient in pairs]
    )


def _add(parameters: Sequence[nn.Parameter], gradients: Sequence[Sequence[Tensor | None]], kept: Tensor) -> None:
    """Add the row `kept` to the parameters' gradients; a parameter that no loss reaches keeps None."""
    pieces = kept.split([parameter.numel() for parameter in parameters])
    for parameter, piece, *of_terms in zip(parameters, pieces, *gradients, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(piece.view_as(parameter))
        elif any(gradient is not None for gradient in of_terms):
            parameter.grad = piece.view_as(parameter).clone()
