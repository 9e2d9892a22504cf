"""Shares of a map's mass inside a lesion, against maps added up by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from nnunetv2_hlfd.report.focus import focus_share, summarize_focus


def mask(*rows):
    return torch.tensor(rows, dtype=torch.bool)


LESION = mask((1, 1, 1, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
EVERYWHERE = torch.ones(4, 4, dtype=torch.bool)


@pytest.mark.parametrize("grid", [(4, 4), (2, 2), (1, 1), (8, 8), (4, 2)])
def test_a_uniform_map_has_the_lesions_share_of_the_area_on_every_grid(grid):
    found = focus_share(torch.full(grid, 3.0), LESION, EVERYWHERE)
    assert found.share == pytest.approx(5 / 16)
    assert found.uniform == pytest.approx(5 / 16)


def test_a_map_whose_mass_is_all_inside_has_the_share_1():
    assert focus_share(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), LESION, EVERYWHERE).share == 1
    assert focus_share(LESION.float(), LESION, EVERYWHERE).share == 1


def test_a_cell_counts_with_the_share_of_it_that_the_lesion_covers():
    found = focus_share(torch.tensor([[1.0, 4.0], [2.0, 3.0]]), LESION, EVERYWHERE)
    assert found.share == pytest.approx((1 * 1 + 4 * 0.25) / 10)
    assert found.largest == 1
    assert focus_share(torch.tensor([[7.0]]), LESION, EVERYWHERE).largest == pytest.approx(5 / 16)


def test_the_volume_counts_in_3d():
    lesion = torch.zeros(2, 4, 4, dtype=torch.bool)
    lesion[1, :2, :2] = True
    values = torch.zeros(2, 2, 2)
    values[1, 0, 0], values[0, 1, 1] = 3.0, 1.0
    found = focus_share(values, lesion, torch.ones_like(lesion))
    assert found.share == pytest.approx(3 / 4)
    assert found.uniform == pytest.approx(4 / 32)


def test_what_carries_the_ignore_label_counts_for_nothing():
    valid = EVERYWHERE.clone()
    valid[2:] = False
    found = focus_share(torch.tensor([[1.0, 4.0], [100.0, 100.0]]), LESION, valid)
    assert found.share == pytest.approx((1 + 1) / 5)
    assert found.uniform == pytest.approx(5 / 8)


def test_without_mass_or_lesion_there_is_no_share():
    assert np.isnan(focus_share(torch.zeros(2, 2), LESION, EVERYWHERE).share)
    assert np.isnan(focus_share(torch.ones(2, 2), torch.zeros_like(LESION), EVERYWHERE).share)
    assert focus_share(torch.zeros(2, 2), LESION, EVERYWHERE).uniform == pytest.approx(5 / 16)


def rows(arm, shares):
    return [
        {
            "arm": arm,
            "run": run,
            "case": case,
            "map": "attention",
            "stage": "early",
            "stride": "2x2",
            "share": share,
            "uniform": 0.1,
            "largest": 1.0,
        }
        for (run, case), share in shares.items()
    ]


def test_cases_are_averaged_over_the_seeds_before_their_deviation_is_taken():
    table = pd.DataFrame(
        [
            *rows("b", {("s1", "x"): 0.2, ("s2", "x"): 0.4, ("s1", "y"): 0.5, ("s2", "y"): 0.5, ("s1", "z"): np.nan}),
            *rows("a", {("s1", "x"): np.nan}),
        ]
    )
    first, second = summarize_focus(table, ["a", "b"]).to_dict("records")
    assert (first["arm"], first["cases"], second["arm"], second["cases"]) == ("a", 0, "b", 2)
    assert np.isnan(first["share_mean"])
    assert second["share_mean"] == pytest.approx(0.4)
    assert second["share_std"] == pytest.approx(np.std([0.3, 0.5], ddof=1))
