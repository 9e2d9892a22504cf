"""How much of what a network looks at lies inside the lesion: shares of the mass of its maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from nnunetv2_hlfd.losses.resize import resize


@dataclass(frozen=True, kw_only=True)
class Share:
    """Share of a map's mass inside the lesion, and what it is to be read against.

    Attributes:
        share: NaN for a map that is zero everywhere, or a patch without lesion.
        uniform: that of a uniform map, the lesion's share of the area.
        largest: the most that any map on this grid can have, below 1 where no cell lies inside the lesion.
    """

    share: float
    uniform: float
    largest: float


def focus_share(values: Tensor, lesion: Tensor, valid: Tensor) -> Share:
    """Share of a map's mass inside the lesion, on the map's own grid, without interpolating it.

    A cell counts with the share of its area that the lesion covers. Area with the ignore label counts for nothing.

    Args:
        values: (*grid), not negative.
        lesion: (*spatial), bool, on the network's grid.
        valid: (*spatial), bool, False where the truth is unknown.
    """
    inside, known = (resize(mask[None, None].float(), values.shape)[0, 0] for mask in (lesion & valid, valid))
    area, mass = known.sum(), (values * known).sum()
    if not inside.any():
        return Share(share=float("nan"), uniform=float("nan"), largest=float("nan"))
    return Share(
        share=float((values * inside).sum() / mass) if mass > 0 else float("nan"),
        uniform=float(inside.sum() / area),
        largest=float((inside / known.clamp_min(1e-6)).max()),
    )


def summarize_focus(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over the cases, each averaged over the seeds of its arm first.

    Args:
        table: arm, run, case, map, stage, stride, share, uniform, largest.
        arms: their order.

    Returns:
        arm, map, stage, stride, cases (those that have a share), share_mean, share_std, uniform and largest (means over
        those cases).
    """
    keys = ["arm", "map", "stage", "stride"]
    present = table.dropna(subset="share")
    per_case = present.groupby([*keys, "case"], sort=False)[["share", "uniform", "largest"]].mean()
    groups = per_case.groupby(keys, sort=False)
    summary = groups["share"].agg(cases="size", share_mean="mean", share_std="std")
    summary = summary.join(groups[["uniform", "largest"]].mean())
    everything = table[keys].drop_duplicates()
    result = everything.merge(summary.reset_index(), on=keys, how="left").fillna({"cases": 0}).astype({"cases": int})
    order = result["arm"].map({name: index for index, name in enumerate(arms)})
    return result.iloc[order.argsort(kind="stable")].reset_index(drop=True)
